// Attentive probes in Node with the real CPU module: npm run build:wasm core cpu

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { classifierCheckpoint } from "../../scripts/fixtures.mjs";
import { pseudoRandom } from "../../www/bench/models.mjs";
import { AttentiveProbe, Jepa, LinearProbe, type AttentiveProbeOptions, type FitProgress, type PixelData } from "../../www/src/index.js";

const fixture = (path: string) => fileURLToPath(new URL(`../fixtures/${path}`, import.meta.url));
const json = (path: string) => JSON.parse(readFileSync(fixture(path), "utf8"));
const failure = (promise: Promise<unknown>) => promise.then(() => expect.unreachable("the call should have failed"), (error) => error);
const cpu = { backend: "cpu" } as const;
const difference = (a: ArrayLike<number>, b: ArrayLike<number>) => {
  expect(a.length).toBe(b.length);
  return Array.from(a).reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);
};

/** Clips of a fixture, [batch, channels, frames, height, width], as frames of interleaved floats. */
function clipsOf(file: string): PixelData[][] {
  const { seed, shape, amp } = json("manifest.json").files[file].inputs.clip;
  const [batch, channels, frames, height, width] = shape;
  const plane = height * width;
  const pixels = pseudoRandom(seed, batch * channels * frames * plane, amp);
  return Array.from({ length: batch }, (_, b) =>
    Array.from({ length: frames }, (_, t) => {
      const data = Float32Array.from({ length: plane * channels }, (_, i) => pixels[((b * channels + (i % channels)) * frames + t) * plane + Math.floor(i / channels)]!);
      return { data, width, height, channels };
    }),
  );
}

describe("published probes", () => {
  it.each([
    ["vjepa2_tiny", "vjepa2_tiny_probe", "vjepa2_tiny_hf", undefined, 4, 2e-5],
    ["vjepa1_tiny", "vjepa1_tiny", "vjepa1_tiny.safetensors", "vjepa1", 1, 1e-5],
  ] as const)("give the published scores: %s", async (name, file, model, system, depth, tolerance) => {
    const expected = json(`${name}.json`);
    const { img, frames, patch, tubelet, embed, depth: layers, heads, pred_dim, pred_depth, pred_heads } = expected.config;
    const config = system && {
      ...{ system: "vjepa" as const, imageSize: img, patchSize: patch, frames, tubelet, hiddenSize: embed, layers, heads },
      predictor: { hiddenSize: pred_dim, layers: pred_depth, heads: pred_heads },
    };
    await using jepa = await Jepa.load(fixture(model), { ...cpu, ...(config ? { config, predictor: false } : {}) });
    const tokens = await jepa.embed(clipsOf(`${name}.json`), { pool: "none", preprocess: false });
    const { probe_heads } = json("manifest.json").files[`${name}.json`].params;
    await using probe = await AttentiveProbe.load(fixture(`${file}.safetensors`), { ...cpu, heads: probe_heads });
    expect(probe.config).toEqual({ hiddenSize: embed, depth, heads: probe_heads });
    const { shape, data } = expected.probe_logits;
    const { logits, scores, labels, classes } = await probe.predict(tokens);
    expect(difference(logits, data)).toBeLessThan(tolerance);
    expect(classes).toEqual([0, 1, 2, 3, 4]);
    for (let i = 0; i < shape[0]; i++) {
      const row: number[] = data.slice(i * 5, i * 5 + 5);
      const powers = row.map(Math.exp);
      const total = powers.reduce((a, b) => a + b, 0);
      expect(difference(scores.slice(i * 5, i * 5 + 5), powers.map((power) => power / total))).toBeLessThan(1e-5);
      expect(labels[i]).toBe(row.indexOf(Math.max(...row)));
    }
  });

  it("classify with the encoder of their own folder, as Hugging Face's, and with names", async () => {
    const { num_attention_heads: _, ...config } = json("vjepa2_tiny_hf/config.json");
    const { probe_heads, probe_ln_eps } = json("manifest.json").files["vjepa2_tiny.json"].params;
    const names = ["wave", "push", "fold", "tear", "drop"];
    // The fixture's probe has its own number of heads and epsilon; the folder of Hugging Face has the encoder's.
    expect(json("vjepa2_tiny_hf/config.json").num_attention_heads).toBe(2);
    const files = {
      "config.json": JSON.stringify({ ...config, num_attention_heads: 2, id2label: Object.fromEntries(names.map((name, i) => [i, name])) }),
      "model.safetensors": new Blob(classifierCheckpoint()),
    };
    await using jepa = await Jepa.load(files, cpu);
    expect(jepa.classes).toEqual(names);
    const clips = clipsOf("vjepa2_tiny.json");
    const whole = await jepa.classify(clips, { preprocess: false });
    expect(whole.classes).toEqual(names);
    const { data } = json("vjepa2_tiny.json").probe_logits;
    if (probe_heads === 2) expect(difference(whole.logits, data)).toBeLessThan(probe_ln_eps === 1e-6 ? 2e-5 : 1e-3);
    const one = await jepa.classify(clips[1]!, { preprocess: false });
    expect(difference(one.logits, whole.logits.slice(5))).toBeLessThan(1e-6);
    expect(one.labels).toEqual([whole.labels[1]]);
    await using probe = await AttentiveProbe.load(files, cpu);
    expect([probe.classes, probe.config]).toEqual([names, { hiddenSize: 64, depth: 4, heads: 2 }]);
    const read = await probe.predict(await jepa.embed(clips, { pool: "none", preprocess: false }));
    expect(difference(read.logits, whole.logits)).toBeLessThan(1e-5);

    await using without = await Jepa.load(files, { ...cpu, classifier: false });
    expect(without.classes).toBeUndefined();
    expect(await failure(without.classify(clips[0]!))).toMatchObject({ code: "unsupported" });
    expect(await failure(AttentiveProbe.load({ "model.safetensors": files["model.safetensors"] }, cpu))).toMatchObject({ code: "bad-config" });
  });
});

