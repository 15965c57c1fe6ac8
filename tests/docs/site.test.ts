// The documentation site as it is deployed: every link leads somewhere, and it works under a sub-path.

import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium, type Browser } from "playwright-core";
import { afterAll, beforeAll, expect, it } from "vitest";
import { CHROMIUM, CHROMIUM_FLAGS } from "../../scripts/hosts.mjs";
import { brokenLinks } from "../../scripts/links.mjs";
import { watchErrors } from "../browser/harness.js";
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

it("works under a sub-path: pages, pictures and navigation", async () => {
  const page = await browser.newPage();
  const faults: string[] = [];
  watchErrors(page, (text) => faults.push(text));
  page.on("response", (response) => response.status() >= 400 && faults.push(`${response.status()}: ${response.url()}`));
  page.on("request", (request) => request.url().startsWith(`${server.url}${BASE}/`) || request.url().startsWith("data:") || faults.push(request.url()));
  await page.route("**/favicon.ico", (route) => route.fulfill({ body: "" }));
  await page.goto(`${server.url}${BASE}/`, { waitUntil: "networkidle" });
  await page.getByRole("link", { name: "Masks, explained" }).first().click();
  await page.waitForURL(/Masks/);
  expect(await page.locator("h1").allInnerTexts()).toEqual(["Masks, explained"]);
  expect(await page.locator("img").evaluateAll((images) => images.every((image) => (image as HTMLImageElement).naturalWidth > 0))).toBe(true);
  await page.goto(`${server.url}${BASE}/functions/webjepa_viz.heatMap.html`, { waitUntil: "networkidle" });
  expect(await page.locator("h1").innerText()).toContain("heatMap");
  await page.close();
  expect(faults.filter((fault) => !fault.endsWith("/favicon.ico"))).toEqual([]);
});
