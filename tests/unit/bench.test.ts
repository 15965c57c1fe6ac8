// The parts of the bench that its verdicts stand on.
import { readFileSync } from "node:fs";
import { afterEach, describe, expect, it, vi } from "vitest";
import { encoding, training } from "../../www/bench/arithmetic.mjs";
import { ceilingsModule } from "../../www/bench/ceilings-wasm.mjs";
import { maxAbsDiff, pictures, race, summary, warmUp } from "../../www/bench/measure.js";
import { checkpoint, clipPositionTable, geometry, MODELS, pseudoRandom, weights } from "../../www/bench/models.mjs";

import { trainingTask } from "../../www/bench/training.mjs";

afterEach(() => void vi.restoreAllMocks());

describe("bench models", () => {
  it("follow the fixtures' recipe", () => {
    const [a, b, c, d] = pseudoRandom("input.image", 4, 1);
    expect(a).toBeCloseTo(0.2578144073, 7);
    expect(b).toBeCloseTo(-0.8255233765, 7);
    expect(c).toBeCloseTo(0.3521999121, 7);
    expect(d).toBeCloseTo(0.0408526659, 7);
  });

  it("have the tensors of the Hugging Face fixture, by name and shape, and its position table", () => {
    const file = readFileSync(new URL("../fixtures/ijepa_ti16/model.safetensors", import.meta.url));
    const start = 8 + Number(file.readBigUInt64LE(0));
    const header = headerOf(file);
    const ours = weights(MODELS["vit-ti"]);
    const shapes = (entries: Iterable<[string, { shape: number[] }]>) => Object.fromEntries([...entries].map(([name, { shape }]) => [name, shape]));
    expect(shapes(ours)).toEqual(shapes(Object.entries(header)));

    const table = ours.get("embeddings.position_embeddings")!.data;
    const [begin, end] = header["embeddings.position_embeddings"]!.data_offsets;
    expect(end - begin).toBe(2 * table.length);
    const worst = table.reduce((worst, value, i) => Math.max(worst, Math.abs(value - half(file.readUInt16LE(start + begin + 2 * i)))), 0);
    expect(worst).toBeLessThan(5e-4);
  });

  it("have for clips the tensors of V-JEPA 1's fixture, with queries, keys and values as one", () => {
    const theirs = headerOf(readFileSync(new URL("../fixtures/vjepa1_tiny.safetensors", import.meta.url)));
    const model = geometry(32, 2, 4, { imageSize: 32, patchSize: 8, frames: 4, tubelet: 2 });
    const file = checkpoint(model)["model.safetensors"]!;
    const ours = headerOf(file);
    const shapes = (header: Header, prefix: string) =>
      Object.fromEntries(Object.entries(header).filter(([name]) => name.startsWith(prefix)).map(([name, { shape }]) => [name.slice(prefix.length), shape]));
    expect(shapes(ours, "target_encoder.module.backbone.")).toEqual(shapes(theirs, "encoder."));
    expect(Object.keys(ours).filter((name) => !name.startsWith("target_encoder.module.backbone."))).toEqual([]);

    const start = 8 + Number(file.readBigUInt64LE(0));
    const [begin] = ours["target_encoder.module.backbone.blocks.1.attn.qkv.weight"]!.data_offsets;
    const tensors = weights(model);
    ["query", "key", "value"].forEach((part, i) => {
      const { data } = tensors.get(`encoder.layer.1.attention.attention.${part}.weight`)!;
      for (const at of [0, 33, 1023]) expect(file.readFloatLE(start + begin + 4 * (1024 * i + at))).toBe(data[at]);
    });
  });

  it("have V-JEPA 1's table of three axes", () => {
    const fixture = JSON.parse(readFileSync(new URL("../fixtures/vjepa1_tiny.json", import.meta.url), "utf8"));
    for (const d of [24, 32]) {
      const token = (3 * 14 + 5) * 14 + 7;
      const row = clipPositionTable([4, 14, 14], d).subarray(token * d, (token + 1) * d);
      fixture[`pos3d_${d}_token_t3_h5_w7`].all.forEach((value: number, i: number) => expect(row[i]).toBeCloseTo(value, 6));
    }
    expect(MODELS["clip-ti"].tokens).toBe(1568);
  });

  it("make a file whose offsets cover its data exactly", () => {
    const file = checkpoint(MODELS["vit-ti"])["model.safetensors"]!;
    const start = 8 + Number(file.readBigUInt64LE(0));
    let at = 0;
    for (const { data_offsets: [begin, end] } of Object.values(headerOf(file))) {
      expect(begin).toBe(at);
      at = end;
    }
    expect(start + at).toBe(file.length);
  });
});

