// The examples of www/examples, as a user runs them: with the packed package, built, under a sub-path.

import { copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium, type Browser, type Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { CHROMIUM, CHROMIUM_FLAGS } from "../../scripts/hosts.mjs";
import { watchErrors } from "../browser/harness.js";
import { startServer, type TestServer } from "../unit/server.js";
import { BASE, FIXTURES, POLICY, run, useProject } from "./harness.js";

const project = useProject("examples", fileURLToPath(new URL("../../www/examples", import.meta.url)));
const MODEL = join(FIXTURES, "ijepa_ti16");
/** A photo, the same made smaller, and three of another. */
const PHOTOS = { "coffee.png": join(MODEL, "image.png"), "coffee-small.png": join(MODEL, "resized.png"), ...Object.fromEntries([0, 1, 7].map((i) => [`cat-${i}.png`, join(FIXTURES, "vjepa2_pan", "frames", `frame_${i}.png`)])) };

beforeAll(() => {
  mkdirSync(join(project.folder, "photos"));
  mkdirSync(join(project.folder, "damaged"));
  for (const [name, photo] of Object.entries(PHOTOS)) for (const folder of ["photos", "damaged"]) copyFileSync(photo, join(project.folder, folder, name));
  writeFileSync(join(project.folder, "damaged", "broken.png"), "no picture");
});

describe("in Chromium", () => {
  let browser: Browser;
  let server: TestServer;
  let page: Page;
  let errors: string[];
  beforeAll(async () => {
    const { stderr } = await run(project.folder, "npm", "run", "build");
    expect(stderr).toBe("");
    server = await startServer();
    server.folders.set(BASE, join(project.folder, "dist"));
    server.folders.set(`${BASE}/model`, MODEL);
    // Their style sheets are in the pages.
    server.headers = { "content-security-policy": `${POLICY["content-security-policy"]}; style-src 'self' 'unsafe-inline'; img-src 'self' blob:` };
    const flags = CHROMIUM_FLAGS.filter((flag) => !flag.includes("webgpu"));
    browser = await chromium.launch({ executablePath: CHROMIUM, args: [...flags, "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"] });
  });
  afterAll(async () => {
    await browser?.close();
    await server?.close();
  });
  beforeEach(async () => {
    page = await browser.newPage();
    errors = [];
    watchErrors(page, (text) => errors.push(text));
    await page.route("**/favicon.ico", (route) => route.fulfill({ body: "" }));
  });
  afterEach(async () => {
    await page.close();
    expect(errors).toEqual([]);
  });
  const visit = (name: string) => page.goto(`${server.url}${BASE}/${name}/`);
  const status = () => page.locator("#status").innerText();
  const names = (selector: string) => page.locator(selector).evaluateAll((images) => images.map((image) => (image as HTMLImageElement).alt));

  it("photo-search finds the photo that is the same, and says which cannot be read", async () => {
    await visit("photo-search");
    await page.locator("#folder:enabled").setInputFiles(join(project.folder, "damaged"));
    await expect.poll(status, { timeout: 60_000 }).toBe("5 photos, 1 that cannot be read. Choose one.");
    await page.click('[alt="coffee.png"]');
    // Prepared for the model the two are the same picture.
    expect((await names("#photos img")).slice(0, 2).sort()).toEqual(["coffee-small.png", "coffee.png"]);
    expect(await page.locator('[aria-pressed="true"]').count()).toBe(1);
  });

  it("duplicates puts the same photos into one group, and with a lower threshold more", async () => {
    await visit("duplicates");
    await page.locator("#folder:enabled").setInputFiles(join(project.folder, "photos"));
    await expect.poll(status, { timeout: 60_000 }).toMatch(/^[12] groups among 5 pictures$/);
    const groups = () => page.locator("section").evaluateAll((sections) => sections.map((section) => [...section.querySelectorAll("img")].map((image) => image.alt).sort()));
    await page.fill("#threshold", "0.995");
    expect(await groups()).toEqual([["coffee-small.png", "coffee.png"]]);
    await page.fill("#threshold", "0.5");
    expect((await groups()).flat().filter((name) => name.startsWith("cat")).length).toBeGreaterThanOrEqual(2);
  });

  it("webcam-anomaly learns from the camera, watches, and gives it back", async () => {
    await visit("webcam-anomaly");
    await page.click("#watch:enabled");
    await expect.poll(status, { timeout: 60_000 }).toMatch(/^Learning what is usual: \d+ of 20$/);
    await expect.poll(status, { timeout: 60_000 }).toMatch(/^(As usual|Something is different)\.$/);
    expect(await page.locator("#meter").evaluate((meter: HTMLMeterElement) => meter.value)).toBeGreaterThan(0);
    await page.click("#stop");
    await expect.poll(status).toBe("Stopped.");
    expect(await page.locator("#video").evaluate((video: HTMLVideoElement) => (video.srcObject as MediaStream).getTracks().map(({ readyState }) => readyState))).toEqual(["ended"]);
  });

  it("react-hook loads, compares, and gives the model back when the component goes", async () => {
    await visit("react-hook");
    await page.locator("input").setInputFiles([PHOTOS["coffee.png"], PHOTOS["coffee.png"]], { timeout: 60_000 });
    await expect.poll(() => page.locator("output").innerText(), { timeout: 30_000 }).toContain("1.0000");
    // The model of strict mode's first mount is gone.
    await expect.poll(() => page.workers().length).toBe(1);
    await page.click("button");
    await expect.poll(() => page.workers().length).toBe(0);
    expect(await page.locator("input").count()).toBe(0);
  });
});

it("node-index builds an index and searches it", async () => {
  const script = (name: string, ...args: string[]) => run(project.folder, process.execPath, join("node-index", name), ...args);
  const built = await script("build.mjs", MODEL, "damaged", "index.json");
  expect(built.stdout).toBe("5 pictures in index.json\n");
  expect(built.stderr).toMatch(/^broken\.png is left out: .+\n$/);
  const { stdout, stderr } = await script("search.mjs", MODEL, "index.json", PHOTOS["coffee.png"]);
  expect(stderr).toBe("");
  const found = stdout.trim().split("\n").map((line) => line.split(" "));
  expect(found.map(([, name]) => name).slice(0, 2).sort()).toEqual(["coffee-small.png", "coffee.png"]);
  // Four digits of each value.
  expect(Number(found[0]![0])).toBeGreaterThan(0.999);
  await expect(script("search.mjs")).rejects.toThrow("node search.mjs MODEL INDEX.json PICTURE");
});

it("webcam-anomaly calls unusual what is twice as far as what was learnt", async () => {
  const { Usual } = await import("../../www/examples/webcam-anomaly/usual.js");
  const usual = new Usual();
  for (const x of [0, 1, 3]) usual.learn(Float32Array.of(x, 0));
  // The farthest of the learnt from those before it is 3, at a distance of 2.
  expect(usual.strangeness(Float32Array.of(3, 4))).toBe(1);
  expect(usual.strangeness(Float32Array.of(0, 0))).toBe(0);
});

it("duplicates groups what hangs together", async () => {
  const { groupsOf, withoutMean } = await import("../../www/examples/duplicates/groups.js");
  expect(groupsOf([1, 9, 2, 30, 3, 10], (a: number, b: number) => Math.abs(a - b) <= 1)).toEqual([[1, 2, 3], [9, 10]]);
  const vectors = [Float32Array.of(1, 2), Float32Array.of(3, 6)];
  withoutMean(vectors);
  expect(vectors.map((vector) => [...vector])).toEqual([[-1, -2], [1, 2]]);
});
