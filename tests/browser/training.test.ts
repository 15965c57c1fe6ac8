// Prediction and training with the real modules in a real browser, and what becomes of a run when page, device or disk fail.

import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { TrainerOptions } from "../../www/src/index.js";
import { keepDevices } from "./faults.js";
import { useLab, type TestPage } from "./harness.js";

const lab = useLab();
let test: TestPage;
beforeEach(async () => {
  test = await lab.openPage();
  await makePictures();
});
afterEach(() => test.close());

const MODEL = { imageSize: 32, patchSize: 8, hiddenSize: 24, layers: 2, heads: 2, predictor: { hiddenSize: 12, layers: 2, heads: 2 } };
/** Options that can be posted to a page. */
type Options = Pick<TrainerOptions, "model" | "batchSize" | "seed" | "schedule" | "backend" | "worker">;
const OPTIONS: Options = { model: MODEL, batchSize: 4, seed: 3, schedule: { steps: 20, lr: 3e-3, startLr: 1e-3, warmupSteps: 4 } };

declare global {
  /** Pictures that differ in colour, and in direction and width of their stripes. */
  var pictures: ImageData[];
}

const makePictures = () =>
  test.page.evaluate(() => {
    globalThis.pictures = Array.from({ length: 11 }, (_, i) => {
      const data = Uint8ClampedArray.from({ length: 40 * 36 * 4 }, (_, at) => {
        const [x, y, c] = [Math.floor(at / 4) % 40, Math.floor(at / 160), at % 4];
        return c === 3 ? 255 : 128 + 100 * Math.sin((x * Math.cos(i) + y * Math.sin(i)) / (1.5 + (i % 4)) + c * i);
      });
      return new ImageData(data, 40, 36);
    });
  });

/** Trains for some steps, and asks the trainer for everything that it can give. */
const everything = (options: Options) =>
  test.page.evaluate(async (options) => {
    const trainer = await webjepa.Trainer.create(options);
    const losses: number[] = [];
    for await (const { loss } of trainer.run(pictures, { steps: 6 })) losses.push(loss);
    const masks = await trainer.lastMasks();
    const save = await trainer.save();
    const files = await trainer.export("hf");
    const model = await trainer.model();
    const embedding = await model.embed(pictures[0]!);
    const { predicted, error } = await model.predict(pictures[0]!, { context: masks.context[0]!, targets: masks.targets.map(([block]) => block!) });
    const loaded = await webjepa.Jepa.load(files, { backend: trainer.backend });
    const again = await loaded.embed(pictures[0]!);
    const backends = [trainer.backend, model.backend];
    for (const each of [trainer, model, loaded]) await each.dispose();
    return {
      backends,
      losses,
      masks: { context: masks.context.map((mask) => [...mask]), targets: masks.targets.map((block) => block.map((mask) => [...mask])) },
      save: Array.from(new Uint8Array(await crypto.subtle.digest("SHA-256", save))).join(),
      embedding: [...embedding.data],
      again: [...again.data],
      predicted: [...predicted.data],
      shape: predicted.shape,
      error: [...error],
    };
  }, options);

const largest = (a: number[], b: number[]) => {
  expect(a.length).toBe(b.length);
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);
};