describe("bench measures", () => {
  it("give one batch in two layouts", () => {
    const { planar, interleaved } = pictures(MODELS["vit-ti"], 2);
    const plane = 224 * 224;
    expect(interleaved[1]![3 * 5 + 2]).toBe(planar[(1 * 3 + 2) * plane + 5]);
  });

  it("give one clip in two layouts, frames outermost in the second", () => {
    const { planar, interleaved } = pictures(MODELS["clip-ti"], 1);
    const frame = 224 * 224;
    expect(interleaved[0]!.length).toBe(16 * frame * 3);
    expect(interleaved[0]![(9 * frame + 5) * 3 + 2]).toBe(planar[(2 * 16 + 9) * frame + 5]);
  });

  it("never take a NaN or another length for agreement", () => {
    expect(maxAbsDiff([1, 2], [1, 2.5])).toBe(0.5);
    expect(maxAbsDiff([1, NaN, 3], [1, 2, 3])).toBe(Infinity);
    expect(maxAbsDiff([1], [1, 2])).toBe(Infinity);
  });

  it("sum up by median and extremes", () => {
    expect(summary([5, 1, 3])).toEqual({ median: 3, min: 1, max: 5, rounds: 3 });
    expect(summary([4, 1, 2, 3]).median).toBe(2.5);
  });

  /** A run that takes so many milliseconds of a clock of its own; its value is how often it has run. */
  const run = (clock: { now: number }, ms: number) => {
    let count = 0;
    return async () => {
      clock.now += ms;
      return ++count;
    };
  };

  it.each([
    [1_500, [1, 4]],
    [5_000, [1, 1]],
    [240_000, [1, 1]],
  ])("warm a run of %i ms up for five seconds, its first one counted", async (ms, values) => {
    const clock = { now: 0 };
    vi.spyOn(performance, "now").mockImplementation(() => clock.now);
    expect(await warmUp(run(clock, ms), 5_000)).toEqual({ values, ms });
  });

  it.each([
    ["as many as fit the budget", [1_000, 1_000], 10],
    ["three where more do not fit", [20_000, 20_000], 3],
    ["two of a minute", [40_000, 20_000], 2],
  ])("race in rounds: %s", async (_, ms, rounds) => {
    const clock = { now: 0 };
    vi.spyOn(performance, "now").mockImplementation(() => clock.now);
    const noted: number[][] = [[], []];
    const times = await race(ms.map((ms) => run(clock, ms)), { budgetMs: 20_000, minRounds: 3, maxRounds: 25 }, (i: number, value: unknown) => noted[i]!.push(value as number));
    const counts = Array.from({ length: rounds }, (_, i) => i + 1);
    expect(noted).toEqual([counts, counts]);
    expect(times).toEqual(ms.map((ms) => ({ median: ms, min: ms, max: ms, rounds })));
  });
});

