// Clips in Node with the real CPU module: npm run build:wasm cpu

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { pseudoRandom } from "../../www/bench/models.mjs";
import { Jepa, Trainer, sampleMasks, type ClipInput, type ImageInput, type PixelData, type TrainerOptions } from "../../www/src/index.js";
import { startServer, type Fault, type TestServer } from "./server.js";

const fixture = (path: string) => fileURLToPath(new URL(`../fixtures/${path}`, import.meta.url));
const json = (path: string) => JSON.parse(readFileSync(fixture(path), "utf8"));
const difference = (a: ArrayLike<number>, b: ArrayLike<number>) => {
  expect(a.length).toBe(b.length);
  return Array.from(a).reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);
};
const failure = (promise: Promise<unknown>) => promise.then(() => expect.unreachable("the call should have failed"), (error) => error);

const expected = json("vjepa2_tiny.json");
const { inputs } = json("manifest.json").files["vjepa2_tiny.json"];

/** Clips of the fixture, [batch, channels, frames, height, width], as frames of interleaved floats. */
function clips(name: string, { seed, shape, amp } = inputs[name]): PixelData[][] {
  const [batch, channels, frames, height, width] = shape;
  const pixels = pseudoRandom(seed, batch * channels * frames * height * width, amp);
  const plane = height * width;
  return Array.from({ length: batch }, (_, b) =>
    Array.from({ length: frames }, (_, t) => {
      const data = Float32Array.from({ length: plane * channels }, (_, i) => pixels[((b * channels + (i % channels)) * frames + t) * plane + Math.floor(i / channels)]!);
      return { data, width, height, channels };
    }),
  );
}

const load = () => Jepa.load(fixture("vjepa2_tiny_hf"), { backend: "cpu" });
const prepared = { preprocess: false } as const;
const flat = (value: number): ImageInput => ({ data: new Uint8Array(3 * 64).fill(value), width: 8, height: 8, channels: 3 });

describe("V-JEPA 2.1, from a file with encoder and predictor", () => {
  const { pred, pred_ctx, enc_hier, config: masks } = json("vjepa21_tiny.json");
  const { inputs, params } = json("manifest.json").files["vjepa21_tiny.json"];
  const config = {
    system: "vjepa2.1",
    imageSize: params.img,
    patchSize: params.patch,
    frames: params.frames,
    hiddenSize: params.embed,
    layers: params.depth,
    heads: params.heads,
    ropeGrid: params.rope_pretrained_grid,
    predictor: { hiddenSize: params.pred_dim, layers: params.pred_depth, heads: params.pred_heads },
  } as const;
  const load = () => Jepa.load(fixture("vjepa21_tiny.safetensors"), { backend: "cpu", config });
  const sum = (values: ArrayLike<number>) => Array.from(values).reduce((all, value) => all + value, 0);

  it("predicts what is hidden and what is seen as published", async () => {
    await using jepa = await load();
    const both = [];
    for (const [b, clip] of clips("clip", inputs.clip).entries()) {
      both.push(await jepa.predict(clip, { context: masks.ctx[0][b], targets: [masks.tgt[0][b]], ...prepared }));
    }
    for (const [name, published] of [["predicted", pred], ["contextPredicted", pred_ctx]] as const) {
      const [first, second] = both.map((prediction) => prediction[name]!);
      expect(first!.shape, name).toEqual([1, published.shape[1], published.shape[2]]);
      expect(difference(first!.data.subarray(0, published.first.length), published.first), name).toBeLessThan(5e-5);
      expect(difference(second!.data.subarray(-published.last.length), published.last), name).toBeLessThan(5e-5);
      const all = [...first!.data, ...second!.data];
      expect(Math.abs(sum(all) - published.sum), name).toBeLessThan(5e-5 * all.length);
      expect(Math.abs(sum(all.map(Math.abs)) - published.abs_sum), name).toBeLessThan(5e-5 * all.length);
    }
  });

  it("says something of the context beside each block", async () => {
    await using jepa = await load();
    const [context, targets] = [masks.ctx[0][0], masks.tgt[0][0]];
    const clip = clips("clip", inputs.clip)[0]!;
    const { contextPredicted } = await jepa.predict(clip, { context, targets: [targets.slice(0, 4), targets.slice(4)], ...prepared });
    const alone = await jepa.predict(clip, { context, targets: [targets.slice(4)], ...prepared });
    const size = alone.contextPredicted!.data.length;
    expect(contextPredicted!.shape).toEqual([2, context.length, pred_ctx.shape[2]]);
    expect(difference(contextPredicted!.data.subarray(size), alone.contextPredicted!.data)).toBeLessThan(1e-6);
    expect(difference(contextPredicted!.data.subarray(0, size), alone.contextPredicted!.data)).toBeGreaterThan(1e-3);
  });

  it("gives its four levels as published, the last of which is its embedding", async () => {
    await using jepa = await load();
    const batch = clips("clip", inputs.clip);
    const { data, shape, grid } = await jepa.embed(batch, { pool: "levels", ...prepared });
    expect(shape).toEqual(enc_hier.shape);
    expect(grid).toEqual([2, 4, 4]);
    expect(difference(data.subarray(0, enc_hier.first.length), enc_hier.first)).toBeLessThan(5e-5);
    expect(difference(data.subarray(-enc_hier.last.length), enc_hier.last)).toBeLessThan(5e-5);
    expect(Math.abs(sum(data.map(Math.abs)) - enc_hier.abs_sum)).toBeLessThan(5e-5 * data.length);
    const d = params.embed;
    const { data: last } = await jepa.embed(batch, { pool: "none", ...prepared });
    expect(last.length).toBe(data.length / 4);
    expect(difference(last, data.filter((_, i) => i % (4 * d) >= 3 * d))).toBeLessThan(1e-6);
    const { data: unit } = await jepa.embed(batch[0]!, { pool: "levels", normalize: true, ...prepared });
    expect(Math.hypot(...unit.subarray(0, 4 * d))).toBeCloseTo(1, 5);
  });

  it("alone has levels, and says something of the context", async () => {
    await using other = await Jepa.load(fixture("vjepa2_tiny_hf"), { backend: "cpu" });
    const clip = clips("clip")[0]!;
    expect(await failure(other.embed(clip, { pool: "levels", ...prepared }))).toMatchObject({ code: "bad-input", message: expect.stringMatching(/only V-JEPA 2\.1 has levels.*vjepa2/) });
    expect(await other.predict(clip, { context: [0, 1], targets: [[2]], ...prepared })).not.toHaveProperty("contextPredicted");
  });
});

