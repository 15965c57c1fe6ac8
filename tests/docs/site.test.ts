// The documentation site as it is deployed: every link leads somewhere, it works under a sub-path, and axe finds nothing wrong with it.

import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium, type Browser, type Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CHROMIUM, CHROMIUM_FLAGS } from "../../scripts/hosts.mjs";
import { brokenLinks } from "../../scripts/links.mjs";
import { sideways, violations } from "../browser/axe.js";
import { screenshot, watchErrors } from "../browser/harness.js";
import { startServer, type TestServer } from "../unit/server.js";

const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url));
const SITE = path("../../www/docs");
const BASE = "some/sub/path";

let browser: Browser;
let server: TestServer;
beforeAll(async () => {
  if (!existsSync(SITE)) throw new Error("www/docs is not there: npm run docs");
  server = await startServer();
  server.folders.set(BASE, SITE);
  browser = await chromium.launch({ executablePath: CHROMIUM, args: CHROMIUM_FLAGS });
});
afterAll(async () => {
  await browser?.close();
  await server?.close();
});

it("finds dead links", () => {
  const folder = mkdtempSync(join(tmpdir(), "webjepa-links-"));
  mkdirSync(join(folder, "deep"));
  writeFileSync(join(folder, "index.html"), '<a href="deep/page.html#here">1</a> <a href="https://example.org/none">2</a> <a href="#top" id="top">3</a> <img src="none.png"> <script>"<a href=\'x.html\'>"</script>');
  writeFileSync(join(folder, "deep", "page.html"), '<p id="here"></p> <a href="../index.html#gone">1</a> <a href="/index.html">2</a> <a href="../../out.html">3</a> <a href="../?a=1">4</a>');
  const { pages, broken } = brokenLinks(folder);
  rmSync(folder, { recursive: true });
  expect(pages).toBe(2);
  expect(broken.map((line: string) => line.split(": ")[1])).toEqual([
    "none.png is not there",
    "../index.html#gone names a place that is not in the page",
    "/index.html works at the root of a server only",
    "../../out.html leaves the site",
  ]);
});

it("has every guide and every document, and no dead link", () => {
  const { pages, broken } = brokenLinks(SITE);
  expect(broken).toEqual([]);
  expect(pages).toBeGreaterThan(100);
  const documents = ["../../docs", "../../docs/guides"].flatMap((folder) => readdirSync(path(folder)).filter((name) => name.endsWith(".md")));
  // And the two at the top; the README is the first page.
  expect(readdirSync(join(SITE, "documents"))).toHaveLength(documents.length + 2);
});

/** A page of the site that may ask for nothing but the site's own files, and must find them all. */
async function withPage(body: (page: Page) => Promise<void>): Promise<void> {
  const page = await browser.newPage({ reducedMotion: "reduce" });
  const faults: string[] = [];
  watchErrors(page, (text) => faults.push(text));
  page.on("response", (response) => response.status() >= 400 && faults.push(`${response.status()}: ${response.url()}`));
  page.on("request", (request) => request.url().startsWith(`${server.url}${BASE}/`) || request.url().startsWith("data:") || faults.push(request.url()));
  try {
    await body(page);
  } finally {
    await page.close();
  }
  expect(faults).toEqual([]);
}

/** Opens a page and waits for what TypeDoc's script makes of it. */
async function visit(page: Page, name: string): Promise<void> {
  await page.goto(`${server.url}${BASE}/${name}`, { waitUntil: "networkidle" });
  await page.locator("#tsd-nav-container details").first().waitFor({ state: "attached" });
  await page.locator("body").waitFor({ state: "visible" });
}

it("works under a sub-path: pages, pictures and navigation", () =>
  withPage(async (page) => {
    await visit(page, "");
    await page.getByRole("link", { name: "Masks, explained" }).first().click();
    await page.waitForURL(/Masks/);
    expect(await page.locator("h1").allInnerTexts()).toEqual(["Masks, explained"]);
    expect(await page.locator("img").evaluateAll((images) => images.every((image) => (image as HTMLImageElement).naturalWidth > 0))).toBe(true);
    await visit(page, "functions/webjepa_viz.heatMap.html");
    expect(await page.locator("h1").innerText()).toContain("heatMap");
  }));

it("finds an API and a guide by words, under a sub-path", () =>
  withPage(async (page) => {
    await visit(page, "");
    for (const [words, path] of [["embedStream", "classes/webjepa.Jepa.html"], ["collapse", "documents/Collapse,_and_how_to_read_the_monitors.html"]] as const) {
      await page.keyboard.press("Control+k");
      await page.locator("#tsd-search-input").fill(words);
      const results = page.locator("#tsd-search-results a");
      await results.first().waitFor();
      // TypeDoc's script puts a link into each option, which keys do not reach: the box itself opens the chosen one.
      expect((await violations(page)).filter((violation) => !/^nested-interactive.*#tsd-search/.test(violation))).toEqual([]);
      const places = await results.evaluateAll((links) => links.map((link) => new URL((link as HTMLAnchorElement).href).pathname));
      const place = `/${BASE}/${path}`;
      expect(places).toContain(place);
      await results.nth(places.indexOf(place)).click();
      await page.waitForURL((url) => url.pathname === place);
    }
  }));

/** The first page, one of each kind that TypeDoc makes, and documents with wide tables, programs and pictures. */
const PAGES = [
  "index.html",
  "modules.html",
  "modules/webjepa.html",
  "hierarchy.html",
  "classes/webjepa.Trainer.html",
  "interfaces/webjepa.AttentiveProbeLoadOptions.html",
  "functions/webjepa_viz.heatMap.html",
  "types/webjepa.ModelSource.html",
  "variables/webjepa_viz.TARGET_COLOURS.html",
  "documents/Masks,_explained.html",
  "documents/Official_checkpoints.html",
  "documents/Benchmarks.html",
];

describe.each(PAGES)("the page %s", (name) => {
  it.each(["light", "dark"] as const)("has nothing that axe complains of, in %s", (colorScheme) =>
    withPage(async (page) => {
      await page.emulateMedia({ colorScheme });
      for (const width of [1280, 390]) {
        await page.setViewportSize({ width, height: 844 });
        await visit(page, name);
        expect(await violations(page)).toEqual([]);
        expect(await sideways(page)).toEqual({ scrolls: 0, wide: [] });
        await screenshot(page, `site-${name.replaceAll(/\W/g, "-")}-${colorScheme}-${width}`);
      }
    }),
  );
});

it("fits the narrowest phones: no page scrolls sideways", { timeout: 600_000 }, () =>
  withPage(async (page) => {
    await page.setViewportSize({ width: 320, height: 844 });
    for (const name of readdirSync(SITE, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".html"))) {
      await page.goto(`${server.url}${BASE}/${name}`);
      await page.locator("body").waitFor({ state: "visible" });
      expect({ name, ...(await sideways(page)) }).toEqual({ name, scrolls: 0, wide: [] });
    }
  }),
);