describe("bench arithmetic", () => {
  it("counts a forward as by hand", () => {
    // Four tokens of 8 channels, one block, two heads, an MLP of 32: patches 4·(3·2·2)·8 = 384; queries, keys and values 3·4·8·8 = 768; scores and
    // what they mix, two heads each 4·4·4, twice: 256; output 256; MLP 2·4·8·32 = 2,048.
    const model = geometry(8, 1, 2, { imageSize: 4, patchSize: 2 });
    // Weights: positions 32, patches 96 + 8, three norms of 16, four matrices of 64 + 8, the MLP 2·256 + 32 + 8.
    const weights = 32 + 104 + 48 + 288 + 552;
    expect(encoding(model, 3)).toEqual({ multiplyAdds: 3 * (384 + 768 + 256 + 256 + 2048), bytes: 4 * (weights + 3 * (48 + 32)) });
  });

  it("has the published size of ViT-Ti", () => {
    expect(encoding(MODELS["vit-ti"], 1).multiplyAdds).toBe(1_246_371_840);
    expect(encoding(MODELS["clip-ti"], 1).multiplyAdds).toBe(1568 * 1536 * 192 + 12 * (1568 * 12 * 192 ** 2 + 2 * 1568 ** 2 * 192));
  });

  it("counts a training step as by hand", () => {
    const task = { batch: 2, imageSize: 4, patchSize: 1, grid: [4, 4], contextLength: 3, targetLength: 2, targets: 2, eps: 1e-6, encoder: { hiddenSize: 8, layers: 1, heads: 2, mlpSize: 32 }, predictor: { hiddenSize: 4, layers: 1, heads: 2, mlpSize: 16 } };
    // A block of d channels takes t tokens of it 4·t·d² + 2·t²·d + 8·t·d².
    const context = 3 * (4 * 64 + 8 * 64) + 2 * 9 * 8;
    const target = 16 * (4 * 64 + 8 * 64) + 2 * 256 * 8;
    const predictorBlock = 5 * (4 * 16 + 8 * 16) + 2 * 25 * 4;
    const predictor = 3 * 8 * 4 + 2 * (predictorBlock + 2 * 4 * 8);
    const embedded = (tokens: number) => tokens * 3 * 8;
    const image = 3 * (context + predictor) + 2 * embedded(3) + embedded(16) + target;
    // Patches 24 + 8, a block 16 + 216 + 72 + 16 + 288 + 264, the norm 16; then 36 of the narrowing, 4 of the mask token, a block of 8 + 60 + 20 + 8 + 80 + 68, a norm of 8, 40 of the widening.
    const encoder = 32 + 872 + 16;
    const narrow = 36 + 4 + 244 + 8 + 40;
    const floats = 6 * (encoder + narrow) + 2 * encoder + 16 * 8 + 16 * 4 + 2 * 48;
    expect(training(task)).toEqual({ multiplyAdds: 2 * image, bytes: 4 * floats });
  });

  it("takes the bench's training task", () => {
    const { multiplyAdds } = training(trainingTask("ijepa-64", 1));
    // Within the forwards' 64 + 32 tokens of 2.7 M weights and four times 44 of 0.45 M, three times but for the target encoder.
    expect(multiplyAdds / 1e6).toBeGreaterThan(64 * 2.65 + 3 * (32 * 2.65 + 4 * 44 * 0.44));
    expect(multiplyAdds / 1e6).toBeLessThan(1.2 * (64 * 2.75 + 3 * (32 * 2.75 + 4 * 44 * 0.46)));
  });
});

describe("bench ceilings", () => {
  it.each([4, 12])("do as many multiply-adds as they say, with %i accumulators", async (accumulators) => {
    const { instance } = await WebAssembly.instantiate(ceilingsModule(accumulators, false) as Uint8Array<ArrayBuffer>);
    const { multiplyAdd, memory } = instance.exports as unknown as { multiplyAdd(n: number, a: number, b: number): void; memory: WebAssembly.Memory };
    multiplyAdd(3, 2, 1);
    // x ← 2x + 1 three times: 8x + 7.
    expect([...new Float32Array(memory.buffer, 0, 4 * accumulators)]).toEqual(Array.from({ length: 4 * accumulators }, (_, i) => 8 * Math.floor(i / 4) + 7));
  });

  it("copy the first half of their memory to the second", async () => {
    const { instance } = await WebAssembly.instantiate(ceilingsModule(4, false) as Uint8Array<ArrayBuffer>);
    const { copy, memory } = instance.exports as unknown as { copy(): void; memory: WebAssembly.Memory };
    const bytes = new Uint8Array(memory.buffer);
    const half = bytes.length / 2;
    const places = [0, 12345, half - 1];
    places.forEach((at, i) => (bytes[at] = i + 1));
    copy();
    expect(places.map((at) => bytes[half + at])).toEqual([1, 2, 3]);
    expect(half).toBe(1 << 26);
  });
});

type Header = Record<string, { shape: number[]; data_offsets: [number, number] }>;

function headerOf(file: Buffer): Header {
  const { __metadata__, ...header } = JSON.parse(file.toString("utf8", 8, 8 + Number(file.readBigUInt64LE(0))));
  return header;
}

function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15));
}
