// The parts of the bench that its verdicts stand on.
import { readFileSync } from "node:fs";
import { afterEach, describe, expect, it, vi } from "vitest";
import { maxAbsDiff, pictures, race, summary, warmUp } from "../../www/bench/measure.js";
import { checkpoint, clipPositionTable, geometry, MODELS, pseudoRandom, weights } from "../../www/bench/models.mjs";

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