describe("embedding clips", () => {
  it("gives the published numbers, for one clip and for several", async () => {
    await using jepa = await load();
    expect(jepa.config).toMatchObject({ system: "vjepa2", frames: 4, tubelet: 2, positions: "rope" });
    expect(jepa.grid).toEqual([2, 4, 4]);
    const [first, second] = clips("clip") as [PixelData[], PixelData[]];
    const { shape: size, first: start, last: end } = expected.enc_full;
    const one = await jepa.embed(first, { pool: "none", ...prepared });
    expect(one).toMatchObject({ shape: [size[1], size[2]], grid: [2, 4, 4] });
    expect(difference(one.data.subarray(0, start.length), start)).toBeLessThan(1e-4);
    const both = await jepa.embed([first, second], { pool: "none", ...prepared });
    expect(both.shape).toEqual(size);
    expect(difference(both.data.subarray(0, one.data.length), one.data)).toBeLessThan(1e-6);
    expect(difference(both.data.subarray(-end.length), end)).toBeLessThan(1e-4);
    expect((await jepa.embed(first, prepared)).shape).toEqual([size[2]]);
    expect((await jepa.embed([first], prepared)).shape).toEqual([1, size[2]]);
  });

  it("takes other sizes, longer clips and single pictures", async () => {
    await using jepa = await load();
    for (const [name, key, grid] of [["clip_ns", "enc_nonsquare_32x48", [2, 4, 6]], ["clip_long", "enc_8frames", [4, 4, 4]]] as const) {
      const result = await jepa.embed(clips(name)[0]!, { pool: "none", ...prepared });
      expect(result.grid).toEqual(grid);
      const { first } = expected[key];
      expect(difference(result.data.subarray(0, first.length), first)).toBeLessThan(1e-4);
    }
    const single = await jepa.embed(clips("clip")[0]![0]!, { pool: "none", ...prepared });
    const { first } = expected.hf_single_frame;
    expect(single.grid).toEqual([1, 4, 4]);
    expect(difference(single.data.subarray(0, first.length), first)).toBeLessThan(1e-4);
  });

  it("takes a clip as one array", async () => {
    await using jepa = await load();
    const frames = Array.from({ length: 4 }, (_, t) => ({ data: Uint8Array.from({ length: 40 * 36 * 3 }, (_, i) => (i * (t + 3)) % 251), width: 40, height: 36, channels: 3 }));
    const data = new Uint8Array(frames.flatMap((frame) => [...frame.data]));
    const clip: ClipInput = { data, frames: 4, width: 40, height: 36 };
    const [listed, whole] = [await jepa.embed(frames), await jepa.embed(clip)];
    expect(whole).toEqual(listed);
    expect((await jepa.embed([clip, clip])).shape).toEqual([2, 64]);
  });

  it("says what is wrong with a clip", async () => {
    await using jepa = await load();
    const refused = async (clip: unknown, code: string, words: RegExp) => {
      const error = await failure(jepa.embed(clip as ClipInput));
      expect(error).toMatchObject({ code });
      expect(error.message).toMatch(words);
    };
    await refused([], "bad-input", /no frames/);
    await refused([flat(1), flat(2), flat(3)], "bad-input", /3 frames cannot be cut into tubelets of 2: give 2 or 4/);
    await refused([[flat(1), flat(2)], [flat(1)]], "bad-input", /Clip 1 has 1 frames and clip 0 has 2/);
    await refused({ data: new Uint8Array(10), frames: 3, width: 2, height: 2 }, "bad-input", /does not have 10 values/);
    await refused([flat(1), { data: new Uint8Array(5), width: 1, height: 1, channels: 3 }], "bad-input", /The clip, frame 1: .*3 values/);
    const wide: ImageInput = { data: new Float32Array(3 * 40 * 32), width: 40, height: 32, channels: 3 };
    const square: ImageInput = { data: new Float32Array(3 * 32 * 32), width: 32, height: 32, channels: 3 };
    const error = await failure(jepa.embed([square, wide], prepared));
    expect(error).toMatchObject({ code: "bad-input", message: expect.stringMatching(/The clip, frame 1/) });
    const nan = { ...square, data: new Float32Array(3 * 32 * 32).fill(NaN) };
    expect(await failure(jepa.embed([nan, nan], prepared))).toMatchObject({ code: "bad-input", message: expect.stringMatching(/finite|NaN/) });
  });

  it("resizes and crops each frame by itself", async () => {
    await using jepa = await load();
    // Of 36 pixels on the shortest edge, which is what they are resized to: the middle 32 of each side are seen.
    const sample = (x: number, y: number, channel: number) => (x * 37 + y * 59 + channel * 83) % 256;
    const frame = (width: number, height: number): ImageInput => {
      const [left, top] = [(width - 36) / 2, (height - 36) / 2];
      const data = Uint8Array.from({ length: width * height * 3 }, (_, i) => sample((Math.floor(i / 3) % width) - left + 100, Math.floor(i / 3 / width) - top + 100, i % 3));
      return { data, width, height, channels: 3 };
    };
    const square = frame(36, 36);
    const alike = await jepa.embed([square, square], { pool: "none" });
    expect((await jepa.embed([frame(60, 36), frame(36, 44)], { pool: "none" })).data).toEqual(alike.data);
    const other = await jepa.embed([square, frame(72, 72)], { pool: "none" });
    expect(other.shape).toEqual(alike.shape);
    expect(difference(other.data, alike.data)).toBeGreaterThan(1e-2);
  });

  it("refuses numbers that are none, in clips and in streams", async () => {
    await using jepa = await load();
    const frame = (value: number): ImageInput => ({ data: new Float32Array(3 * 64).fill(0.5).fill(value, 5, 6), width: 8, height: 8, channels: 3 });
    for (const bad of [NaN, Infinity]) {
      const message = expect.stringMatching(new RegExp(`^The clip, frame 1: Sample 5 of the picture is ${bad === Infinity ? "inf" : "NaN"}; samples must be finite`));
      expect(await failure(jepa.embed([frame(0), frame(bad)]))).toMatchObject({ code: "bad-input", message });
      const windows: number[] = [];
      const stream = (async () => {
        for await (const { first } of jepa.embedStream([frame(0), frame(1), frame(0), frame(bad)], { window: 2, hop: 2 })) windows.push(first);
      })();
      expect(await failure(stream)).toMatchObject({ code: "bad-input", message });
      expect(windows).toEqual([0]);
    }
    expect((await jepa.embed([frame(0), frame(1)])).shape).toEqual([64]);
  });

  it("embeds the last frames of a stream that is shorter than a window", async () => {
    await using jepa = await load();
    const frames = [flat(10), flat(200), flat(90)];
    const windows = [];
    for await (const window of jepa.embedStream(frames)) windows.push(window);
    expect(windows).toMatchObject([{ first: 1, last: 2 }]);
    expect(windows[0]!.data).toEqual((await jepa.embed(frames.slice(1))).data);
  });
});

