import { createHash } from "node:crypto";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Jepa, memoryStore, Trainer, type JepaError, type ImageInput, type SaveStore, type TrainDataset, type TrainerOptions, type TrainMetrics } from "../../www/src/index.js";
import { ChannelWorker } from "./channel-worker.js";
import { CONFIG, coded, fake, hashOf, resetFake, safetensors } from "./fake-glue.js";
import { startServer } from "./server.js";

const place = vi.hoisted(() => ({ inNode: true }));
vi.mock("../../www/src/glue.js", async () => (await import("./fake-glue.js")).mockGlue());
vi.mock("../../www/src/environment.js", async (original) => ({
  ...(await original<typeof import("../../www/src/environment.js")>()),
  get inNode() {
    return place.inNode;
  },
}));

const OPTIONS: TrainerOptions = { model: { imageSize: 32, patchSize: 16, hiddenSize: 4, layers: 1, heads: 1 }, backend: "cpu", seed: 5, batchSize: 2, schedule: { steps: 10 } };
const create = (options: Partial<TrainerOptions> = {}) => Trainer.create({ ...OPTIONS, ...options });

const flat = (value: number, width = 1): ImageInput => ({ data: new Uint8Array(3 * width).fill(value), width, height: 1, channels: 3 });
const PICTURES = Array.from({ length: 7 }, (_, i) => flat(i + 1));
const reason = new Error("enough");

/** The fake's weights after these pictures. */
const trained = (start: number, ...values: number[]) => values.reduce((sum, value) => (sum * 3 + value) % 65521, start);

const failure = (promise: Promise<unknown>) => promise.then(() => expect.unreachable("the call should have failed"), (error) => error);
function gate(): { promise: Promise<void>; open: () => void } {
  let open!: () => void;
  return { promise: new Promise<void>((resolve) => (open = resolve)), open };
}
async function all(run: AsyncIterable<TrainMetrics>): Promise<TrainMetrics[]> {
  const metrics: TrainMetrics[] = [];
  for await (const each of run) metrics.push(each);
  return metrics;
}
const losses = async (run: AsyncIterable<TrainMetrics>) => (await all(run)).map(({ loss }) => loss);
const trap = async () => {
  throw new WebAssembly.RuntimeError("unreachable");
};