describe("a run", () => {
  it("is the same bit for bit in a worker and in this thread on the CPU", async () => {
    const [worker, thread] = [await everything({ ...OPTIONS, backend: "cpu" }), await everything({ ...OPTIONS, backend: "cpu", worker: false })];
    expect(worker).toEqual(thread);
    expect(worker.backends).toEqual(["cpu", "cpu"]);
    expect(worker.again).toEqual(worker.embedding);
    expect(worker.shape[2]).toBe(24);
    expect(worker.error.every((value) => value > 0)).toBe(true);
    await expect.poll(() => test.page.workers().length).toBe(0);
  });

  it("has the same numbers on WebGPU as on the CPU", async () => {
    const cpu = await everything({ ...OPTIONS, backend: "cpu" });
    for (const worker of [true, false]) {
      const gpu = await everything({ ...OPTIONS, backend: "webgpu", worker });
      expect(gpu.backends).toEqual(["webgpu", "webgpu"]);
      expect(gpu.masks).toEqual(cpu.masks);
      // Six steps of AdamW amplify what the order of sums leaves: its update has the size of the rate for any gradient.
      expect(largest(gpu.losses, cpu.losses)).toBeLessThan(1e-3);
      expect(largest(gpu.embedding, cpu.embedding)).toBeLessThan(2e-2);
      expect(largest(gpu.predicted, cpu.predicted)).toBeLessThan(2e-2);
      expect(largest(gpu.again, gpu.embedding)).toBeLessThan(1e-4);
    }
  });

  it("steps on masks and input of the caller's as on its own", async () => {
    const { losses, expected } = await test.page.evaluate(async (options) => {
      // A picture of the model's size that is not cropped is its own model input.
      const whole = { ...options, augmentation: { size: [32, 32] as [number, number], scale: [1, 1] as [number, number], aspect: [1, 1] as [number, number] } };
      const bytes = Array.from({ length: 4 }, (_, i) => ({ data: Uint8Array.from({ length: 32 * 32 * 3 }, (_, at) => (at * (7 + i)) % 251), width: 32, height: 32, channels: 3 as const }));
      const [mean, std] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];
      const input = bytes.map(({ data, ...size }) => ({ ...size, data: Float32Array.from(data, (byte, at) => (byte / 255 - mean[at % 3]!) / std[at % 3]!) }));
      const drawing = await webjepa.Trainer.create({ ...whole, backend: "cpu" });
      const expected = [(await drawing.step(bytes)).loss];
      const masks = await drawing.lastMasks();
      expected.push((await drawing.step(bytes, { masks })).loss);
      const losses: number[][] = [];
      for (const backend of ["cpu", "webgpu"] as const) {
        const told = await webjepa.Trainer.create({ ...whole, backend, masks: { strategy: "random" } });
        losses.push([(await told.step(input, { masks, preprocess: false })).loss, (await told.step(bytes, { masks })).loss]);
        await told.dispose();
      }
      await drawing.dispose();
      return { losses, expected };
    }, OPTIONS);
    for (const found of losses) expect(largest(found, expected)).toBeLessThan(1e-5);
  });

  it("trains low-rank adapters of a checkpoint alike on both backends, and exports them merged", async () => {
    const { losses, full, embeddings, before, trainable } = await test.page.evaluate(async (options) => {
      const first = await webjepa.Trainer.create({ ...options, backend: "cpu" });
      const files = await first.export("original");
      await first.dispose();
      const whole = await webjepa.Trainer.create({ ...options, model: undefined, from: files, backend: "cpu" });
      let full = 0;
      for await (const { loss } of whole.run(pictures, { steps: 1 })) full = loss;
      await whole.dispose();
      const start = await webjepa.Jepa.load(files, { backend: "cpu", encoder: "context" });
      const before = [...(await start.embed(pictures[0]!)).data];
      const [losses, embeddings]: [number[][], number[][]] = [[], []];
      let trainable = [0, 0];
      for (const backend of ["cpu", "webgpu"] as const) {
        const trainer = await webjepa.Trainer.create({ ...options, model: undefined, from: files, backend, train: { lora: { rank: 3, alpha: 6 } } });
        trainable = [trainer.info.trainable, trainer.info.parameters];
        const steps: number[] = [];
        for await (const { loss } of trainer.run(pictures, { steps: 6 })) steps.push(loss);
        losses.push(steps);
        const trained = await webjepa.Jepa.load(await trainer.export("original"), { backend, encoder: "context" });
        embeddings.push([...(await trained.embed(pictures[0]!)).data]);
        for (const each of [trainer, trained]) await each.dispose();
      }
      await start.dispose();
      return { losses, full, embeddings, before, trainable };
    }, OPTIONS);
    expect(trainable[0]).toBeLessThan(0.7 * trainable[1]!);
    expect(losses[0]![0]).toBe(full);
    // As for whole runs, above.
    expect(largest(losses[1]!, losses[0]!)).toBeLessThan(1e-3);
    expect(largest(embeddings[1]!, embeddings[0]!)).toBeLessThan(2e-2);
    expect(largest(embeddings[0]!, before)).toBeGreaterThan(1e-2);
  });

  it("takes pictures of every kind, aborts between steps, and goes on", async () => {
    const { codes, losses, expected } = await test.page.evaluate(async (options) => {
      const mixed = await Promise.all(
        pictures.map(async (picture, i) => {
          if (i % 3 === 0) return picture;
          const bitmap = await createImageBitmap(picture);
          if (i % 3 === 1) return bitmap;
          const canvas = new OffscreenCanvas(40, 36);
          canvas.getContext("2d")!.drawImage(bitmap, 0, 0);
          return canvas.convertToBlob({ type: "image/png" });
        }),
      );
      const losses = async (dataset: typeof mixed, abortAt?: number) => {
        const trainer = await webjepa.Trainer.create({ ...options, backend: "cpu" });
        const losses: number[] = [];
        const codes: string[] = [];
        while (losses.length < 6) {
          const controller = new AbortController();
          try {
            for await (const { loss, step } of trainer.run(dataset, { steps: 6 - losses.length, signal: controller.signal })) {
              losses.push(loss);
              if (step === abortAt) controller.abort();
            }
          } catch (error) {
            codes.push((error as { code: string }).code);
          }
        }
        await trainer.dispose();
        return { losses, codes };
      };
      const { losses: found, codes } = await losses(mixed, 3);
      return { codes, losses: found, expected: (await losses(pictures)).losses };
    }, OPTIONS);
    expect(codes).toEqual(["aborted"]);
    expect(losses).toEqual(expected);
  });
});

