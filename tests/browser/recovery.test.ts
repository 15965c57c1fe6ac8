// What computes is lost: the page is told, also while nothing is going on, the next call is answered, and training goes on.

import { afterEach, beforeEach, expect, it } from "vitest";
import { armFaults, keepDevices } from "./faults.js";
import { useLab, type TestPage } from "./harness.js";

const lab = useLab();
let test: TestPage;
beforeEach(async () => {
  test = await lab.openPage();
  await armFaults(lab, test.page);
});
afterEach(() => test.close());

const TINY = "/fixtures/ijepa_tiny_hf";

it.each([
  ["device", "webgpu", "device-lost"],
  ["worker", "cpu", "internal"],
] as const)("an idle model tells of the loss of its %s, and answers", async (fault, backend, code) => {
  const outcome = await test.page.evaluate(
    async ([source, fault, backend]) => {
      const told: string[] = [];
      let lost!: () => void;
      const loss = new Promise<void>((resolve) => (lost = resolve));
      const onLost = (error: { code: string }) => (told.push(error.code), lost());
      const jepa = await webjepa.Jepa.load(source, { backend, onLost, onRecovered: () => told.push("recovered") });
      const picture = new ImageData(new Uint8ClampedArray(16 * 16 * 4).fill(90), 16, 16);
      const before = await jepa.embed(picture);
      faults.cause(faults.workers.at(-1)!, fault);
      await loss;
      const idle = [...told];
      const after = await jepa.embed(picture);
      await jepa.dispose();
      return { idle, told, workers: faults.workers.length, same: after.data.every((value, i) => value === before.data[i]) };
    },
    [TINY, fault, backend] as const,
  );
  expect(outcome).toEqual({ idle: [code], told: [code, "recovered"], workers: 2, same: true });
});

it("an idle model of this thread tells of the loss of its device", async () => {
  await keepDevices(test.page);
  const outcome = await test.page.evaluate(async (source) => {
    const told: string[] = [];
    let lost!: () => void;
    const loss = new Promise<void>((resolve) => (lost = resolve));
    const onLost = (error: { code: string }) => (told.push(error.code), lost());
    const jepa = await webjepa.Jepa.load(source, { backend: "webgpu", worker: false, onLost, onRecovered: () => told.push("recovered") });
    devices[0]!.destroy();
    await loss;
    await jepa.embed(new ImageData(16, 16));
    await jepa.dispose();
    return told;
  }, TINY);
  expect(outcome).toEqual(["device-lost", "recovered"]);
});

it("a call rejects when its worker ends without a word, and the next one is answered", async () => {
  const outcome = await test.page.evaluate(async (source) => {
    const jepa = await webjepa.Jepa.load(source, { backend: "cpu" });
    const picture = new ImageData(new Uint8ClampedArray(64 * 64 * 4).fill(90), 64, 64);
    const before = await jepa.embed(picture);
    const call = jepa.embed(Array.from({ length: 5000 }, () => picture)).then(() => "embedded", (error) => `${error.code}: ${error.message}`);
    setTimeout(() => faults.cause(faults.workers.at(-1)!, "worker"), 100);
    const rejected = await call;
    const after = await jepa.embed(picture);
    await jepa.dispose();
    return { rejected, same: after.data.every((value, i) => value === before.data[i]) };
  }, TINY);
  expect(outcome).toEqual({ rejected: expect.stringMatching(/^internal: .*ended.*loads the model again/), same: true });
  await expect.poll(() => test.page.workers().length).toBe(0);
});

it("a run with autosave goes on when its worker ends without a word, and without it says that it must be resumed", async () => {
  const outcome = await test.page.evaluate(async () => {
    const pictures = Array.from({ length: 11 }, (_, i) => new ImageData(Uint8ClampedArray.from({ length: 32 * 32 * 4 }, (_, at) => (at * (i + 3) * 37) % 256), 32, 32));
    const model = { imageSize: 32, patchSize: 8, hiddenSize: 24, layers: 2, heads: 2, predictor: { hiddenSize: 12, layers: 1, heads: 2 } };
    const options = { model, batchSize: 4, schedule: { steps: 40 }, backend: "cpu" } as const;
    const unbroken = await webjepa.Trainer.create(options);
    const expected: number[] = [];
    for await (const { loss } of unbroken.run(pictures)) expected.push(loss);
    await unbroken.dispose();
    const end = () => faults.cause(faults.workers.at(-1)!, "worker");

    const told: string[] = [];
    const listeners = { onLost: ({ code }: { code: string }) => told.push(code), onRecovered: () => told.push("recovered") };
    const trainer = await webjepa.Trainer.create({ ...options, autosave: { every: 4, store: webjepa.opfsStore("ended") }, ...listeners });
    const steps: number[] = [];
    let wrong = 0;
    for await (const { step, loss } of trainer.run(pictures)) {
      if (step === 6 && !told.length) end();
      steps.push(step);
      if (loss !== expected[step - 1]) wrong++;
    }
    await trainer.dispose();

    const unsaved = await webjepa.Trainer.create(options);
    const message = await (async () => {
      for await (const { step } of unsaved.run(pictures)) if (step === 6) end();
    })().then(() => "trained", (error) => `${error.code}: ${error.message}`);
    await unsaved.dispose();
    return { told, steps, wrong, message };
  });
  const { told, steps, wrong, message } = outcome;
  expect(told).toEqual(["internal", "recovered"]);
  expect(wrong).toBe(0);
  // The worker may take some more steps before it hears of its end, at the fourth of which there is another save.
  const again = steps.findIndex((step, i) => i > 0 && step <= steps[i - 1]!);
  const [last, first] = [steps[again - 1]!, steps[again]!];
  expect(last).toBeGreaterThanOrEqual(6);
  expect([1, first + 3]).toEqual([first % 4, Math.max(first + 3, last)]);
  expect(steps.slice(again)).toEqual(Array.from({ length: 41 - first }, (_, i) => first + i));
  expect(message).toMatch(/^internal: .*ended.*Trainer\.resume/);
});