const [TOKENS, WIDTH] = [6, 8];

/**
 * Samples in pairs of the same tokens but for two, which exchange their last values. One of them is marked, and the class is the sign of
 * its value; the means of a pair are the same.
 */
function samples(count: number, seed: number): { data: Float32Array; shape: number[]; labels: string[] } {
  const data = pseudoRandom(seed, count * TOKENS * WIDTH, 1);
  const labels = Array.from({ length: count }, (_, i) => (i % 2 ? "up" : "down"));
  for (let i = 0; i < count; i++) {
    const pair = (i >> 1) << 1;
    const sample = data.subarray(i * TOKENS * WIDTH, (i + 1) * TOKENS * WIDTH);
    if (i !== pair) sample.set(data.subarray(pair * TOKENS * WIDTH, (pair + 1) * TOKENS * WIDTH));
    const marked = (pair / 2) % TOKENS;
    const other = (marked + 1 + ((pair / 2) % (TOKENS - 1))) % TOKENS;
    for (let t = 0; t < TOKENS; t++) {
      sample[t * WIDTH] = t === marked ? 3 : 0;
      sample[t * WIDTH + WIDTH - 1] = (t === marked ? 2 : t === other ? -2 : 0) * (i % 2 ? 1 : -1);
    }
  }
  return { data, shape: [count, TOKENS, WIDTH], labels };
}

const HOW = { ...cpu, heads: 2, steps: 120, learningRate: 3e-3, batch: 32, seed: 1 } satisfies AttentiveProbeOptions;
const right = (found: readonly unknown[], labels: readonly unknown[]) => found.filter((label, i) => label === labels[i]).length / labels.length;

