// The demo site as it is published: training in it, what becomes of a run, and the masks on the page of feature maps.

import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { unzipSync } from "fflate";
import type { Page } from "playwright-core";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { FIXTURES, useDemo, useLab, type TestPage } from "./harness.js";

const lab = useLab();
useDemo(lab, "demo");
let test: TestPage;
let page: Page;

beforeEach(async () => {
  test = await lab.openPage();
  page = test.page;
});
afterEach(() => test.close());

const visit = (path: string) => page.goto(`${new URL(page.url()).origin}/demo/${path}`);
const text = (selector: string) => page.locator(selector).innerText();
/** What a chart says of itself to those who do not see it. */
const chart = async (title: string) => {
  const label = await page.locator(`.chart[aria-label^="${title}"]`).getAttribute("aria-label");
  const [, value, step, values] = /: (\S+) at step (\d+), in a chart of (\d+) values/.exec(label!) ?? [];
  return { value: Number.parseFloat(value!), step: Number(step), values: Number(values) };
};
const step = async () => Number(/step (\d+) of/.exec(await text("#status-text"))?.[1] ?? -1);

/** Starts the smallest model on pictures that the page draws itself. */
async function start(steps: number, objective = "ijepa"): Promise<void> {
  await visit("training/");
  await page.check('input[value="synthetic"]');
  await page.check(`input[value="${objective}"]`, { force: true });
  await page.selectOption('select[name="backend"]', "cpu");
  await page.fill('input[name="batchSize"]', "8");
  await page.fill('input[name="steps"]', String(steps));
  await page.click("#go");
}

async function download(button: string): Promise<{ name: string; bytes: Uint8Array }> {
  const [file] = await Promise.all([page.waitForEvent("download"), page.click(button)]);
  return { name: file.suggestedFilename(), bytes: readFileSync(await file.path()) };
}

describe("training", () => {
  it("draws its charts as it goes, pauses, and goes on from the autosave after the tab was closed", async () => {
    await start(80);
    const canvas = page.locator('.chart[aria-label^="Loss"] canvas');
    await expect.poll(step, { timeout: 60_000 }).toBeGreaterThanOrEqual(1);
    const before = await canvas.evaluate((element: HTMLCanvasElement) => element.toDataURL());
    await expect.poll(async () => (await chart("Loss")).values, { timeout: 60_000 }).toBeGreaterThanOrEqual(10);
    expect(await canvas.evaluate((element: HTMLCanvasElement) => element.toDataURL())).not.toBe(before);
    for (const title of ["Loss", "Spread", "Effective rank", "Gradient norm"]) expect((await chart(title)).value, title).toBeGreaterThan(0);
    expect(await text("#masks-note")).toMatch(/^Seen: \d+ of 64 patches/);
    expect(await page.locator("#maps li").count()).toBe(6);

    // The first autosave is that of step 25; what was trained after it goes with the page.
    await expect.poll(step, { timeout: 60_000 }).toBeGreaterThan(25);
    await page.reload();
    expect(await text("#saved-text")).toMatch(/I-JEPA on Synthetic shapes, 25 of 80 steps/);
    await page.click("#resume-saved");
    await expect.poll(step, { timeout: 60_000 }).toBeGreaterThan(27);
    await page.click("#go");
    await expect.poll(() => text("#status-text")).toMatch(/^Paused and saved/);
    const paused = await chart("Loss");
    expect(paused.values).toBe(paused.step);
    expect((await chart("k-NN accuracy")).step).toBe(25);

    await page.reload();
    expect(await text("#saved-text")).toContain(`${paused.step} of 80 steps`);
    await page.click("#resume-saved");
    await expect.poll(() => text("#status-text"), { timeout: 120_000 }).toMatch(/^Done: step 80 of 80/);
    expect((await chart("Loss")).values).toBe(80);
  });

  it("gives files that the library loads, and hands the model to the feature maps", async () => {
    await start(3);
    await expect.poll(() => text("#status-text"), { timeout: 60_000 }).toMatch(/^Done/);
    const files: Record<string, string> = {};
    for (const [button, folder] of [["#download-hf", "hf"], ["#download-original", "original"]] as const) {
      const { name, bytes } = await download(button);
      expect(name).toMatch(/^webjepa-ijepa-step-3.*\.zip$/);
      const entries = Object.entries(unzipSync(bytes));
      files[folder] = entries.map(([file]) => file).sort().join();
      for (const [file, contents] of entries) lab.server.files.set(`${folder}/${file}`, contents);
    }
    expect(files.hf).toBe("config.json,model.safetensors,preprocessor_config.json");
    const save = await download("#download-save");
    lab.server.files.set("save.safetensors", save.bytes);

    await page.click("#open-features");
    await page.waitForURL(/model=trained/);
    await expect.poll(() => text("#readout"), { timeout: 120_000 }).toContain("Trained in this browser");
    await page.selectOption('#model-form select[name="backend"]', "cpu");
    await page.click('#model-form button[type="submit"]');
    await expect.poll(() => text("#readout"), { timeout: 120_000 }).toContain("CPU (WebAssembly)");
    await expect.poll(() => text("#error-note"), { timeout: 120_000 }).toMatch(/^mean \d/);
    const shown = Number((await text("#error-note")).split(" ")[1]);
    expect(await text("#stage-title")).toBe("Coffee");

    await page.goto(`${new URL(page.url()).origin}/page.html`);
    await page.waitForFunction(() => "webjepa" in globalThis);
    const found = await page.evaluate(async () => {
      const [hf, original] = [await webjepa.Jepa.load("/hf", { backend: "cpu" }), await webjepa.Jepa.load("/original", { backend: "cpu" })];
      const picture = "/fixtures/ijepa_ti16/image.png";
      const { context, targets } = webjepa.sampleMasks(original.grid, { strategy: "ijepa-multiblock", seed: 0 });
      const { error } = await original.predict(picture, { context: context[0]!, targets: targets.map((block) => block[0]!) });
      const trainer = await webjepa.Trainer.resume(await (await fetch("/save.safetensors")).arrayBuffer(), { backend: "cpu" });
      const [a, b] = [await hf.embed(picture), await original.embed(picture)];
      return { mean: error.reduce((sum, value) => sum + value, 0) / error.length, similarity: webjepa.cosineSimilarity(a, b), shape: a.shape, step: trainer.info.step };
    });
    expect(found.shape).toEqual([96]);
    expect(found.similarity).toBeGreaterThan(0.99999);
    expect(found.step).toBe(3);
    // It is shown with four digits.
    expect(Math.abs(found.mean - shown)).toBeLessThan(6e-5);
  });

  it("has no masks with LeJEPA, and says so", async () => {
    await start(2, "lejepa");
    await expect.poll(() => text("#status-text"), { timeout: 120_000 }).toMatch(/^Done/);
    expect(await text("#masks-note")).toMatch(/^LeJEPA has no masks/);
    expect((await chart("Loss")).values).toBe(2);
  });

  it("takes a folder of pictures, whose sub-folders are classes", async () => {
    const folder = mkdtempSync(join(tmpdir(), "webjepa-own-"));
    for (const [label, source] of [["coffee", "ijepa_ti16/image.png"], ["eye", "vjepa2_pan/frames/frame_0.png"]] as const) {
      mkdirSync(join(folder, label));
      for (let i = 0; i < 10; i++) cpSync(join(FIXTURES, source), join(folder, label, `${i}.png`));
    }
    writeFileSync(join(folder, "notes.txt"), "no picture");
    await visit("training/");
    await page.setInputFiles("#own-files", folder);
    // Of twenty pictures a fifth is held out.
    await expect.poll(() => text("#own-note"), { timeout: 60_000 }).toMatch(/: 16 pictures to train on, 4 held out, 2 classes\.$/);
    await page.selectOption('select[name="backend"]', "cpu");
    await page.fill('input[name="steps"]', "1");
    await page.click("#go");
    await expect.poll(() => text("#status-text"), { timeout: 60_000 }).toMatch(/^Done/);
    // Held out are two copies of each picture, so that the one nearest other is of the same class.
    expect((await chart("k-NN accuracy")).value).toBe(100);
    rmSync(folder, { recursive: true });
  });

  it("says what is missing when there are no pictures", async () => {
    await visit("training/");
    await page.check('input[value="own"]');
    await page.click("#go");
    await expect.poll(() => text("#problem")).toMatch(/Choose your pictures first/);
    expect(await text("#go")).toBe("Start");
  });
});