describe.each([
  ["in this thread", false],
  ["in a worker", true],
])("a trainer %s", (_, worker) => {
  beforeEach(() => {
    resetFake();
    place.inNode = !worker;
    ChannelWorker.started = [];
    vi.stubGlobal("Worker", ChannelWorker);
  });
  afterEach(() => {
    vi.unstubAllGlobals();
    place.inNode = true;
    if (worker) expect(ChannelWorker.started.filter(({ terminated }) => !terminated)).toEqual([]);
    else expect([...fake.alive]).toEqual([]);
  });

  it("says what it is", async () => {
    await using trainer = await create({ objective: { kind: "lejepa", lambda: 0.1 } });
    expect(ChannelWorker.started.length).toBe(worker ? 1 : 0);
    expect(trainer.info).toEqual({
      config: expect.objectContaining({ imageSize: 32, patchSize: 16 }),
      grid: [1, 2, 2],
      frames: 1,
      backend: "cpu",
      objective: "lejepa",
      step: 0,
      steps: 10,
      batchSize: 2,
      accumulate: 1,
      trainable: 1,
      parameters: 1,
    });
    expect(trainer.backend).toBe("cpu");
    expect(trainer.grid).toEqual([1, 2, 2]);
    expect(trainer.config).toEqual(trainer.info.config);
    expect(trainer.fallbackReason).toBeUndefined();
  });

  it("passes on what was asked for, and no more", async () => {
    const masks = { strategy: "tube", ratio: 0.5 } as { strategy: "tube"; ratio: number };
    await using trainer = await create({ schedule: { steps: 3, lr: 0.5, ema: undefined }, masks, train: undefined, optimizer: { clip: 1 } });
    masks.ratio = 0.9;
    expect(fake.training).toEqual([
      { model: OPTIONS.model, objective: "ijepa", seed: 5, batchSize: 2, accumulate: 1, schedule: { steps: 3, lr: 0.5 }, optimizer: { clip: 1 }, masks: { strategy: "tube", ratio: 0.5 } },
    ]);
    expect(Object.keys((fake.training[0] as { schedule: object }).schedule)).toEqual(["steps", "lr"]);
    expect(trainer.info.steps).toBe(3);
  });

  it("has defaults for everything but the model", async () => {
    await using trainer = await Trainer.create({ model: "vit-tiny" });
    expect(fake.training).toEqual([{ model: "vit-tiny", objective: "ijepa", seed: 0, batchSize: 16, accumulate: 1 }]);
    expect(trainer.fallbackReason).toMatch(/WebGPU/);
  });

  it("takes a step", async () => {
    await using trainer = await create();
    const metrics = await trainer.step([flat(3), flat(4)]);
    expect(metrics).toMatchObject({ step: 1, loss: trained(5, 3, 4), lr: 1e-3, ema: 0.996, parts: {} });
    expect(metrics.ms).toBeGreaterThanOrEqual(0);
    expect(metrics).not.toHaveProperty("warning");
    expect(trainer.info.step).toBe(1);
    expect(await trainer.lastMasks()).toEqual({ context: [Uint32Array.of(1)], targets: [[Uint32Array.of(0)]] });
  });

  it("takes a step on masks of the caller's, as they are when it is called", async () => {
    await using trainer = await create();
    const masks = { context: [Uint32Array.of(1, 2), Uint32Array.of(3, 4)], targets: [[Uint32Array.of(5), Uint32Array.of(6)]] };
    const expected = structuredClone(masks);
    const step = trainer.step([flat(3), flat(4)], { masks });
    masks.context[0]!.fill(9);
    await step;
    expect(await trainer.lastMasks()).toEqual(expected);
    for (const [wrong, message] of [
      [{ context: [[0, 0]], targets: [] }, /masks\.context\[0\] names a token twice/],
      [{ context: [[0.5]], targets: [] }, /names token 0\.5/],
      [{ context: 3, targets: [] }, /masks\.context is an array/],
      [{ context: [], targets: [5] }, /masks\.targets\[0\] is an array/],
    ] as const) {
      expect(await failure(trainer.step([flat(3), flat(4)], { masks: wrong as never }))).toMatchObject({ code: "bad-mask", message: expect.stringMatching(message) });
    }
    expect(trainer.info.step).toBe(1);
  });

  it("takes the model's very input, and only that where it is said to be", async () => {
    await using trainer = await create();
    const size = trainer.config.imageSize as number;
    const prepared = { data: new Float32Array(3 * size * size).fill(-2), width: size, height: size, channels: 3 as const };
    expect(await failure(trainer.step([prepared, flat(4)], { preprocess: false }))).toMatchObject({ code: "bad-input", message: expect.stringMatching(/Float32Array/) });
    expect((await trainer.step([prepared, prepared], { preprocess: false })).step).toBe(1);
  });

  it("takes pictures as they are when it is called", async () => {
    await using trainer = await create();
    const { promise, open } = gate();
    fake.faults.step = () => promise;
    const first = trainer.step([flat(1), flat(2)]);
    const data = new Uint8Array([5, 5, 5]);
    const second = trainer.step([{ data, width: 1, height: 1, channels: 3 }, flat(6)]);
    await vi.waitFor(() => expect(fake.batches).toEqual([2]));
    data.fill(77);
    open();
    await first;
    expect((await second).loss).toBe(trained(5, 1, 2, 5, 6));
  });

  it("answers in the order of the calls, one at a time", async () => {
    await using trainer = await create();
    let running = 0;
    fake.faults.step = async () => {
      expect(++running).toBe(1);
      await new Promise((resolve) => setTimeout(resolve, 5));
      running--;
    };
    const order: unknown[] = [];
    const steps = [1, 2, 3].map(async (value) => order.push((await trainer.step([flat(value), flat(value)])).step));
    const save = trainer.save().then((bytes) => order.push(JSON.parse(new TextDecoder().decode(bytes)).step));
    await Promise.all([...steps, save, trainer.step([flat(4), flat(4)]).then(({ step }) => order.push(step))]);
    expect(order).toEqual([1, 2, 3, 3, 4]);
  });

  it("takes all pictures of accumulated batches at once", async () => {
    await using trainer = await create({ accumulate: 3 });
    expect((await trainer.step(PICTURES.slice(0, 6))).loss).toBe(trained(5, 1, 2, 3, 4, 5, 6));
    expect(fake.batches).toEqual([6]);
    expect(await failure(trainer.step(PICTURES.slice(0, 2)))).toMatchObject({ code: "bad-input", message: expect.stringContaining("batchSize · accumulate = 2 · 3 = 6 pictures, not 2") });
  });

  it.each([
    ["no array", flat(1)],
    ["too few pictures", [flat(1)]],
    ["too many pictures", [flat(1), flat(2), flat(3)]],
    ["no pictures", []],
    ["a hole", [flat(1), undefined]],
    ["a picture with the wrong number of values", [flat(1), { data: new Uint8Array(2), width: 1, height: 1, channels: 3 }]],
  ])("refuses %s, and then goes on as if nothing had been", async (_, images) => {
    await using trainer = await create();
    expect(await failure(trainer.step(images as ImageInput[]))).toMatchObject({ name: "JepaError", code: "bad-input" });
    expect((await trainer.step([flat(3), flat(4)])).loss).toBe(trained(5, 3, 4));
  });

  it("says which picture is bad", async () => {
    await using trainer = await create();
    expect(await failure(trainer.step([flat(1), flat(1, 5000)]))).toMatchObject({ code: "bad-input", message: expect.stringMatching(/^Picture 1: .*wide/) });
    const data = [...PICTURES.slice(0, 3), flat(1, 5000)];
    expect(await failure(all(trainer.run(data)))).toMatchObject({ code: "bad-input", message: expect.stringMatching(/^Picture 3: .*wide/) });
    expect(trainer.info.step).toBe(1);
  });

  it("passes on warnings", async () => {
    const onWarning = vi.fn();
    await using trainer = await create({ onWarning });
    await trainer.step([flat(1), flat(1)]);
    expect(onWarning).not.toHaveBeenCalled();
    const metrics = await trainer.step([flat(0), flat(0)]);
    expect(metrics.warning).toBe("every picture is black");
    expect(onWarning.mock.calls).toEqual([["every picture is black", metrics]]);
  });

  describe("on a data set", () => {
    it("runs to the end of the schedule, in the order that the module says", async () => {
      await using trainer = await create({ schedule: { steps: 5 } });
      const metrics = await all(trainer.run(PICTURES));
      expect(metrics.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5]);
      expect(metrics.at(-1)!.loss).toBe(trained(5, 1, 2, 3, 4, 5, 6, 2, 3, 4, 5));
      expect(await all(trainer.run(PICTURES))).toEqual([]);
      expect((await all(trainer.run(PICTURES, { steps: 2 }))).map(({ step }) => step)).toEqual([6, 7]);
    });

    it("is pulled: takes no step before it is asked for", async () => {
      await using trainer = await create();
      const run = trainer.run(PICTURES);
      await run.next();
      await new Promise((resolve) => setTimeout(resolve, 20));
      expect(trainer.info.step).toBe(1);
      for await (const { step } of run) if (step === 3) break;
      expect(trainer.info.step).toBe(3);
      expect((await trainer.run(PICTURES).next()).value).toMatchObject({ step: 4 });
    });

    it("asks for no picture but those of the step", async () => {
      await using trainer = await create();
      const asked: number[] = [];
      const dataset: TrainDataset = {
        length: 1000,
        async get(index) {
          asked.push(index);
          return flat(index % 200);
        },
      };
      expect(await losses(trainer.run(dataset, { steps: 2 }))).toEqual([trained(5, 0, 1), trained(5, 0, 1, 2, 3)]);
      expect(asked).toEqual([0, 1, 2, 3]);
    });

    it("lets others have their turn between steps", async () => {
      await using trainer = await create();
      await using model = await trainer.model();
      let turns = 0;
      const run = trainer.run(PICTURES, { steps: 3 });
      for await (const { step } of run) {
        const timer = setImmediate(() => turns++);
        expect((await model.embed(flat(9))).data[0]).toBe(5);
        if (step === 3) clearImmediate(timer);
      }
      expect(turns).toBeGreaterThan(0);
    });

    it.each([
      ["an empty one", [], /has no picture, .* batchSize = 2 pictures, all different/],
      ["one with a single picture", [flat(1)], /has 1 picture/],
      ["one without a length", { get: () => flat(1) }, /array of pictures, or \{ length, get/],
      ["one whose length is no number", { length: NaN, get: () => flat(1) }, /array of pictures/],
      ["none", undefined, /array of pictures/],
      ["text", "cats", /array of pictures/],
    ])("refuses %s", async (_, dataset, message) => {
      await using trainer = await create();
      expect(await failure(all(trainer.run(dataset as TrainDataset)))).toMatchObject({ name: "JepaError", code: "bad-input", message: expect.stringMatching(message) });
      expect((await trainer.step([flat(3), flat(4)])).step).toBe(1);
    });

    it("refuses one that does not fill a step, with the numbers", async () => {
      await using trainer = await create({ batchSize: 4, accumulate: 2 });
      expect(await failure(all(trainer.run(PICTURES)))).toMatchObject({ code: "bad-input", message: expect.stringMatching(/has 7 pictures.*4 · 2 = 8 pictures, all different/) });
      expect(await losses(trainer.run([...PICTURES, flat(8)], { steps: 1 }))).toEqual([trained(5, 1, 2, 3, 4, 5, 6, 7, 8)]);
    });

    it("trains on a single picture when that fills a batch", async () => {
      await using trainer = await create({ batchSize: 1 });
      expect(await losses(trainer.run([flat(3)], { steps: 2 }))).toEqual([trained(5, 3), trained(5, 3, 3)]);
    });

    it("says which picture could not be had, and goes on when it can", async () => {
      await using trainer = await create();
      let broken = true;
      const cause = new Error("the disk is gone");
      const dataset: TrainDataset = {
        length: 4,
        get(index) {
          if (index === 3 && broken) throw cause;
          return flat(index);
        },
      };
      const run = trainer.run(dataset);
      await run.next();
      expect(await failure(run.next())).toMatchObject({ name: "JepaError", code: "bad-input", message: expect.stringMatching(/Picture 3 .*the disk is gone/), cause });
      broken = false;
      expect(await losses(trainer.run(dataset, { steps: 1 }))).toEqual([trained(5, 0, 1, 2, 3)]);
    });

    it.each([
      ["a number of steps that is none", { steps: 1.5 }],
      ["an option that there is not", { step: 1 }],
    ])("refuses %s", async (_, options) => {
      await using trainer = await create();
      expect(await failure(all(trainer.run(PICTURES, options as object)))).toMatchObject({ code: "bad-input" });
    });
  });

  describe("aborting", () => {
    it("before the call", async () => {
      await using trainer = await create();
      expect(await failure(trainer.step([flat(1), flat(2)], { signal: AbortSignal.abort(reason) }))).toMatchObject({ code: "aborted", cause: reason });
      expect(await failure(all(trainer.run(PICTURES, { signal: AbortSignal.abort(reason) })))).toMatchObject({ code: "aborted", cause: reason });
      expect(fake.batches).toEqual([]);
    });

    it("between steps costs nothing", async () => {
      await using trainer = await create();
      const controller = new AbortController();
      const seen: number[] = [];
      const run = async () => {
        for await (const { loss, step } of trainer.run(PICTURES, { signal: controller.signal })) {
          seen.push(loss);
          if (step === 2) controller.abort(reason);
        }
      };
      expect(await failure(run())).toMatchObject({ code: "aborted", cause: reason });
      expect(trainer.info.step).toBe(2);
      seen.push(...(await losses(trainer.run(PICTURES, { steps: 2 }))));
      expect(seen).toEqual([trained(5, 1, 2), trained(5, 1, 2, 3, 4), trained(5, 1, 2, 3, 4, 5, 6), trained(5, 1, 2, 3, 4, 5, 6, 2, 3)]);
    });

    it("in the queue, at once, without a step", async () => {
      await using trainer = await create();
      const { promise, open } = gate();
      fake.faults.step = () => promise;
      const first = trainer.step([flat(1), flat(2)]);
      const controller = new AbortController();
      const second = failure(trainer.step([flat(3), flat(4)], { signal: controller.signal }));
      await vi.waitFor(() => expect(fake.batches).toEqual([2]));
      controller.abort(reason);
      expect(await second).toMatchObject({ code: "aborted", cause: reason });
      open();
      await first;
      expect((await trainer.step([flat(5), flat(6)])).loss).toBe(trained(5, 1, 2, 5, 6));
    });

    it("while pictures are brought, at once, without a step", async () => {
      await using trainer = await create();
      const controller = new AbortController();
      const dataset: TrainDataset = {
        length: 4,
        get: () => {
          controller.abort(reason);
          return new Promise<ImageInput>(() => {});
        },
      };
      expect(await failure(all(trainer.run(dataset, { signal: controller.signal })))).toMatchObject({ code: "aborted", cause: reason });
      expect(await losses(trainer.run(PICTURES, { steps: 1 }))).toEqual([trained(5, 1, 2)]);
    });

    it("during a step, at once; the step is taken all the same", async () => {
      await using trainer = await create();
      const { promise, open } = gate();
      fake.faults.step = () => promise;
      const controller = new AbortController();
      const run = failure(all(trainer.run(PICTURES, { signal: controller.signal })));
      await vi.waitFor(() => expect(fake.batches).toEqual([2]));
      controller.abort(reason);
      expect(await run).toMatchObject({ code: "aborted", cause: reason });
      open();
      expect(await losses(trainer.run(PICTURES, { steps: 1 }))).toEqual([trained(5, 1, 2, 3, 4)]);
      expect(trainer.info.step).toBe(2);
    });

    it("while the trainer is made", async () => {
      const controller = new AbortController();
      const { promise, open } = gate();
      fake.faults.create = () => {
        controller.abort(reason);
        return promise;
      };
      expect(await failure(create({ signal: controller.signal }))).toMatchObject({ code: "aborted", cause: reason });
      open();
      await new Promise((resolve) => setTimeout(resolve, 20));
    });
  });

  describe("saved and resumed", () => {
    it("goes on with the same pictures, as if there had been no break", async () => {
      await using whole = await create();
      const expected = await losses(whole.run(PICTURES, { steps: 9 }));
      await using first = await create();
      const found = await losses(first.run(PICTURES, { steps: 4 }));
      const save = await first.save();
      await first.step([flat(100), flat(100)]);
      await using second = await Trainer.resume(save, { backend: "cpu" });
      expect(second.info).toMatchObject({ step: 4, steps: 10, objective: "ijepa", batchSize: 2 });
      found.push(...(await losses(second.run(PICTURES, { steps: 5 }))));
      expect(found).toEqual(expected);
      expect(await second.save()).toEqual(await whole.save());
      expect(await losses(second.run(PICTURES))).toHaveLength(1);
    });

    it.each([
      ["an ArrayBuffer", (save: Uint8Array<ArrayBuffer>) => save.buffer],
      ["a Blob", (save: Uint8Array<ArrayBuffer>) => new Blob([save])],
    ])("takes the save as %s", async (_, form) => {
      await using trainer = await create();
      await trainer.step([flat(1), flat(2)]);
      await using again = await Trainer.resume(form(await trainer.save()), { backend: "cpu" });
      expect((await again.step([flat(3), flat(4)])).loss).toBe(trained(5, 1, 2, 3, 4));
    });

    it.each([
      ["something else", { weights: 1 }, "bad-input"],
      ["nothing", undefined, "bad-input"],
      ["bytes that are no save", new Uint8Array([1, 2, 3]), "bad-checkpoint"],
    ])("refuses %s", async (_, save, code) => {
      expect(await failure(Trainer.resume(save as Uint8Array, { backend: "cpu" }))).toMatchObject({ name: "JepaError", code });
    });

    it("refuses options that the save has", async () => {
      expect(await failure(Trainer.resume(new Uint8Array(3), { batchSize: 3 } as object))).toMatchObject({ code: "bad-input", message: expect.stringContaining("no option batchSize") });
    });
  });

  describe("that saves by itself", () => {
    const recording = (): SaveStore & { steps: number[] } => {
      const store = memoryStore();
      const steps: number[] = [];
      return {
        steps,
        read: () => store.read(),
        async write(save) {
          steps.push(JSON.parse(new TextDecoder().decode(save)).step);
          await store.write(save);
        },
      };
    };

    it("does so in every so many steps, and after the last one", async () => {
      const store = recording();
      await using trainer = await create({ autosave: { every: 4, store } });
      await all(trainer.run(PICTURES));
      expect(store.steps).toEqual([4, 8, 10]);
    });

    it("is resumed from its store, and goes on saving there", async () => {
      const store = recording();
      await using trainer = await create({ autosave: { every: 2, store } });
      await all(trainer.run(PICTURES, { steps: 3 }));
      await using again = await Trainer.resumeFrom(store, { backend: "cpu", autosave: { every: 2, store } });
      expect(again.info.step).toBe(2);
      expect(await losses(again.run(PICTURES, { steps: 2 }))).toEqual([trained(5, 1, 2, 3, 4, 5, 6), trained(5, 1, 2, 3, 4, 5, 6, 2, 3)]);
      expect(store.steps).toEqual([2, 4]);
    });

    it("says that there is nothing in a store", async () => {
      expect(await failure(Trainer.resumeFrom(memoryStore()))).toMatchObject({ name: "JepaError", code: "bad-input", message: expect.stringContaining("Trainer.create") });
      const broken = { read: () => Promise.reject(new Error("no network")), write: async () => {} };
      expect(await failure(Trainer.resumeFrom(broken))).toMatchObject({ name: "JepaError", code: "bad-input", message: expect.stringContaining("no network") });
      expect(await failure(Trainer.resumeFrom({} as SaveStore))).toMatchObject({ code: "bad-input", message: expect.stringContaining("opfsStore") });
    });

    it("rejects when a save cannot be kept, with the step taken and the trainer usable", async () => {
      const cause = new Error("full");
      const store = { read: async () => undefined, write: vi.fn<SaveStore["write"]>().mockRejectedValueOnce(cause) };
      await using trainer = await create({ autosave: { every: 1, store } });
      expect(await failure(trainer.step([flat(1), flat(2)]))).toMatchObject({ name: "JepaError", code: "bad-input", message: expect.stringContaining("full"), cause });
      expect(trainer.info.step).toBe(1);
      expect((await trainer.step([flat(3), flat(4)])).loss).toBe(trained(5, 1, 2, 3, 4));
    });

    it("goes on when somebody listens to what went wrong", async () => {
      const onError = vi.fn();
      const store = { read: async () => undefined, write: () => Promise.reject(new Error("full")) };
      await using trainer = await create({ autosave: { every: 1, store, onError } });
      expect(await all(trainer.run(PICTURES, { steps: 2 }))).toHaveLength(2);
      expect(onError.mock.calls).toEqual([[expect.objectContaining({ name: "JepaError" })], [expect.objectContaining({ name: "JepaError" })]]);
    });

    it.each([
      ["no store", { every: 1 }],
      ["something else as a store", { every: 1, store: {} }],
      ["no interval", { store: memoryStore() }],
      ["an interval of 0", { every: 0, store: memoryStore() }],
    ])("refuses %s", async (_, autosave) => {
      expect(await failure(create({ autosave: autosave as never }))).toMatchObject({ code: "bad-input", message: expect.stringContaining("autosave") });
    });
  });

  describe("gives a model", () => {
    it("on the present weights, which embeds, predicts and stays as it is", async () => {
      await using trainer = await create();
      await trainer.step([flat(3), flat(4)]);
      const jepa = await trainer.model();
      expect(jepa).toBeInstanceOf(Jepa);
      await trainer.step([flat(5), flat(6)]);
      const weights = trained(5, 3, 4);
      expect(jepa).toMatchObject({ backend: "cpu", dtype: "f32", grid: [1, 2, 2] });
      expect(await jepa.embed(flat(8))).toEqual({ data: Float32Array.of(weights, 8, 1, 1), shape: [4], grid: [1, 2, 2] });
      expect((await jepa.predict(flat(8), { context: [0], targets: [[1]] })).predicted.data[0]).toBe(weights);
      await using later = await trainer.model();
      expect((await later.embed(flat(8))).data[0]).toBe(trained(5, 3, 4, 5, 6));
      await jepa.dispose();
      expect(await failure(jepa.embed(flat(8)))).toMatchObject({ code: "disposed" });
      expect((await trainer.step([flat(7), flat(8)])).step).toBe(3);
      if (!worker) expect([...fake.alive].filter((name) => name.startsWith("model"))).toHaveLength(1);
    });

    it("in the same worker, which stays until the last of them is disposed of", async () => {
      const trainer = await create();
      const jepa = await trainer.model();
      await trainer.dispose();
      if (!worker) expect([...fake.alive].filter((name) => name.startsWith("trainer"))).toEqual([]);
      expect(await failure(trainer.save())).toMatchObject({ code: "disposed" });
      expect((await jepa.embed(flat(8))).data[0]).toBe(5);
      expect(ChannelWorker.started.map(({ terminated }) => terminated)).toEqual(worker ? [false] : []);
      await jepa.dispose();
      expect(ChannelWorker.started.map(({ terminated }) => terminated)).toEqual(worker ? [true] : []);
    });

    it("that nobody can have any more, and then gives it back", async () => {
      const trainer = await create();
      const other = await trainer.model();
      const { promise, open } = gate();
      let begun = false;
      fake.faults.model = () => {
        begun = true;
        return promise;
      };
      const call = failure(trainer.model());
      await vi.waitFor(() => expect(begun).toBe(true));
      const disposal = trainer.dispose();
      expect(await call).toMatchObject({ code: "disposed" });
      open();
      await disposal;
      expect((await other.embed(flat(1))).data[0]).toBe(5);
      await vi.waitFor(() => expect([...fake.alive].filter((name) => /model|trainer/.test(name))).toHaveLength(1));
      await other.dispose();
    });
  });

  it("exports files, text as text", async () => {
    await using trainer = await create();
    await trainer.step([flat(3), flat(4)]);
    const files = await trainer.export("hf");
    expect(JSON.parse(files["config.json"])).toEqual({ image_size: 32 });
    expect(files["model.safetensors"]).toEqual(safetensors({ hf: trained(5, 3, 4) % 100 }));
    await using jepa = await Jepa.load(files, { backend: "cpu" });
    expect((await jepa.embed(flat(8))).data[0]).toBe(hashOf({ hf: trained(5, 3, 4) % 100 }));
    expect((await trainer.export("original"))["model.safetensors"]).toEqual(safetensors({ original: trained(5, 3, 4) % 100 }));
    expect(await failure(trainer.export("onnx" as "hf"))).toMatchObject({ code: "bad-input", message: expect.stringContaining('"hf", "original"') });
  });

  describe("that goes on from a checkpoint", () => {
    const SIZES = { weight: 100, predictor: 7 };
    const from = () => ({ "config.json": CONFIG, "model.safetensors": safetensors(SIZES) });

    it("has its weights, predictor and both encoders", async () => {
      const overall: number[] = [];
      await using trainer = await Trainer.create({ from: from(), backend: "cpu", batchSize: 1, train: { lastBlocks: 2 }, onProgress: (progress) => overall.push(progress.overall) });
      expect(fake.options).toEqual([{ config: CONFIG, dtype: "f32", encoder: "auto", predictor: true, training: true }]);
      expect(fake.training).toEqual([{ objective: "ijepa", seed: 0, batchSize: 1, accumulate: 1, train: { lastBlocks: 2 } }]);
      expect((await trainer.step([flat(3)])).loss).toBe(trained(hashOf(SIZES), 3));
      expect(overall.at(-1)).toBe(1);
    });

    it("takes the geometry from the options where the checkpoint has none", async () => {
      await using trainer = await Trainer.create({ from: { "model.safetensors": safetensors(SIZES) }, model: "vit-tiny", backend: "cpu", batchSize: 1 });
      expect(fake.options[0]).toMatchObject({ preset: "vit-tiny" });
      expect(trainer.info.step).toBe(0);
    });

    it("fails as a load does, and leaves nothing behind", async () => {
      expect(await failure(Trainer.create({ from: { "config.json": CONFIG, "model.safetensors": safetensors({ skip: 1 }) }, backend: "cpu" }))).toMatchObject({ code: "missing-tensor" });
      fake.faults.finish = async () => {
        throw coded("unsupported", "no");
      };
      expect(await failure(Trainer.create({ from: from(), backend: "cpu" }))).toMatchObject({ code: "unsupported" });
      expect(await failure(Trainer.create({ from: 3 as never }))).toMatchObject({ code: "bad-input" });
    });

    it("fetches it with the caller's headers, keeps it, and checks it", async () => {
      const server = await startServer();
      try {
        for (const [name, file] of Object.entries(from())) server.files.set(`m/${name}`, file);
        server.faults.set("m/model.safetensors", { needs: "authorization: Bearer abc" });
        const options = { from: `${server.url}m`, backend: "cpu", batchSize: 1 } as const;
        const requestInit = { headers: { Authorization: "Bearer abc" } };
        const integrity = { "model.safetensors": `sha256-${createHash("sha256").update(from()["model.safetensors"]).digest("base64")}` };
        expect(await failure(Trainer.create(options))).toMatchObject({ code: "network", message: expect.stringContaining("401") });
        expect(await failure(Trainer.create({ ...options, requestInit, integrity: { "model.safetensors": `sha256-${btoa("x".repeat(32))}` } }))).toMatchObject({ code: "integrity" });
        const cache = new Map<string, Uint8Array<ArrayBuffer>>();
        for (const requests of [true, false]) {
          server.requests.length = 0;
          await using trainer = await Trainer.create({ ...options, requestInit, integrity, cache });
          expect(trainer.cacheFailure).toBeUndefined();
          expect((await trainer.step([flat(3)])).loss).toBe(trained(hashOf(SIZES), 3));
          expect(server.requests.length > 0).toBe(requests);
        }
        await using trainer = await Trainer.create({ ...options, requestInit, cache: { get: () => undefined, set: () => Promise.reject(new Error("no room")), delete() {} } });
        expect(trainer.cacheFailure).toContain("no room");
      } finally {
        await server.close();
      }
    });

    it.each(["cache", "integrity", "requestInit"])("refuses the option %s without one", async (name) => {
      expect(await failure(create({ [name]: name === "cache" ? "opfs" : {} }))).toMatchObject({ code: "bad-input", message: expect.stringContaining(name) });
    });

    it("can be aborted while it loads", async () => {
      const controller = new AbortController();
      fake.faults.write = () => controller.abort(reason);
      expect(await failure(Trainer.create({ from: from(), backend: "cpu", signal: controller.signal }))).toMatchObject({ code: "aborted", cause: reason });
      await new Promise((resolve) => setTimeout(resolve, 20));
    });
  });

  describe("after a failure of the module", () => {
    it("that it survives, such as a loss that is no number, is as before the step and can be saved", async () => {
      await using trainer = await create();
      await trainer.step([flat(1), flat(2)]);
      const before = await trainer.save();
      fake.faults.step = async () => {
        throw coded("bad-input", "step 2 was not made: the gradient of blocks.0.attn.qkv.weight is not finite");
      };
      const resets = fake.resets;
      expect(await failure(trainer.step([flat(3), flat(4)]))).toMatchObject({ name: "JepaError", code: "bad-input", message: expect.stringContaining("blocks.0.attn.qkv.weight") });
      fake.faults = {};
      expect(fake.resets).toBe(resets);
      expect(trainer.info.step).toBe(1);
      expect(await trainer.save()).toEqual(before);
      expect((await trainer.step([flat(3), flat(4)])).loss).toBe(trained(5, 1, 2, 3, 4));
    });

    it.each([
      ["a trap", trap, "internal"],
      ["a lost device", () => Promise.reject(coded("device-lost", "The GPU device was lost.")), "device-lost"],
      ["memory that cannot be had", () => Promise.reject(new RangeError("Array buffer allocation failed")), "out-of-memory"],
    ])("by %s, says that it must be resumed, in every call", async (_, fault, code) => {
      const told: unknown[] = [];
      const trainer = await create({ onLost: (error) => told.push(error.code), onRecovered: () => told.push("recovered") });
      const model = await trainer.model();
      await trainer.step([flat(1), flat(2)]);
      const save = await trainer.save();
      fake.faults.step = fault;
      const lost = { name: "JepaError", code, message: expect.stringMatching(/Trainer\.resume/) };
      expect(await failure(trainer.step([flat(3), flat(4)]))).toMatchObject(lost);
      fake.faults = {};
      expect(await failure(trainer.step([flat(3), flat(4)]))).toMatchObject(lost);
      expect(await failure(trainer.save())).toMatchObject(lost);
      expect(await failure(all(trainer.run(PICTURES)))).toMatchObject(lost);
      expect(await failure(trainer.model())).toMatchObject(lost);
      expect(await failure(model.embed(flat(1)))).toMatchObject({ code, message: expect.stringMatching(/ask it for the model again/) });
      await trainer.dispose();
      await model.dispose();
      expect(told).toEqual([code]);
      await using again = await Trainer.resume(save, { backend: "cpu" });
      expect((await again.step([flat(3), flat(4)])).loss).toBe(trained(5, 1, 2, 3, 4));
    });

    describe("with autosave", () => {
      /** Fails in the calls with these numbers, from 1 on. */
      const failing = (...calls: number[]) => {
        let call = 0;
        fake.faults.step = () => (calls.includes(++call) ? trap() : Promise.resolve());
      };
      const told: unknown[] = [];
      const listeners = { onLost: (error: JepaError) => told.push(error.code), onRecovered: () => told.push("recovered") };
      beforeEach(() => void (told.length = 0));

      it("goes on from the last save, and says so; models that it gave are gone", async () => {
        const store = memoryStore();
        await using trainer = await create({ autosave: { every: 2, store }, ...listeners });
        const model = await trainer.model();
        for (const value of [1, 2, 3]) await trainer.step([flat(value), flat(value)]);
        failing(1);
        expect(await failure(trainer.step([flat(4), flat(4)]))).toMatchObject({ code: "internal", message: expect.stringContaining("goes on from the last save") });
        expect(told).toEqual(["internal"]);
        expect(await trainer.step([flat(5), flat(5)])).toMatchObject({ step: 3, loss: trained(5, 1, 1, 2, 2, 5, 5) });
        expect(told).toEqual(["internal", "recovered"]);
        expect(await failure(model.embed(flat(1)))).toMatchObject({ code: "internal", message: expect.stringMatching(/ask it for the model again/) });
        await model.dispose();
        await using another = await trainer.model();
        expect((await another.embed(flat(1))).data[0]).toBe(trained(5, 1, 1, 2, 2, 5, 5));
      });

      it("begins again where there is no save of it, whatever else is in the store", async () => {
        const store = memoryStore();
        await using other = await create({ seed: 7 });
        await store.write(await other.save());
        await using trainer = await create({ autosave: { every: 5, store }, ...listeners });
        await trainer.step([flat(1), flat(1)]);
        failing(1);
        await failure(trainer.step([flat(2), flat(2)]));
        expect(await trainer.step([flat(3), flat(3)])).toMatchObject({ step: 1, loss: trained(5, 3, 3) });
      });

      it("runs through losses, and takes the steps since the last save again", async () => {
        const wanted = await create({ schedule: { steps: 8 } });
        const expected = await losses(wanted.run(PICTURES));
        await wanted.dispose();
        const store = memoryStore();
        await using trainer = await create({ schedule: { steps: 8 }, autosave: { every: 3, store }, ...listeners });
        failing(2, 6, 7);
        const metrics = await all(trainer.run(PICTURES));
        expect(metrics.map(({ step }) => step)).toEqual([1, 1, 2, 3, 4, 5, 6, 7, 8]);
        for (const { step, loss } of metrics) expect(loss).toBe(expected[step - 1]);
        expect(told).toEqual(["internal", "recovered", "internal", "recovered", "internal", "recovered"]);
      });

      it("takes no step on the pictures of another one, when the loss comes while they are brought", async () => {
        const store = memoryStore();
        await using trainer = await create({ autosave: { every: 2, store } });
        const model = await trainer.model();
        let asked = 0;
        const dataset: TrainDataset = {
          length: 100,
          async get(index) {
            if (++asked === 6) {
              fake.faults.embed = trap;
              await failure(model.embed(flat(1)));
              fake.faults = {};
            }
            return flat(index + 1);
          },
        };
        const metrics = await all(trainer.run(dataset, { steps: 4 }));
        expect(metrics.map(({ step }) => step)).toEqual([1, 2, 3, 4]);
        expect(metrics.at(-1)!.loss).toBe(trained(5, 1, 2, 3, 4, 5, 6, 7, 8));
        await model.dispose();
      });

      it("gives up when a step is lost again and again", async () => {
        const store = memoryStore();
        await using trainer = await create({ autosave: { every: 2, store } });
        // Step 4, each time after step 3 was taken again.
        failing(4, 6, 8);
        const steps: number[] = [];
        const run = async () => {
          for await (const { step } of trainer.run(PICTURES, { steps: 6 })) steps.push(step);
        };
        expect(await failure(run())).toMatchObject({ code: "internal" });
        expect(steps).toEqual([1, 2, 3, 3, 3]);
        expect((await all(trainer.run(PICTURES, { steps: 1 }))).map(({ step }) => step)).toEqual([3, 4]);
      });

      it("says what is wrong with a store that cannot be read, and asks it again at the next call", async () => {
        const kept = memoryStore();
        let broken = true;
        const store: SaveStore = { write: (save) => kept.write(save), read: () => (broken ? Promise.reject(new Error("no disk")) : kept.read()) };
        await using trainer = await create({ autosave: { every: 1, store } });
        await trainer.step([flat(1), flat(1)]);
        failing(1);
        await failure(trainer.step([flat(2), flat(2)]));
        expect(await failure(trainer.save())).toMatchObject({ code: "bad-input", message: expect.stringContaining("no disk") });
        broken = false;
        expect((await trainer.step([flat(2), flat(2)])).loss).toBe(trained(5, 1, 1, 2, 2));
      });
    });

    it("in a model of it, is lost with it", async () => {
      const trainer = await create();
      const model = await trainer.model();
      fake.faults.embed = trap;
      expect(await failure(model.embed(flat(1)))).toMatchObject({ code: "internal" });
      fake.faults = {};
      expect(await failure(trainer.step([flat(1), flat(2)]))).toMatchObject({ code: "internal", message: expect.stringContaining("Trainer.resume") });
      await trainer.dispose();
      await model.dispose();
    });

    it("while it is made, leaves nothing behind", async () => {
      fake.faults.create = trap;
      expect(await failure(create())).toMatchObject({ code: "internal" });
      fake.faults = {};
      await using trainer = await create();
      expect((await trainer.step([flat(1), flat(2)])).step).toBe(1);
    });
  });

  describe("disposing", () => {
    it("ends calls in progress and those after it", async () => {
      const trainer = await create();
      const { promise, open } = gate();
      fake.faults.step = () => promise;
      const step = failure(all(trainer.run(PICTURES)));
      await vi.waitFor(() => expect(fake.batches).toEqual([2]));
      const calls = [step, failure(trainer.save()), failure(trainer.lastMasks())];
      const disposal = trainer.dispose();
      for (const call of calls) expect(await call).toMatchObject({ code: "disposed", message: expect.stringContaining("trainer") });
      open();
      await disposal;
      for (const call of [trainer.step([flat(1), flat(2)]), trainer.save(), trainer.model(), trainer.export("hf"), all(trainer.run(PICTURES))]) {
        expect(await failure(call)).toMatchObject({ code: "disposed" });
      }
      await trainer.dispose();
      expect(trainer.info.batchSize).toBe(2);
    });

    it("works by await using", async () => {
      let kept: Trainer;
      {
        await using trainer = await create();
        kept = trainer;
      }
      expect(await failure(kept.save())).toMatchObject({ code: "disposed" });
    });
  });

  it.each([
    ["no options", undefined, "bad-input", /object/],
    ["neither model nor checkpoint", {}, "bad-input", /model.*from/],
    ["an option that there is not", { ...OPTIONS, batchsize: 3 }, "bad-input", /no option batchsize; there are .*batchSize/],
    ["a dtype that has no gradient", { ...OPTIONS, dtype: "q8" }, "bad-input", /dtype.*"f32", "f16"/],
    ["a schedule's option that there is not", { ...OPTIONS, schedule: { warmup: 3 } }, "bad-input", /no option schedule\.warmup; .*warmupSteps/],
    ["a schedule that is none", { ...OPTIONS, schedule: 100 }, "bad-input", /schedule is an object, not 100/],
    ["steps that are no whole number", { ...OPTIONS, schedule: { steps: 1.5 } }, "bad-input", /schedule\.steps is a whole number/],
    ["a rate that is no number", { ...OPTIONS, schedule: { lr: "1e-3" } }, "bad-input", /schedule\.lr is a number .*"1e-3"/],
    ["a rate that is NaN", { ...OPTIONS, schedule: { lr: NaN } }, "bad-input", /schedule\.lr .*NaN/],
    ["a momentum above 1", { ...OPTIONS, schedule: { ema: 1.5 } }, "bad-input", /schedule\.ema is a number from 0 to 1/],
    ["an eps of 0", { ...OPTIONS, optimizer: { eps: 0 } }, "bad-input", /optimizer\.eps .*greater than 0/],
    ["a batch of 0", { ...OPTIONS, batchSize: 0 }, "bad-input", /batchSize/],
    ["a seed that is no whole number", { ...OPTIONS, seed: -1 }, "bad-input", /seed/],
    ["an unknown objective", { ...OPTIONS, objective: "mae" }, "bad-input", /objective is one of "ijepa", "vjepa", "lejepa", "lewm", "vjepa2-ac", not "mae"/],
    ["an objective of no kind", { ...OPTIONS, objective: {} }, "bad-input", /objective\.kind/],
    ["an unknown way to mask", { ...OPTIONS, masks: { strategy: "half" } }, "bad-input", /masks\.strategy is one of .*"tube"/],
    ["a mask's option that there is not", { ...OPTIONS, masks: { strategy: "tube", seed: 3 } }, "bad-input", /no option masks\.seed/],
    ["an unknown backend", { ...OPTIONS, backend: "gpu" }, "bad-input", /backend/],
    ["WebGPU where there is none", { ...OPTIONS, backend: "webgpu" }, "no-webgpu", /WebGPU/],
    ["training of nothing known", { ...OPTIONS, train: "half" }, "bad-input", /train is "full"/],
    ["two ways of training", { ...OPTIONS, train: { lastBlocks: 1, lora: { rank: 1 } } }, "bad-input", /train is "full"/],
    ["training of no block", { ...OPTIONS, train: { lastBlocks: 0 } }, "bad-input", /train\.lastBlocks/],
    ["adapters without a rank", { ...OPTIONS, train: { lora: {} } }, "bad-input", /rank/],
    ["a mean that is no list", { ...OPTIONS, normalization: { mean: 0.5, std: [1] } }, "bad-input", /normalization\.mean is an array of numbers/],
  ])("is not made with %s", async (_, options, code, message) => {
    expect(await failure(Trainer.create(options as TrainerOptions))).toMatchObject({ name: "JepaError", code, message: expect.stringMatching(message) });
  });
});
