// The library in Node with the real CPU module: npm run build:wasm cpu

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { PNG } from "pngjs";
import { afterEach, describe, expect, it, vi } from "vitest";
import { cosineSimilarity, Jepa, pca, type Embedding } from "../../www/src/index.js";
import { checkpoint, MODELS } from "../../www/bench/models.mjs";
import { freshLibrary } from "./real-module.js";

const fixture = (path: string) => fileURLToPath(new URL(`../fixtures/ijepa_ti16/${path}`, import.meta.url));
const expected: { output: { shape: number[]; mean_pooled: number[]; token_l2: number[] } } = JSON.parse(readFileSync(fixture("expected.json"), "utf8"));
const [COUNT, WIDTH] = expected.output.shape as [number, number];

const differences = (a: ArrayLike<number>, b: ArrayLike<number>) => Math.max(...Array.from(a, (value, i) => Math.abs(value - b[i]!)));
const row = ({ data }: Embedding, i: number) => data.subarray(i * WIDTH, (i + 1) * WIDTH);

afterEach(() => void vi.restoreAllMocks());

describe("in Node, with the real module", () => {
  it("embeds a photo as the published implementation does", async () => {
    await using jepa = await Jepa.load(fixture(""));
    expect(jepa.backend).toBe("cpu");
    expect(jepa.fallbackReason).toMatch(/Node/);
    expect(jepa.grid).toEqual([1, 14, 14]);
    expect(jepa.config).toMatchObject({ patchSize: 16, hiddenSize: WIDTH, layers: 12, heads: 3 });
    const both = await jepa.embed([fixture("image.png"), fixture("resized.png")]);
    expect(both.shape).toEqual([2, WIDTH]);
    expect(differences(row(both, 0), expected.output.mean_pooled)).toBeLessThan(1e-2);
    expect(differences(row(both, 1), expected.output.mean_pooled)).toBeLessThan(5e-5);
    const tokens = await jepa.embed(fixture("resized.png"), { pool: "none" });
    expect(tokens.shape).toEqual([COUNT, WIDTH]);
    expect(differences(Array.from({ length: COUNT }, (_, i) => Math.hypot(...row(tokens, i))), expected.output.token_l2)).toBeLessThan(5e-4);
    expect(pca(tokens).explainedVarianceRatio[0]).toBeGreaterThan(0.05);
  });

  it("takes prepared pictures, other sizes and other pools, and is repeatable bit for bit", async () => {
    await using jepa = await Jepa.load(fixture(""));
    const png = PNG.sync.read(readFileSync(fixture("resized.png")));
    const prepared = Float32Array.from({ length: 224 * 224 * 3 }, (_, i) => (png.data[Math.floor(i / 3) * 4 + (i % 3)]! / 255 - 0.5) / 0.5);
    const picture = { data: prepared, width: 224, height: 224, channels: 3 };
    const pooled = await jepa.embed(picture, { preprocess: false });
    expect(differences(pooled.data, expected.output.mean_pooled)).toBeLessThan(5e-5);
    expect((await jepa.embed(picture, { preprocess: false })).data).toEqual(pooled.data);
    const normalised = await jepa.embed(picture, { preprocess: false, normalize: true });
    expect(Math.hypot(...normalised.data)).toBeCloseTo(1, 5);
    expect(cosineSimilarity(normalised, pooled)).toBeCloseTo(1, 6);
    const wide = await jepa.embed(fixture("image.png"), { pool: "none", imageSize: [160, 320] });
    expect(wide).toMatchObject({ shape: [200, WIDTH], grid: [1, 10, 20] });
    expect((await jepa.embed(fixture("image.png"), { pool: "last4-mean" })).shape).toEqual([4 * WIDTH]);
    await expect(jepa.embed(fixture("image.png"), { imageSize: 100 })).rejects.toMatchObject({ name: "JepaError" });
    expect((await jepa.embed(picture, { preprocess: false })).data).toEqual(pooled.data);
  });

  it("keeps nothing of what it has given", async () => {
    setFlagsFromString("--expose-gc");
    const collectGarbage = runInNewContext("gc") as () => void;
    await using jepa = await Jepa.load(fixture(""));
    const picture = { data: new Uint8Array(64 * 64 * 3), width: 64, height: 64 };
    const give = async (calls: number) => {
      let given = 0;
      for (let i = 0; i < calls; i++) given += (await jepa.embed(picture, { imageSize: 64, pool: "none" })).data.byteLength;
      return given;
    };
    // Buffers are freed by another thread, some time after the collection that found them.
    const held = () => {
      collectGarbage();
      return process.memoryUsage().arrayBuffers;
    };
    await give(20);
    await new Promise((resolve) => setTimeout(resolve, 500));
    const before = held();
    const given = await give(200);
    expect(given).toBe(200 * 16 * WIDTH * 4);
    await expect.poll(() => held() - before, { timeout: 10_000 }).toBeLessThan(given / 10);
  });

  it.each([
    ["f16", 2e-2],
    ["q8", 1e-1],
  ] as const)("keeps weights as %s", async (dtype, tolerance) => {
    await using jepa = await Jepa.load(fixture(""), { dtype });
    expect(jepa.dtype).toBe(dtype);
    expect(differences((await jepa.embed(fixture("resized.png"))).data, expected.output.mean_pooled)).toBeLessThan(tolerance);
  });

  it("holds no more than the weights and the largest tensor while loading", async () => {
    const { Jepa, memories } = await freshLibrary();
    const model = MODELS["vit-s"];
    const files = checkpoint(model);
    const jepa = await Jepa.load(files, { backend: "cpu" });
    // Memory never shrinks, so this is the most that there has been.
    const used = memories[0]!.buffer.byteLength;
    await jepa.dispose();
    const weights = files["model.safetensors"].byteLength;
    const largest = 4 * model.hiddenSize * model.mlpSize;
    expect(used).toBeGreaterThan(weights);
    expect(used - weights - largest).toBeLessThan(8 << 20);
  });

  it("goes on after its memory was exhausted", async () => {
    const { Jepa, memories } = await freshLibrary();
    await using jepa = await Jepa.load(fixture(""));
    const before = await jepa.embed(fixture("image.png"));
    const [memory] = memories as [WebAssembly.Memory];
    memory.grow(65536 - memory.buffer.byteLength / 65536);
    const large = { data: new Uint8Array(3 << 26), width: 1 << 13, height: 1 << 13, channels: 3 };
    await expect(jepa.embed(large)).rejects.toMatchObject({ name: "JepaError", code: "out-of-memory" });
    expect((await jepa.embed(fixture("image.png"))).data).toEqual(before.data);
  });
});