describe("predicting what happens", () => {
  it("gives what transformers gives when the context has seen everything", async () => {
    await using jepa = await load();
    const { ctx: [contexts], tgt: [targets] } = expected.config;
    for (const [b, clip] of clips("clip").entries()) {
      const options = { context: contexts[b], targets: [targets[b]], contextFrom: "whole-input", maskIndex: 1, ...prepared } as const;
      const { predicted, error } = await jepa.predict(clip, options);
      const size = predicted.data.length;
      expect(difference(predicted.data, expected.hf_pred.data.slice(b * size, (b + 1) * size))).toBeLessThan(1e-4);
      expect(error.length).toBe(targets[b].length);
    }
  });

  it("gives the published predictions and loss when the context has seen the visible tokens alone", async () => {
    await using jepa = await load();
    const { ctx: [contexts], tgt: [targets] } = expected.config;
    const errors: number[] = [];
    for (const [b, clip] of clips("clip").entries()) {
      const { predicted, error } = await jepa.predict(clip, { context: contexts[b], targets: [targets[b]], maskIndex: 1, ...prepared });
      const size = predicted.data.length;
      expect(difference(predicted.data, expected.pred_mask_index_1.data.slice(b * size, (b + 1) * size))).toBeLessThan(1e-4);
      errors.push(...error);
    }
    expect(errors.reduce((a, b) => a + b, 0) / errors.length).toBeCloseTo(expected.l1_loss_mi1, 5);
  });

  it("refuses masks of another clip and mask tokens that there are not", async () => {
    await using jepa = await load();
    const clip = clips("clip")[0]!;
    expect(await failure(jepa.predict(clip, { context: [0], targets: [[32]], ...prepared }))).toMatchObject({ code: "bad-mask" });
    expect(await failure(jepa.predict(clip, { context: [0], targets: [[1]], maskIndex: 10, ...prepared }))).toMatchObject({ code: "bad-mask" });
    expect(await failure(jepa.predict([clip, clip] as never, { context: [0], targets: [[1]] }))).toMatchObject({ code: "bad-input" });
  });
});

