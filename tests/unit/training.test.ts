// Prediction and training in Node with the real CPU module: npm run build:wasm cpu

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it, vi } from "vitest";
import { pseudoRandom } from "../../www/bench/models.mjs";
import { Jepa, Trainer, type ImageInput, type Prediction, type TrainerOptions, type TrainMetrics } from "../../www/src/index.js";

const fixture = (path: string) => fileURLToPath(new URL(`../fixtures/${path}`, import.meta.url));
const json = (path: string) => JSON.parse(readFileSync(fixture(path), "utf8"));
const difference = (a: ArrayLike<number>, b: ArrayLike<number>) => {
  expect(a.length).toBe(b.length);
  return Array.from(a).reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);
};
const failure = (promise: Promise<unknown>) => promise.then(() => expect.unreachable("the call should have failed"), (error) => error);

describe("predict", () => {
  const expected = json("ijepa_tiny.json");
  const { params, inputs } = json("manifest.json").files["ijepa_tiny.json"];
  const config = {
    imageSize: params.img,
    patchSize: params.patch,
    hiddenSize: params.embed,
    layers: params.depth,
    heads: params.heads,
    mlpRatio: params.mlp_ratio_encoder,
    layerNormEps: params.ln_eps,
    predictor: { hiddenSize: params.pred_dim, layers: params.pred_depth, heads: params.pred_heads, mlpRatio: params.mlp_ratio_predictor },
  };
  const load = (options = {}) => Jepa.load(fixture("ijepa_tiny.safetensors"), { backend: "cpu", config, ...options });

  it("gives the predictions, targets and loss of the published implementation", async () => {
    await using jepa = await load();
    const [batch, channels, height, width] = inputs.image.shape;
    const pixels = pseudoRandom(inputs.image.seed, batch * channels * height * width, inputs.image.amp);
    const { masks_ctx: [context], masks_pred: blocks } = expected.config;
    const predictions: Prediction[] = [];
    for (let b = 0; b < batch; b++) {
      const planes = pixels.subarray(b * channels * height * width);
      const data = Float32Array.from({ length: channels * height * width }, (_, i) => planes[(i % channels) * height * width + Math.floor(i / channels)]!);
      const targets = blocks.map((block: number[][]) => block[b]);
      predictions.push(await jepa.predict({ data, width, height, channels }, { context: context[b], targets, preprocess: false }));
    }
    const size = blocks[0][0].length * params.embed;
    // The fixture has all pictures of the first block first.
    const rows = (of: (prediction: Prediction) => Float32Array) =>
      blocks.flatMap((_: unknown, block: number) => predictions.flatMap((prediction) => [...of(prediction).subarray(block * size, (block + 1) * size)]));
    expect(predictions[0]!.predicted.shape).toEqual([blocks.length, blocks[0][0].length, params.embed]);
    expect(difference(rows(({ predicted }) => predicted.data), expected.pred.data)).toBeLessThan(2e-5);
    expect(difference(rows(({ target }) => target.data), expected.targets.data)).toBeLessThan(2e-5);
    const errors = predictions.flatMap(({ error }) => [...error]);
    expect(errors.reduce((a, b) => a + b, 0) / errors.length).toBeCloseTo(expected.losses_3_steps[0], 5);
  });

  it("needs the predictor", async () => {
    await using jepa = await load({ predictor: false });
    expect(await failure(jepa.predict({ data: new Uint8Array(3), width: 1, height: 1 }, { context: [0], targets: [[1]] }))).toMatchObject({ code: "unsupported" });
    expect((await jepa.embed({ data: new Uint8Array(3), width: 1, height: 1 })).shape).toEqual([params.embed]);
  });
});

const MODEL = { imageSize: 32, patchSize: 8, hiddenSize: 24, layers: 2, heads: 2, predictor: { hiddenSize: 12, layers: 2, heads: 2 } };
const OPTIONS: TrainerOptions = { model: MODEL, backend: "cpu", batchSize: 4, seed: 3, schedule: { steps: 40, lr: 3e-3, startLr: 1e-3, warmupSteps: 4 } };
const create = (options: Partial<TrainerOptions> = {}) => Trainer.create({ ...OPTIONS, ...options });

/** Pictures that differ in colour, and in direction and width of their stripes. */
const PICTURES: ImageInput[] = Array.from({ length: 11 }, (_, i) => {
  const [width, height, channels] = [40, 36, 3];
  const data = Uint8Array.from({ length: width * height * channels }, (_, at) => {
    const [x, y, c] = [Math.floor(at / channels) % width, Math.floor(at / channels / width), at % channels];
    return 128 + 100 * Math.sin((x * Math.cos(i) + y * Math.sin(i)) / (1.5 + (i % 4)) + c * i);
  });
  return { data, width, height, channels };
});