describe("masks", () => {
  it("follow strategy, parameters and seed, and say that a model without a predictor cannot predict", async () => {
    await visit("");
    await page.check('input[name="source"][value="url"]', { force: true });
    await page.fill("#model-url", new URL("/fixtures/ijepa_ti16/", page.url()).href);
    await page.selectOption('#model-form select[name="backend"]', "cpu");
    await page.click('#model-form button[type="submit"]');
    await expect.poll(() => text("#readout"), { timeout: 120_000 }).toContain("ijepa_ti16");
    await expect.poll(() => text("#no-predictor"), { timeout: 60_000 }).toMatch(/^This model has no predictor/);

    const picture = () => page.locator("#masks-picture").evaluate((element: HTMLCanvasElement) => element.toDataURL());
    const strategy = 'select[name="strategy"]';
    const first = await picture();
    expect(await text("#masks-note")).toMatch(/of 196 patches; 4 targets of \d+ patches\.$/);
    await page.click("#masks-again");
    await expect.poll(picture).not.toBe(first);
    await page.fill("#masks-seed", "0");
    await expect.poll(picture).toBe(first);
    await page.fill('[data-parameter="numPredMasks"]', "2");
    await expect.poll(() => text("#masks-note")).toMatch(/; 2 targets of/);
    // The tube sampler keeps a tenth, rounded down.
    await page.selectOption(strategy, "tube");
    await expect.poll(() => text("#masks-note")).toBe("The context is 19 of 196 patches; 177 patches to predict.");
    await page.selectOption(strategy, "random");
    await page.fill('[data-parameter="ratio"] >> nth=0', "0.5");
    await page.fill('[data-parameter="ratio"] >> nth=1', "0.5");
    await expect.poll(() => text("#masks-note")).toBe("The context is 98 of 196 patches; 98 patches to predict.");
    await page.selectOption(strategy, "vjepa-multiblock3d");
    await expect.poll(() => text("#masks-note")).toMatch(/of 196 patches; \d+ patches to predict\.$/);
    await page.fill('[data-parameter="spatialScale"] >> nth=0', "7");
    await expect.poll(() => page.locator("#masks-form").getAttribute("data-state")).toBe("failed");
  });
});
