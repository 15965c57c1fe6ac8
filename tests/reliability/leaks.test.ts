// Nothing is left behind: after many calls, steps and models as much is alive as after a few.

import { afterEach, beforeEach, expect, it } from "vitest";
import type { Jepa, Trainer } from "../../www/src/index.js";
import { useLab, type TestPage } from "../browser/harness.js";
import { count, measure, type Counts } from "./page.js";
import { reportOf } from "./report.js";

const lab = useLab();
let test: TestPage;
beforeEach(async () => {
  test = await lab.openPage();
  await count(test.page);
});
afterEach(() => test.close());

const TINY = "/fixtures/ijepa_tiny_hf";
/** Of the bytes of GPU buffers: masks of a length that has not come up before need some of their size. */
const SHARE = 0.02;
/** How much the JavaScript heap may grow by code that the engine compiles meanwhile. */
const HEAP = 2e6;

const EMBEDS = "1,000 embeds, after 50";
const STEPS = "200 steps of training, after 300";
const MODELS = "50 models loaded and disposed of, after 5";
const named = (what: string, backend: "cpu" | "webgpu") => `${what}, ${backend === "cpu" ? "CPU" : "WebGPU"}`;
const report = reportOf("leaks", ["what", "WebAssembly", "GPU buffers", "their bytes", "JavaScript heap"], [EMBEDS, STEPS, MODELS].flatMap((what) => [named(what, "cpu"), named(what, "webgpu")]));

function compare(what: string, backend: "cpu" | "webgpu", before: Counts, after: Counts): void {
  const megabytes = (of: (counts: Counts) => number) => `${[before, after].map((counts) => (of(counts) / 1e6).toFixed(2)).join(" → ")} MB`;
  const buffers = backend === "cpu" ? ["–", "–"] : [`${before.buffers} → ${after.buffers}`, megabytes(({ bytes }) => bytes)];
  report(named(what, backend), megabytes(({ memory }) => memory), ...buffers, megabytes(({ heap }) => heap));
  expect(after.memory).toBeLessThanOrEqual(before.memory);
  expect(after.buffers).toBeLessThanOrEqual(before.buffers);
  expect(after.bytes).toBeLessThanOrEqual((1 + SHARE) * before.bytes);
  expect(after.heap - before.heap).toBeLessThan(HEAP);
}

it.each(["cpu", "webgpu"] as const)("after 1,000 embeds, %s", async (backend) => {
  const embed = (times: number) =>
    test.page.evaluate(async (times) => {
      const { jepa } = globalThis as never as { jepa: Jepa };
      for (let i = 0; i < times; i++) await jepa.embed(new ImageData(new Uint8ClampedArray(20 * 20 * 4).fill(i % 256), 20, 20));
    }, times);
  await test.page.evaluate(async ([source, backend]) => void Object.assign(globalThis, { jepa: await webjepa.Jepa.load(source, { backend, worker: false }) }), [TINY, backend] as const);
  await embed(50);
  const before = await measure(test.page);
  await embed(1000);
  compare(EMBEDS, backend, before, await measure(test.page));
});

async function train200(backend: "cpu" | "webgpu"): Promise<void> {
  const train = (steps: number) =>
    test.page.evaluate(async (steps) => {
      const { trainer, pictures } = globalThis as never as { trainer: Trainer; pictures: ImageData[] };
      for await (const { step } of trainer.run(pictures, { steps })) if (step < 0) break;
    }, steps);
  await test.page.evaluate(async (backend) => {
    const pictures = Array.from({ length: 12 }, (_, i) => new ImageData(Uint8ClampedArray.from({ length: 32 * 32 * 4 }, (_, at) => (at * (i + 3) * 37) % 256), 32, 32));
    const model = { imageSize: 32, patchSize: 8, hiddenSize: 24, layers: 2, heads: 2, predictor: { hiddenSize: 12, layers: 1, heads: 2 } };
    Object.assign(globalThis, { pictures, trainer: await webjepa.Trainer.create({ model, batchSize: 4, schedule: { steps: 1000 }, backend, worker: false }) });
  }, backend);
  // Masks are of ever other lengths, and what is kept for each is made only when it comes up.
  await train(300);
  const before = await measure(test.page);
  await train(200);
  compare(STEPS, backend, before, await measure(test.page));
}

it("after 200 steps of training, cpu", () => train200("cpu"));
it("after 200 steps of training, webgpu", () => train200("webgpu"));

it.each(["cpu", "webgpu"] as const)("after 50 models, %s", async (backend) => {
  const cycle = (times: number) =>
    test.page.evaluate(
      async ([source, backend, times]) => {
        for (let i = 0; i < times; i++) {
          const jepa = await webjepa.Jepa.load(source, { backend, worker: false });
          await jepa.embed(new ImageData(8, 8));
          await jepa.dispose();
        }
      },
      [TINY, backend, times] as const,
    );
  await cycle(5);
  const before = await measure(test.page);
  await cycle(50);
  const after = await measure(test.page);
  compare(MODELS, backend, before, after);
  expect(after.buffers).toBe(0);
});

it("after 50 models in workers", async () => {
  await test.page.evaluate(async (source) => {
    for (let i = 0; i < 50; i++) {
      const jepa = await webjepa.Jepa.load(source, { backend: "cpu" });
      await jepa.embed(new ImageData(8, 8));
      await jepa.dispose();
    }
  }, TINY);
  await expect.poll(() => test.page.workers().length).toBe(0);
});
