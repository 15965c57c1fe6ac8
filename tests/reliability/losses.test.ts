// What computes is lost again and again, at any moment: what was asked then fails with the code of the loss or is right, and the next call is right.

import { afterEach, beforeEach, expect, it } from "vitest";
import { armFaults } from "../browser/faults.js";
import { useLab, type TestPage } from "../browser/harness.js";
import { count } from "./page.js";

const lab = useLab();
let test: TestPage;
beforeEach(async () => {
  test = await lab.openPage();
  await count(test.page);
});
afterEach(() => test.close());

const LOSSES = 100;

it("embeds after each of 100 losses as before", async () => {
  const outcome = await test.page.evaluate(
    async ([source, losses]) => {
      let state = 12345;
      const random = () => (state = (state * 48271) % 2147483647) / 2147483647;
      const pictures = Array.from({ length: 24 }, (_, i) => new ImageData(new Uint8ClampedArray(24 * 24 * 4).fill(10 * i), 24, 24));
      const jepa = await webjepa.Jepa.load(source, { backend: "webgpu", worker: false });
      const expected = (await jepa.embed(pictures)).data;
      const wrong = (data: Float32Array) => data.some((value, i) => value !== expected[i]);
      const counts = { failed: 0, answered: 0, wrong: 0, codes: [] as string[] };
      for (let loss = 0; loss < losses; loss++) {
        const call = jepa.embed(pictures).then(
          ({ data }) => {
            counts.answered++;
            if (wrong(data)) counts.wrong++;
          },
          (error: { code: string }) => {
            counts.failed++;
            if (!counts.codes.includes(error.code)) counts.codes.push(error.code);
          },
        );
        await new Promise((resolve) => setTimeout(resolve, 40 * random()));
        const device = counted.devices.at(-1)!;
        device.destroy();
        await call;
        // A call that begins before anybody has heard of the loss fails with it.
        await device.lost;
        if (wrong((await jepa.embed(pictures)).data)) counts.wrong++;
      }
      return { ...counts, devices: counted.devices.length };
    },
    ["/fixtures/ijepa_tiny_hf", LOSSES] as const,
  );
  console.log(`losses while embedding: ${JSON.stringify(outcome)}`);
  expect(outcome).toMatchObject({ wrong: 0, devices: LOSSES + 1 });
  expect(outcome.failed + outcome.answered).toBe(LOSSES);
  expect(outcome.codes.filter((code) => code !== "device-lost")).toEqual([]);
});

it("trains to the end through 30 losses, and goes on by itself from the last save", async () => {
  const outcome = await test.page.evaluate(async (losses) => {
    let state = 54321;
    const random = () => (state = (state * 48271) % 2147483647) / 2147483647;
    const pictures = Array.from({ length: 12 }, (_, i) => new ImageData(Uint8ClampedArray.from({ length: 32 * 32 * 4 }, (_, at) => (at * (i + 3) * 37) % 256), 32, 32));
    const steps = 3 * losses;
    const options = {
      model: { imageSize: 32, patchSize: 8, hiddenSize: 24, layers: 2, heads: 2, predictor: { hiddenSize: 12, layers: 1, heads: 2 } },
      batchSize: 4,
      schedule: { steps, lr: 1e-3, startLr: 1e-3, warmupSteps: 0 },
      backend: "webgpu",
      worker: false,
    } as const;
    const unbroken = await webjepa.Trainer.create(options);
    const expected: number[] = [];
    for await (const { loss } of unbroken.run(pictures)) expected.push(loss);
    await unbroken.dispose();

    const codes: string[] = [];
    const trainer = await webjepa.Trainer.create({ ...options, autosave: { every: 1, store: webjepa.memoryStore() }, onLost: ({ code }) => codes.push(code) });
    const found: number[] = [];
    for await (const { step, loss } of trainer.run(pictures)) {
      found[step - 1] = loss;
      if (step % 3 === 1) setTimeout(() => counted.devices.at(-1)!.destroy(), 60 * random());
    }
    return { lost: codes.length, codes: [...new Set(codes)], steps: trainer.info.step, apart: Math.max(...expected.map((loss, i) => Math.abs(loss - found[i]!))) };
  }, 30);
  console.log(`losses while training: ${JSON.stringify(outcome)}`);
  expect(outcome).toMatchObject({ codes: ["device-lost"], steps: 90 });
  expect(outcome.lost).toBeGreaterThanOrEqual(25);
  expect(outcome.apart).toBeLessThan(1e-4);
});

/** How many were asked for, and what became of them. */
interface Row {
  losses: number;
  /** Rejected with the code of the loss, or, of training, went on from the save. */
  met: number;
}