describe("a PyTorch archive", () => {
  it("is the same model, as a file and as bytes", async () => {
    await using hf = await load();
    const { predictor, ...config } = hf.config;
    const bytes = readFileSync(fileURLToPath(new URL("../data/vjepa2_tiny.pt", import.meta.url)));
    const clip = clips("clip")[0]!;
    const wanted = await hf.embed(clip, { pool: "none", ...prepared });
    for (const source of [fileURLToPath(new URL("../data/vjepa2_tiny.pt", import.meta.url)), { "vjepa2.pt": bytes }]) {
      await using jepa = await Jepa.load(source, { backend: "cpu", config: { ...config, predictor } });
      expect((await jepa.embed(clip, { pool: "none", ...prepared })).data).toEqual(wanted.data);
    }
    expect(await failure(Jepa.load({ "cut.pt": bytes.subarray(0, bytes.length - 100) }, { backend: "cpu", config }))).toMatchObject({ code: "bad-checkpoint" });
  });

  describe("on a server", () => {
    const bytes = readFileSync(fileURLToPath(new URL("../data/vjepa2_tiny.pt", import.meta.url)));
    let server: TestServer;
    beforeAll(async () => {
      server = await startServer();
      server.files.set("vjepa2.pt", bytes);
    });
    afterAll(() => server.close());

    const FAULTS: [string, Fault][] = [
      ["that gives ranges", {}],
      ["that gives none", { noRanges: true }],
      ["that gives none, at a connection that breaks", { noRanges: true, cutAfter: 300_000, cuts: 1 }],
      ["whose connection breaks all the time", { cutAfter: 100_000 }],
    ];
    it.each(FAULTS)("%s is the same model", async (_, fault) => {
      await using hf = await load();
      const { config } = hf;
      const clip = clips("clip")[0]!;
      await using given = await Jepa.load({ "vjepa2.pt": bytes }, { backend: "cpu", config });
      server.faults.set("vjepa2.pt", fault);
      await using jepa = await Jepa.load(`${server.url}vjepa2.pt`, { backend: "cpu", config });
      expect((await jepa.embed(clip, { pool: "none", ...prepared })).data).toEqual((await given.embed(clip, { pool: "none", ...prepared })).data);
      const masks = { context: [0, 5, 9], targets: [[2, 30]], ...prepared };
      expect(await jepa.predict(clip, masks)).toEqual(await given.predict(clip, masks));
    });

    it("that does not say how long the file is cannot be read from", async () => {
      await using hf = await load();
      server.faults.set("vjepa2.pt", { noRanges: true, chunked: true });
      const error = await failure(Jepa.load(`${server.url}vjepa2.pt`, { backend: "cpu", config: hf.config }));
      expect(error).toMatchObject({ code: "unsupported", message: expect.stringContaining("does not say how long the file is") });
    });
  });
});