describe("a save", () => {
  it("outlives the page, from which the run goes on bit for bit", async () => {
    const train = (from: "the beginning" | "the store") =>
      test.page.evaluate(
        async ({ options, from }) => {
          const store = webjepa.opfsStore("run");
          const autosave = { every: 5, store };
          const trainer = from === "the store" ? await webjepa.Trainer.resumeFrom(store, { backend: "cpu", autosave }) : await webjepa.Trainer.create({ ...options, backend: "cpu", autosave });
          const { step: first } = trainer.info;
          const losses: number[] = [];
          for await (const { loss, step } of trainer.run(pictures)) {
            losses.push(loss);
            if (step === 12 && from === "the beginning") break;
          }
          return { first, losses };
        },
        { options: OPTIONS, from },
      );
    const before = await train("the beginning");
    await test.page.reload();
    await test.page.waitForFunction(() => "webjepa" in globalThis);
    await makePictures();
    const after = await train("the store");
    expect([before.first, before.losses.length, after.first, after.losses.length]).toEqual([0, 12, 10, 10]);
    expect(after.losses.slice(0, 2)).toEqual(before.losses.slice(10));
    const { step, left } = await test.page.evaluate(async () => {
      const trainer = await webjepa.Trainer.resumeFrom(webjepa.opfsStore("run"), { backend: "cpu" });
      const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("webjepa-saves");
      const names: string[] = [];
      for await (const name of (await root.getDirectoryHandle("run")).keys()) names.push(name);
      return { step: trainer.info.step, left: names.sort() };
    });
    expect(step).toBe(20);
    expect(left).toEqual(["a.json", "a.safetensors", "b.json", "b.safetensors"]);
  });

  it("that does not fit leaves the one before as it was", async () => {
    const session = await test.page.context().newCDPSession(test.page);
    const origin = new URL(test.page.url()).origin;
    const steps = (quota: boolean) =>
      test.page.evaluate(
        async ({ options, quota }) => {
          const store = webjepa.opfsStore("full");
          const trainer = quota ? await webjepa.Trainer.resumeFrom(store, { backend: "cpu", autosave: { every: 1, store } }) : await webjepa.Trainer.create({ ...options, backend: "cpu", autosave: { every: 1, store } });
          const outcome = await trainer.step(pictures.slice(0, 4)).then(({ step }) => `step ${step}`, (error) => `${error.code}: ${error.message}`);
          const { step } = trainer.info;
          await trainer.dispose();
          const again = await webjepa.Trainer.resumeFrom(store, { backend: "cpu" });
          const { step: saved } = again.info;
          await again.dispose();
          return { outcome, step, saved };
        },
        { options: OPTIONS, quota },
      );
    expect(await steps(false)).toEqual({ outcome: "step 1", step: 1, saved: 1 });
    const usage = await test.page.evaluate(async () => (await navigator.storage.estimate()).usage!);
    await session.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: usage + 1000 });
    const full = await steps(true);
    expect(full).toEqual({ outcome: expect.stringMatching(/^out-of-memory: .*The save before it is intact/), step: 2, saved: 1 });
    await session.send("Storage.overrideQuotaForOrigin", { origin });
    expect(await steps(true)).toEqual({ outcome: "step 2", step: 2, saved: 2 });
  });
});

describe("after the loss of the device", () => {
  it("a trainer without autosave says that it must be resumed, and can be", async () => {
    await keepDevices(test.page);
    const outcome = await test.page.evaluate(async (options) => {
      const trainer = await webjepa.Trainer.create({ ...options, backend: "webgpu", worker: false });
      const model = await trainer.model();
      await trainer.step(pictures.slice(0, 4));
      const save = await trainer.save();
      const run = (async () => {
        for await (const _ of trainer.run(pictures, { steps: 1000 }));
      })();
      setTimeout(() => devices.at(-1)!.destroy(), 50);
      const reported = (error: { code: string; message: string }) => [error.code, /Trainer\.resume|ask it for the model/.test(error.message)];
      const lost = [await run.catch(reported), await trainer.save().catch(reported), await model.embed(pictures[0]!).catch(reported)];
      await trainer.dispose();
      await model.dispose();
      const again = await webjepa.Trainer.resume(save, { backend: "webgpu", worker: false });
      const { step } = again.info;
      const { step: next } = await again.step(pictures.slice(0, 4));
      await again.dispose();
      return { lost, step, next };
    }, OPTIONS);
    expect(outcome).toEqual({ lost: [["device-lost", true], ["device-lost", true], ["device-lost", true]], step: 1, next: 2 });
  });
});