it("answers, trains and saves through 100 losses of devices, workers and memory", async () => {
  await armFaults(lab, test.page);
  // A module that cannot even start for want of memory traps; the load rejects, and the browser reports the trap besides.
  test.expectErrors(/^uncaught: RuntimeError: unreachable\b/);
  const outcome = await test.page.evaluate(
    async ([source, losses, deadline]) => {
      let state = 20261201;
      const random = () => (state = (state * 48271) % 2147483647) / 2147483647;
      const CODES = { device: "device-lost", worker: "internal", memory: "out-of-memory" } as const;
      const FAULTS = ["device", "worker", "memory"] as const;
      const OPERATIONS = ["load", "embed", "train", "save"] as const;
      /** Milliseconds from the beginning of an operation to the fault, at most: about what the operation takes. Of loads that is measured. */
      const WITHIN = { embed: 40, train: 80, save: 15 };
      const rows: Record<string, Row> = {};
      const found = { hung: 0, wrong: 0, lost: 0, unanswered: 0, codes: [] as string[], told: [0, 0], apart: 0 };

      const pictures = Array.from({ length: 12 }, (_, i) => new ImageData(Uint8ClampedArray.from({ length: 32 * 32 * 4 }, (_, at) => (at * (i + 3) * 37) % 256), 32, 32));
      /** Larger than anything that a module has freed so far. */
      const large = new ImageData(2500, 2500);
      const same = (a: ArrayLike<number>, b: ArrayLike<number>) => a.length === b.length && Array.prototype.every.call(a, (value, i) => value === b[i]);
      const bytes = async (save: Uint8Array | ArrayBuffer | Blob | undefined) => new Uint8Array(await new Blob(save ? [save as BlobPart] : []).arrayBuffer());
      async function inTime<T>(call: Promise<T>): Promise<T> {
        let timer: ReturnType<typeof setTimeout>;
        const late = new Promise<never>((_, reject) => (timer = setTimeout(() => reject(new Error("hung")), deadline)));
        return Promise.race([call, late]).finally(() => clearTimeout(timer));
      }
      /** What the call gives; undefined where it rejects with the code of the loss. */
      const attempt = <T>(call: Promise<T>) =>
        inTime(call).catch((error: { code?: string; message: string }) => {
          if (error.message === "hung") found.hung++;
          else found.codes.push(error.code ?? error.message);
          return undefined;
        });
      /** What it gives the first time that it is not lost. With memory that cannot grow, a loss can come in the call after the fault only. */
      async function answer<T>(call: () => Promise<T>): Promise<T | undefined> {
        for (let attempts = 0; attempts < 2; attempts++) {
          const answered = await attempt(call());
          if (answered !== undefined) return answered;
        }
        found.unanswered++;
        return undefined;
      }

      const listeners = { onLost: () => void found.told[0]!++, onRecovered: () => void found.told[1]!++ };
      /** A quarter of the losses come while training, in two steps each. */
      const steps = losses / 2 + 2;
      const training = {
        model: { imageSize: 32, patchSize: 8, hiddenSize: 24, layers: 2, heads: 2, predictor: { hiddenSize: 12, layers: 1, heads: 2 } },
        batchSize: 4,
        schedule: { steps, lr: 1e-3, startLr: 1e-3, warmupSteps: 0 },
      } as const;
      async function made(backend: "cpu" | "webgpu") {
        const load = () => webjepa.Jepa.load(source, { backend, cache: "opfs", ...listeners });
        const jepa = await load();
        const model = { jepa, worker: faults.workers.at(-1)! };
        const embedding = (await jepa.embed(pictures)).data;
        const start = performance.now();
        const another = await load();
        const loading = performance.now() - start;
        await another.dispose();
        const unbroken = await webjepa.Trainer.create({ ...training, backend });
        const expected: number[] = [];
        for await (const { loss } of unbroken.run(pictures)) expected.push(loss);
        await unbroken.dispose();
        const store = webjepa.opfsStore(`losses-${backend}`);
        const trainer = await webjepa.Trainer.create({ ...training, backend, autosave: { every: 1, store }, ...listeners });
        const run = { trainer, worker: faults.workers.at(-1)! };
        // Before a first save there is nothing to be lost.
        for await (const { loss } of trainer.run(pictures, { steps: 1 })) if (loss !== expected[0]) found.wrong++;
        return { backend, load, loading, model, embedding, expected, store, run, taken: 1 };
      }
      const [cpu, webgpu] = [await made("cpu"), await made("webgpu")];

      for (let loss = 0; loss < losses; loss++) {
        const fault = FAULTS[loss % 3]!;
        const operation = OPERATIONS[Math.floor(loss / 3) % 4]!;
        const on = fault === "device" || random() < 0.5 ? webgpu : cpu;
        const row = (rows[`${operation}, ${fault}`] ??= { losses: 0, met: 0 });
        row.losses++;
        const before = found.codes.length;
        const told = found.told[0]!;
        const later = (worker: () => string) => setTimeout(() => faults.cause(worker(), fault), operation === "load" ? on.loading * (0.1 + 0.8 * random()) : WITHIN[operation] * random());
        let timer: ReturnType<typeof setTimeout>;
        const subject = operation === "train" || operation === "save" ? on.run : on.model;
        const started = faults.workers.length;
        if (operation === "load") {
          timer = later(() => faults.workers.at(-1)!);
          const first = await attempt(on.load());
          clearTimeout(timer);
          const jepa = first ?? (await answer(on.load));
          const embedded = jepa && (await answer(() => jepa.embed(pictures)));
          if (!embedded || !same(embedded.data, on.embedding)) found.wrong++;
          await jepa?.dispose();
        } else if (operation === "embed") {
          timer = later(() => on.model.worker);
          if (fault === "memory") await attempt(new Promise((resolve) => setTimeout(resolve, 50)).then(() => on.model.jepa.embed(large)));
          else {
            const embedded = await attempt(on.model.jepa.embed(pictures));
            if (embedded && !same(embedded.data, on.embedding)) found.wrong++;
            await new Promise((resolve) => setTimeout(resolve, 50));
          }
          const after = await answer(() => on.model.jepa.embed(pictures));
          if (!after || !same(after.data, on.embedding)) found.wrong++;
        } else if (operation === "train") {
          if (fault === "memory") {
            faults.cause(on.run.worker, fault);
            await new Promise((resolve) => setTimeout(resolve, 50));
          } else timer = later(() => on.run.worker);
          let spoilt = fault !== "memory";
          const get = (index: number) => {
            if (spoilt) return pictures[index]!;
            spoilt = true;
            return large;
          };
          const more = async () => {
            for await (const { step, loss } of on.run.trainer.run({ length: pictures.length, get }, { steps: 2 })) {
              const apart = Math.abs(loss - on.expected[step - 1]!);
              found.apart = Math.max(found.apart, apart);
              if (on.backend === "cpu" && apart > 0) found.wrong++;
            }
            return true;
          };
          await attempt(more());
          on.taken += 2;
          await new Promise((resolve) => setTimeout(resolve, 50));
          // By now everybody has heard of it, or hears of it in this call.
          await answer(() => on.run.trainer.lastMasks());
        } else {
          timer = later(() => on.run.worker);
          await attempt(on.run.trainer.save());
          await new Promise((resolve) => setTimeout(resolve, 30));
          const save = await answer(() => on.run.trainer.save());
          if (!save || !same(save, await bytes(await on.store.read()))) found.wrong++;
        }
        if (on.run.trainer.info.step !== on.taken) found.lost++;
        if (found.codes.length > before || found.told[0]! > told) row.met++;
        if (operation !== "load" && faults.workers.length > started) subject.worker = faults.workers.at(-1)!;
      }

      for (const { run, model, store, taken } of [cpu, webgpu]) {
        await answer(() => model.jepa.embed(pictures[0]!));
        await answer(() => run.trainer.lastMasks());
        await run.trainer.dispose();
        await model.jepa.dispose();
        const again = await inTime(webjepa.Trainer.resumeFrom(store, { backend: "cpu" }));
        if (again.info.step !== taken) found.lost++;
        await again.dispose();
      }
      const { codes, ...rest } = found;
      const known: string[] = Object.values(CODES);
      return { rows, ...rest, rejected: codes.length, strange: codes.filter((code) => !known.includes(code)) };
    },
    ["/fixtures/ijepa_tiny_hf", LOSSES, 60_000] as const,
  );
  console.log(`losses of everything: ${JSON.stringify(outcome)}`);
  expect(outcome).toMatchObject({ hung: 0, wrong: 0, lost: 0, unanswered: 0, strange: [] });
  expect(outcome.apart).toBeLessThan(1e-4);
  expect(outcome.told[0]).toBeGreaterThan(LOSSES / 3);
  expect(outcome.told[1]).toBe(outcome.told[0]);
  // What was kept in the cache is whole, and all that a load needs.
  for (const name of ["config.json", "model.safetensors"]) lab.server.faults.set(`fixtures/ijepa_tiny_hf/${name}`, { status: 500 });
  const shape = await test.page.evaluate(async (source) => {
    const jepa = await webjepa.Jepa.load(source, { backend: "cpu", cache: "opfs" });
    const { shape } = await jepa.embed(new ImageData(16, 16));
    await jepa.dispose();
    return shape;
  }, "/fixtures/ijepa_tiny_hf");
  lab.server.faults.clear();
  expect(shape).toHaveLength(1);
});