describe("training on clips", () => {
  const MODEL = { system: "vjepa2", imageSize: 32, patchSize: 8, frames: 4, hiddenSize: 24, layers: 2, heads: 2, predictor: { hiddenSize: 24, layers: 1, heads: 2 } } as const;
  const OPTIONS: TrainerOptions = { model: MODEL, objective: "vjepa", backend: "cpu", batchSize: 2, seed: 3, schedule: { steps: 30, lr: 3e-3, startLr: 1e-3, warmupSteps: 3 } };
  const CLIPS: ClipInput[] = Array.from({ length: 5 }, (_, i) =>
    Array.from({ length: 4 }, (_, t) => {
      const data = Uint8Array.from({ length: 36 * 40 * 3 }, (_, at) => 128 + 100 * Math.sin(((Math.floor(at / 3) % 40) + t * (i + 1)) / (2 + i)));
      return { data, width: 40, height: 36, channels: 3 };
    }),
  );

  it("learns, saves, resumes bit for bit and exports", async () => {
    await using trainer = await Trainer.create(OPTIONS);
    const losses: number[] = [];
    for await (const { loss } of trainer.run(CLIPS, { steps: 6 })) losses.push(loss);
    const save = await trainer.save();
    for await (const { loss } of trainer.run(CLIPS, { steps: 6 })) losses.push(loss);
    await using again = await Trainer.resume(save, { backend: "cpu" });
    const repeated: number[] = [];
    for await (const { loss } of again.run(CLIPS, { steps: 6 })) repeated.push(loss);
    expect(repeated).toEqual(losses.slice(6));
    expect(losses.every(Number.isFinite)).toBe(true);
    const files = await again.export("hf");
    expect(Object.keys(files).sort()).toEqual(["config.json", "model.safetensors", "video_preprocessor_config.json"]);
    await using exported = await Jepa.load(files as never, { backend: "cpu" });
    await using model = await again.model();
    const difference_ = difference((await exported.embed(CLIPS[0]!)).data, (await model.embed(CLIPS[0]!)).data);
    expect(difference_).toBeLessThan(1e-6);
    const { context, targets } = sampleMasks(model.grid, { strategy: "vjepa-multiblock3d", seed: 1 });
    const { error } = await model.predict(CLIPS[0]!, { context: context[0]!, targets: targets.map(([block]) => block!) });
    expect(error.every(Number.isFinite)).toBe(true);
  });

  it("has the schedule of the model's generation unless it is told another", async () => {
    // The first of 40 steps of warm-up, and of 375 over which V-JEPA 1 stretches half a cosine.
    for (const [system, steps, lr] of [["vjepa", 300, 6.25e-4], ["vjepa2", 800, 5.25e-4], ["vjepa2.1", 1000, 6e-4]] as const) {
      const model = { ...MODEL, system, layers: 4 };
      await using trainer = await Trainer.create({ model, objective: "vjepa", backend: "cpu", batchSize: 2, schedule: { steps }, optimizer: { clip: null } });
      const { lr: first, weightDecay, ema } = await trainer.step([CLIPS[0]!, CLIPS[1]!]);
      const start = system === "vjepa" ? 2e-4 : 1e-4;
      expect(first, system).toBeCloseTo(start + (lr - start) / 40, 12);
      expect(weightDecay, system).toBeCloseTo(system === "vjepa" ? 0.4 - 0.18 * (1 + Math.cos(Math.PI / 375)) : 0.04, 12);
      expect(ema, system).toBeCloseTo(system === "vjepa" ? 0.998 : 0.99925, 12);
    }
  });

  it("refuses pictures, clips of another length and pictures' objectives", async () => {
    await using trainer = await Trainer.create(OPTIONS);
    expect(await failure(trainer.step([flat(1), flat(2)]))).toMatchObject({ code: "bad-input", message: expect.stringMatching(/no clip/) });
    expect(await failure(trainer.step([[flat(1), flat(2)], [flat(1), flat(2)]]))).toMatchObject({ code: "bad-input", message: expect.stringMatching(/2 frames .* takes 4/) });
    expect(await failure(Trainer.create({ ...OPTIONS, objective: "ijepa" }))).toMatchObject({ code: "bad-config" });
    expect((await trainer.step([CLIPS[0]!, CLIPS[1]!])).step).toBe(1);
  });
});