describe("a probe of one's own", () => {
  it("finds what no mean of tokens tells", async () => {
    const [train, test] = [samples(200, 1), samples(100, 2)];
    const means = ({ data, shape }: ReturnType<typeof samples>) =>
      Array.from({ length: shape[0]! }, (_, i) => Array.from({ length: WIDTH }, (_, d) => Array.from({ length: TOKENS }, (_, t) => data[(i * TOKENS + t) * WIDTH + d]!).reduce((a, b) => a + b, 0)));
    expect(means(test)[0]).toEqual(means(test)[1]);
    const linear = LinearProbe.fit(means(train), train.labels);
    expect(right(linear.predict(means(test)).labels, test.labels)).toBe(0.5);

    const told: FitProgress[] = [];
    await using probe = await AttentiveProbe.fit(train, train.labels, { ...HOW, onProgress: (progress) => told.push(progress) });
    const { labels, scores, classes } = await probe.predict(test);
    expect(classes).toEqual(["down", "up"]);
    expect(right(labels, test.labels)).toBeGreaterThan(0.95);
    expect(scores[0]! + scores[1]!).toBeCloseTo(1, 6);
    expect(told.map(({ step }) => step)).toEqual(Array.from({ length: 120 }, (_, i) => i + 1));
    expect(Math.abs(told[0]!.loss - Math.log(2))).toBeLessThan(0.2);
    expect(told.at(-1)).toMatchObject({ steps: 120, lr: 0 });
  });

  it("is the same again with the same seed, from a list of samples, and from its file", async () => {
    const train = samples(40, 3);
    const how = { ...HOW, depth: 4, steps: 4 };
    const list = Array.from({ length: 40 }, (_, i) => ({ data: train.data.slice(i * TOKENS * WIDTH, (i + 1) * TOKENS * WIDTH), shape: [TOKENS, WIDTH] }));
    await using one = await AttentiveProbe.fit(train, train.labels, how);
    await using same = await AttentiveProbe.fit(list, train.labels, how);
    await using other = await AttentiveProbe.fit(list, train.labels, { ...how, seed: 2 });
    const { logits } = await one.predict(train);
    expect((await same.predict(list)).logits).toEqual(logits);
    expect((await other.predict(list)).logits).not.toEqual(logits);
    const file = await one.save();
    expect(await same.save()).toEqual(file);
    await using loaded = await AttentiveProbe.load<string>(file, cpu);
    expect([loaded.classes, loaded.config]).toEqual([["down", "up"], { hiddenSize: WIDTH, depth: 4, heads: 2 }]);
    expect(difference((await loaded.predict(train)).logits, logits)).toBeLessThan(1e-6);
    expect(await loaded.save()).toEqual(file);
    await using named = await AttentiveProbe.load(new Blob([file]), { ...cpu, labels: ["a", "b"] });
    expect((await named.predict(list[0]!)).classes).toEqual(["a", "b"]);
    await loaded.dispose();
    expect(await failure(loaded.predict(train))).toMatchObject({ code: "disposed" });
  });

  it("can be aborted, and leaves nothing running", async () => {
    const train = samples(40, 3);
    const controller = new AbortController();
    let last = 0;
    const fit = AttentiveProbe.fit(train, train.labels, { ...HOW, signal: controller.signal, onProgress: ({ step }) => ((last = step), step === 3 && controller.abort()) });
    expect(await failure(fit)).toMatchObject({ code: "aborted" });
    expect(last).toBe(3);
  });

  it("says what is wrong with what it is given", async () => {
    const train = samples(8, 3);
    const nan = { ...train, data: train.data.map((value, i) => (i === 99 ? NaN : value)) };
    const other = { data: new Float32Array(5 * WIDTH), shape: [5, WIDTH] };
    const cases: [Promise<unknown>, string][] = [
      [AttentiveProbe.fit(train, train.labels.slice(1), HOW), "8 embeddings and 7 labels"],
      [AttentiveProbe.fit(train, train.labels.map(() => "up"), HOW), "two classes"],
      [AttentiveProbe.fit(nan, train.labels, HOW), "Sample 2 has a value that is not finite"],
      [AttentiveProbe.fit({ ...train, shape: [8, WIDTH] }, train.labels, HOW), "[8,8]"],
      [AttentiveProbe.fit([], [], HOW), "There are no tokens"],
      [AttentiveProbe.fit([other, { data: new Float32Array(4 * WIDTH), shape: [4, WIDTH] }], ["a", "b"], HOW), "Sample 1 has 4 × 8"],
      [AttentiveProbe.fit(train, train.labels, { ...HOW, epochs: 3 } as never), "epochs"],
      [AttentiveProbe.fit(train, train.labels, { ...HOW, steps: 0 }), "steps"],
    ];
    for (const [promise, words] of cases) expect(await failure(promise)).toMatchObject({ code: "bad-input", message: expect.stringContaining(words) });
    expect(await failure(AttentiveProbe.fit(train, train.labels, { ...HOW, heads: 3 }))).toMatchObject({ code: "bad-config", message: expect.stringContaining("3 heads") });
    expect(await failure(AttentiveProbe.load(new Uint8Array(4), cpu))).toMatchObject({ code: "bad-checkpoint" });
    expect(await failure(AttentiveProbe.load(fixture("ijepa_tiny.safetensors"), cpu))).toMatchObject({ code: "missing-tensor" });
    await using probe = await AttentiveProbe.fit(train, train.labels, { ...HOW, steps: 1 });
    expect(await failure(probe.predict({ data: new Float32Array(12), shape: [3, 4] }))).toMatchObject({ code: "bad-input", message: expect.stringContaining("4 wide") });
    expect(await failure(AttentiveProbe.load(await probe.save(), { ...cpu, labels: ["a"] }))).toMatchObject({ code: "bad-input", message: expect.stringContaining("1 names") });
  });
});
