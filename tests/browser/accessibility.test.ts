// Every page of the demo, deployed under a sub-path: axe finds nothing wrong in light or dark, and phones need not scroll sideways.

import type { Page } from "playwright-core";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { pages } from "../../www/demo/shared/pages.js";
import { sideways, violations } from "./axe.js";
import { screenshot, useDemo, useLab, type TestPage } from "./harness.js";

const BASE = "some/sub/path";

const lab = useLab();
useDemo(lab, BASE);
let test: TestPage;
let page: Page;
let strays: string[];

beforeEach(async () => {
  test = await lab.openPage();
  page = test.page;
  strays = [];
});
afterEach(() => test.close());

/** Opens a page of the demo and waits until its model is there, or for the page Train, which has none, until it can start. */
async function visit(href: string): Promise<void> {
  const site = `${new URL(page.url()).origin}/${BASE}/`;
  page.on("request", (request) => /^(blob|data):/.test(request.url()) || request.url().startsWith(site) || strays.push(request.url()));
  await page.goto(new URL(href, site).href, { waitUntil: "networkidle" });
  await expect.poll(() => page.locator("#status-text").innerText(), { timeout: 60_000 }).not.toBe("");
  const busy = page.locator('.lamp[data-state="busy"]');
  await expect.poll(() => busy.count(), { timeout: 120_000 }).toBe(0);
}

describe.each(pages)("the page $title", ({ href }) => {
  it.each(["light", "dark"] as const)("has nothing that axe complains of, in %s", async (colorScheme) => {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    await visit(href);
    expect(await violations(page)).toEqual([]);
    // Nothing was asked for beside the folder it is deployed in.
    expect(strays).toEqual([]);
  });

  it.each([390, 320])("fits a phone %i pixels wide", async (width) => {
    await page.setViewportSize({ width, height: 844 });
    await visit(href);
    expect(await sideways(page)).toEqual({ scrolls: 0, wide: [] });
    expect(await violations(page)).toEqual([]);
    await screenshot(page, `${width}-${href.replaceAll(/\W/g, "") || "features"}`);
  });
});