async function steps(trainer: Trainer, count: number): Promise<TrainMetrics[]> {
  const metrics: TrainMetrics[] = [];
  for await (const each of trainer.run(PICTURES, { steps: count })) metrics.push(each);
  return metrics;
}
/** All that is said of a step but for how long it took. */
const numbers = (metrics: TrainMetrics[]) => metrics.map(({ ms: _, ...rest }) => rest);
const mean = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length;

/** Tensors of a safetensors file by name. */
function tensors(file: Uint8Array<ArrayBuffer>): Map<string, Float32Array> {
  const length = Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true));
  const header: Record<string, { data_offsets: [number, number] }> = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + length)));
  delete header.__metadata__;
  return new Map(Object.entries(header).map(([name, { data_offsets: [begin, end] }]) => [name, new Float32Array(file.slice(8 + length + begin, 8 + length + end).buffer)]));
}

describe("a trainer", () => {
  it("says what it is", async () => {
    await using trainer = await create();
    expect(trainer.info).toMatchObject({ backend: "cpu", objective: "ijepa", step: 0, steps: 40, batchSize: 4, accumulate: 1, grid: [1, 4, 4] });
    expect(trainer.config).toMatchObject({ hiddenSize: 24, layers: 2, predictor: { hiddenSize: 12 } });
    expect(trainer.info.trainable).toBeLessThanOrEqual(trainer.info.parameters);
    // By hand: patches, two blocks, norm; the fixed table is no weight that is trained.
    const block = (d: number) => 4 * d + 4 * d * d + 4 * d + 8 * d * d + 5 * d;
    const encoder = 24 * 3 * 64 + 24 + 2 * block(24) + 2 * 24;
    const predictor = 24 * 12 + 12 + 12 + 2 * block(12) + 2 * 12 + 12 * 24 + 24;
    expect(trainer.info.trainable).toBe(encoder + predictor);
  });

  it.each(["ijepa", "lejepa"] as const)("lowers the loss of %s", async (kind) => {
    // Eight pictures weigh less in SIGReg than the 256 of the published weight.
    const options = { objective: { kind: "lejepa", lambda: 0.2 }, batchSize: 8, projector: { hiddenSize: 32, size: 8 } } as const;
    await using trainer = await create(kind === "lejepa" ? options : {});
    const metrics = await steps(trainer, 40);
    expect(metrics.map(({ step }) => step)).toEqual(Array.from({ length: 40 }, (_, i) => i + 1));
    const losses = metrics.map(({ loss }) => loss);
    expect(mean(losses.slice(-8))).toBeLessThan(0.9 * mean(losses.slice(0, 8)));
    const [first, last] = [metrics[0]!, metrics[39]!];
    // The schedule is stepped before it is used: a quarter of the warm-up is over.
    expect(first.lr).toBeCloseTo(1e-3 + (3e-3 - 1e-3) / 4, 8);
    expect(last.lr).toBeCloseTo(1e-6, 8);
    expect(last.weightDecay).toBeCloseTo(0.4, 8);
    expect(first.ema).toBeCloseTo(kind === "ijepa" ? 0.996 : 1, 8);
    expect(first.std).toBeGreaterThan(0);
    expect(first.effectiveRank).toBeGreaterThan(1);
    expect(first.effectiveRank).toBeLessThanOrEqual(trainer.info.batchSize - 1);
    expect(first.gradNorm).toBeGreaterThan(0);
    expect(Object.keys(first.parts)).toEqual(kind === "ijepa" ? [] : ["invariance", "sigreg"]);
    const { context, targets } = await trainer.lastMasks();
    if (kind === "lejepa") {
      expect([context, targets]).toEqual([[], []]);
      return;
    }
    expect(context).toHaveLength(4);
    expect(targets).toHaveLength(4);
    for (const mask of [...context, ...targets.flat()]) {
      expect(mask.length).toBeGreaterThan(0);
      expect([...mask]).toEqual([...new Set(mask)].sort((a, b) => a - b));
      expect(Math.max(...mask)).toBeLessThan(16);
    }
  });

  it.each([
    ["ijepa", {}],
    ["ijepa", { accumulate: 2 }],
    ["lejepa", { projector: { hiddenSize: 32, size: 8 } }],
  ] as const)("of %s resumes bit for bit: %o", async (objective, options) => {
    await using whole = await create({ objective, ...options });
    const expected = await steps(whole, 10);
    await using first = await create({ objective, ...options });
    const found = await steps(first, 5);
    const save = await first.save();
    await steps(first, 1);
    await using second = await Trainer.resume(save, { backend: "cpu" });
    expect(second.info).toEqual({ ...whole.info, step: 5 });
    expect(await second.save()).toEqual(save);
    found.push(...(await steps(second, 5)));
    expect(numbers(found)).toEqual(numbers(expected));
    expect(await second.save()).toEqual(await whole.save());
    expect(await second.lastMasks()).toEqual(await whole.lastMasks());
  });

  it("is not changed by calls that fail or are aborted", async () => {
    await using whole = await create();
    const expected = await steps(whole, 4);
    await using trainer = await create();
    const found = await steps(trainer, 2);
    const broken = { data: new Uint8Array([1, 2, 3]), width: 1, height: 1, channels: 3 };
    expect(await failure(trainer.step([PICTURES[0]!, PICTURES[1]!, PICTURES[2]!, new Blob(["no picture"])]))).toMatchObject({ code: "bad-input", message: expect.stringMatching(/^Picture 3: /) });
    expect(await failure(trainer.step([broken]))).toMatchObject({ code: "bad-input" });
    expect(await failure(trainer.step(PICTURES.slice(0, 4), { signal: AbortSignal.abort() }))).toMatchObject({ code: "aborted" });
    found.push(...(await steps(trainer, 2)));
    expect(numbers(found)).toEqual(numbers(expected));
    expect(await trainer.save()).toEqual(await whole.save());
  });

  it("gives other numbers for another seed", async () => {
    await using one = await create();
    await using other = await create({ seed: 4 });
    expect((await steps(one, 1))[0]!.loss).not.toBe((await steps(other, 1))[0]!.loss);
  });

  it("takes different pictures in a step, and all of them in an epoch", async () => {
    await using trainer = await create();
    const asked: number[][] = [];
    const dataset = {
      length: PICTURES.length,
      get(index: number) {
        asked.at(-1)!.push(index);
        return PICTURES[index]!;
      },
    };
    for (let i = 0; i < 8; i++) {
      asked.push([]);
      await trainer.run(dataset, { steps: 1 }).next();
    }
    for (const indices of asked) expect(new Set(indices).size).toBe(4);
    // Twice as many as there are, so that none can be missing but those of an incomplete batch.
    expect(new Set(asked.flat()).size).toBe(PICTURES.length);
    expect(asked.slice(0, 2)).not.toEqual(asked.slice(2, 4));
  });

  it("exports a model that embeds as its own does", async () => {
    await using trainer = await create({ normalization: { mean: [0.4, 0.5, 0.6], std: [0.2, 0.25, 0.3] } });
    await steps(trainer, 6);
    const files = await trainer.export("hf");
    expect(Object.keys(files).sort()).toEqual(["config.json", "model.safetensors", "preprocessor_config.json"]);
    expect(JSON.parse(files["config.json"])).toMatchObject({ model_type: "ijepa", hidden_size: 24, num_hidden_layers: 2, patch_size: 8, image_size: 32 });
    expect(JSON.parse(files["preprocessor_config.json"])).toMatchObject({ image_mean: [0.4, 0.5, 0.6] });
    await using own = await trainer.model();
    await using loaded = await Jepa.load(files, { backend: "cpu" });
    const pictures = PICTURES.slice(0, 3);
    const expected = await own.embed(pictures, { pool: "none" });
    expect(expected.shape).toEqual([3, 16, 24]);
    expect((await loaded.embed(pictures, { pool: "none" })).data).toEqual(expected.data);
    expect(await failure(loaded.predict(PICTURES[0]!, { context: [0], targets: [[1]] }))).toMatchObject({ code: "unsupported" });
    // Later steps do not change it.
    await steps(trainer, 1);
    expect((await own.embed(pictures, { pool: "none" })).data).toEqual(expected.data);
  });

  it("exports predictor and both encoders, which predict as its own do and can be trained on", async () => {
    await using trainer = await create();
    await steps(trainer, 6);
    const files = await trainer.export("original");
    await using own = await trainer.model();
    await using loaded = await Jepa.load(files, { backend: "cpu" });
    const { context, targets } = await trainer.lastMasks();
    const masks = { context: context[0]!, targets: targets.map(([block]) => block!) };
    const [expected, found] = [await own.predict(PICTURES[0]!, masks), await loaded.predict(PICTURES[0]!, masks)];
    expect(found).toEqual(expected);
    expect(expected.error.every((value) => value > 0)).toBe(true);
    await using again = await Trainer.create({ from: files, backend: "cpu", batchSize: 4, seed: 9, schedule: { steps: 10 } });
    const before = tensors((await again.export("original"))["model.safetensors"] as Uint8Array<ArrayBuffer>);
    expect(before).toEqual(tensors(files["model.safetensors"] as Uint8Array<ArrayBuffer>));
    expect((await steps(again, 2)).map(({ step }) => step)).toEqual([1, 2]);
  });

  it("goes on from an encoder alone, with a fresh predictor whose size is given", async () => {
    await using source = await create();
    await steps(source, 2);
    const files = await source.export("hf");
    const without = await failure(Trainer.create({ from: files, backend: "cpu", batchSize: 4 }));
    expect(without).toMatchObject({ code: "bad-config", message: expect.stringContaining("predictor") });
    await using trainer = await Trainer.create({ from: files, model: MODEL, backend: "cpu", batchSize: 4 });
    await using expected = await source.model();
    await using found = await trainer.model();
    expect((await found.embed(PICTURES[0]!)).data).toEqual((await expected.embed(PICTURES[0]!)).data);
    expect((await steps(trainer, 1))[0]!.step).toBe(1);
  });

  it("trains the last blocks of a loaded model, and nothing before them", async () => {
    await using source = await create();
    await using trainer = await Trainer.create({ from: await source.export("original"), backend: "cpu", batchSize: 4, train: { lastBlocks: 1 }, schedule: { steps: 4 } });
    const contents = async () => tensors((await trainer.export("original"))["model.safetensors"] as Uint8Array<ArrayBuffer>);
    const before = await contents();
    await steps(trainer, 2);
    const after = await contents();
    const changed = [...before].filter(([name, values]) => difference(values, after.get(name)!) > 0).map(([name]) => name);
    expect(changed.some((name) => name.startsWith("encoder.blocks.1."))).toBe(true);
    expect(changed.some((name) => name.startsWith("predictor."))).toBe(true);
    expect(changed.filter((name) => /^encoder\.(blocks\.0\.|patch_embed|pos_embed)/.test(name))).toEqual([]);
    expect(trainer.info.trainable).toBeLessThan(source.info.trainable);
  });

  it("warns when embeddings collapse", async () => {
    const onWarning = vi.fn();
    const schedule = { steps: 200, lr: 1e-2, startLr: 1e-2, finalLr: 1e-2, warmupSteps: 0, ema: 0, finalEma: 0, weightDecay: 0, finalWeightDecay: 0 };
    await using trainer = await create({ objective: { kind: "ijepa", stopGradient: false }, schedule, onWarning });
    for await (const { warning } of trainer.run(PICTURES)) if (warning !== undefined) break;
    const [warning, metrics] = onWarning.mock.calls[0] as [string, TrainMetrics];
    expect(warning).toMatch(/collaps/);
    expect(metrics.warning).toBe(warning);
    expect(metrics.step).toBeGreaterThan(1);
  });

  it("refuses a step whose loss is no number, and keeps the state before it", async () => {
    const schedule = { steps: 40, lr: 1e30, startLr: 1e30, warmupSteps: 0 };
    await using trainer = await create({ schedule });
    let kept = await trainer.save();
    const run = async () => {
      for (;;) {
        await steps(trainer, 1);
        kept = await trainer.save();
      }
    };
    const error = await failure(run());
    expect(error).toMatchObject({ name: "JepaError", code: "bad-input", message: expect.stringMatching(/loss|gradient of \w+\./) });
    expect(await trainer.save()).toEqual(kept);
  });

  it.each([
    ["an objective of clips for a model of pictures", { objective: "vjepa" }, "bad-config"],
    ["a patch that does not fit", { model: { ...MODEL, patchSize: 5 } }, "bad-config"],
    ["an unknown preset", { model: "vit-enormous" }, "bad-config"],
    ["masks that cannot be", { masks: { strategy: "ijepa-multiblock", predMaskScale: [2, 3] } }, "bad-mask"],
    ["a number that is out of range", { optimizer: { beta1: 1 } }, "bad-config"],
    ["an objective's option that there is not", { objective: { kind: "ijepa", stopGradients: false } }, "bad-config"],
    ["too few means", { normalization: { mean: [0.5], std: [0.5] } }, "bad-config"],
  ])("refuses %s", async (_, options, code) => {
    const error = await failure(create(options as TrainerOptions));
    expect(error).toMatchObject({ name: "JepaError", code });
    expect(error.message.length).toBeGreaterThan(20);
  });

  it.each([
    ["no save", new TextEncoder().encode("no save of a trainer, whatever it is")],
    ["nothing", new Uint8Array(0)],
  ])("is not resumed from %s", async (_, save) => {
    expect(await failure(Trainer.resume(save, { backend: "cpu" }))).toMatchObject({ name: "JepaError", code: "bad-checkpoint" });
  });

  it("is not resumed from a save that is cut off or of another kind", async () => {
    await using trainer = await create();
    await steps(trainer, 1);
    const save = await trainer.save();
    expect(await failure(Trainer.resume(save.subarray(0, save.length - 100), { backend: "cpu" }))).toMatchObject({ code: "bad-checkpoint" });
    const { "model.safetensors": weights } = await trainer.export("hf");
    expect(await failure(Trainer.resume(weights, { backend: "cpu" }))).toMatchObject({ code: "bad-checkpoint" });
  });
});
