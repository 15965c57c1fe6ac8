import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { sampleMasks, type Grid, type MaskOptions, type Masks } from "../../www/src/index.js";

const fixture = (file: string) => JSON.parse(readFileSync(new URL(`../fixtures/${file}`, import.meta.url), "utf8"));

/** What every result promises, whatever the strategy. */
function expectSound({ context, targets }: Masks, [t, h, w]: Grid, batch: number): void {
  const groups = [...Array.from({ length: context.length / batch }, (_, c) => context.slice(c * batch, (c + 1) * batch)), ...targets];
  for (const group of groups) {
    expect(group).toHaveLength(batch);
    for (const list of group) {
      expect(list).toBeInstanceOf(Uint32Array);
      expect(list.length).toBe(group[0]!.length);
      expect(list.length).toBeGreaterThan(0);
      expect(list.every((index, i) => index < t * h * w && (i === 0 || index > list[i - 1]!))).toBe(true);
    }
  }
}

const shares = (a: Uint32Array, b: Uint32Array) => a.some((index) => b.includes(index));
const ranges = (from: number, count: number) => Array.from({ length: count }, (_, i) => from + i);

describe("every strategy", () => {
  const cases: [Grid, MaskOptions][] = [
    [[1, 14, 14], { strategy: "ijepa-multiblock" }],
    [[1, 9, 21], { strategy: "ijepa-multiblock", numEncMasks: 2, numPredMasks: 3, minKeep: 4 }],
    [[3, 12, 10], { strategy: "ijepa-multiblock", allowOverlap: true }],
    [[8, 14, 14], { strategy: "vjepa-multiblock3d" }],
    [[5, 9, 14], { strategy: "vjepa-multiblock3d", types: [{}, { numBlocks: 2, spatialScale: [0.7, 0.7] }] }],
    [[8, 14, 14], { strategy: "tube" }],
    [[1, 14, 14], { strategy: "random" }],
  ];

  it.each(cases)("gives ascending indices of one length on %j, %j", (grid, options) => {
    for (const batch of [1, 5]) {
      for (const generator of ["default", "torch"] as const) expectSound(sampleMasks(grid, { ...options, batch, generator, seed: 3 }), grid, batch);
    }
  });

  it.each(cases)("depends on the seed only, on %j, %j", (grid, options) => {
    const masks = (seed: number) => sampleMasks(grid, { ...options, batch: 4, seed });
    expect(masks(7)).toEqual(masks(7));
    expect(masks(7)).not.toEqual(masks(8));
    expect(masks(2 ** 40 + 7)).not.toEqual(masks(7));
    expect(sampleMasks(grid, options)).toEqual(sampleMasks(grid, { ...options, seed: 0, batch: 1, generator: "default" }));
  });
});

describe("ijepa-multiblock", () => {
  it("has four targets of the published sizes, and a context in the corner block outside of them", () => {
    // Every size that any uniform gives on 14×14: specification.
    const sizes = [5 * 6, 6 * 5, 7 * 5, 6 * 6, 8 * 5];
    for (let seed = 0; seed < 100; seed++) {
      const { context, targets } = sampleMasks([1, 14, 14], { strategy: "ijepa-multiblock", seed, batch: 3 });
      expect(targets).toHaveLength(4);
      expect(context).toHaveLength(3);
      expect(sizes).toContain(targets[0]![0]!.length);
      for (const [b, seen] of context.entries()) {
        expect(seen.length).toBeGreaterThan(10);
        for (const block of targets) expect(shares(seen, block[b]!)).toBe(false);
      }
    }
  });

  it("never uses the last row and the last column", () => {
    for (let seed = 0; seed < 100; seed++) {
      const { context, targets } = sampleMasks([1, 14, 14], { strategy: "ijepa-multiblock", seed });
      for (const index of [...context, ...targets.flat()].flatMap((list) => [...list])) {
        expect(index % 14).toBeLessThan(13);
        expect(index).toBeLessThan(13 * 14);
      }
    }
  });

  it("cuts the contexts of a batch to the shortest, from the end", () => {
    // The same draws in the same order as for the first image alone.
    const alone = sampleMasks([1, 14, 14], { strategy: "ijepa-multiblock", seed: 5 }).context[0]!;
    const together = sampleMasks([1, 14, 14], { strategy: "ijepa-multiblock", seed: 5, batch: 32 }).context[0]!;
    expect(together.length).toBeLessThan(alone.length);
    expect(together).toEqual(alone.slice(0, together.length));
  });

  it("repeats PyTorch's first batch with its generator", () => {
    // MT19937 with seed 0: two uniforms for the sizes, of which the fixture has the first two, then words for the places.
    const [u] = fixture("ijepa_masks.json").torch_rand_seed0;
    const area = Math.floor(196 * (0.15 + u * 0.05));
    const aspect = 0.75 + u * 0.75;
    const [h, w] = [Math.round(Math.sqrt(area * aspect)), Math.round(Math.sqrt(area / aspect))];
    // 24 low bits of a word are the uniform, and 14 − h and 14 − w divide no power of two: the whole first word is std::mt19937(0)'s.
    const [top, left] = [2357136044 % (14 - h), 2546248239 % (14 - w)];
    const block = ranges(top, h).flatMap((row) => ranges(row * 14 + left, w));
    const { targets } = sampleMasks([1, 14, 14], { strategy: "ijepa-multiblock", generator: "torch" });
    expect([...targets[0]![0]!]).toEqual(block);
  });

  it("works on small grids, and refuses a minKeep that they cannot have", () => {
    expectSound(sampleMasks([1, 4, 4], { strategy: "ijepa-multiblock", batch: 2 }), [1, 4, 4], 2);
    const refused = () => sampleMasks([1, 8, 8], { strategy: "ijepa-multiblock", minKeep: 10 });
    expect(refused).toThrow(expect.objectContaining({ code: "bad-mask", message: expect.stringContaining("minKeep") }));
  });
});

describe("vjepa-multiblock3d", () => {
  it("covers the borders, and leaves nothing but context and targets", () => {
    const used = new Set<number>();
    for (let seed = 0; seed < 60; seed++) {
      const { context, targets } = sampleMasks([8, 14, 14], { strategy: "vjepa-multiblock3d", seed });
      expect(context[0]!.length + targets[0]![0]!.length).toBe(8 * 14 * 14);
      expect(shares(context[0]!, targets[0]![0]!)).toBe(false);
      for (const index of targets[0]![0]!) used.add(index);
    }
    expect(used.size).toBe(8 * 14 * 14);
  });

  it("has a context and a block of targets for each type", () => {
    const types = [{}, { numBlocks: 2, spatialScale: [0.7, 0.7] as const, maxKeep: undefined }];
    const { context, targets } = sampleMasks([8, 14, 14], { strategy: "vjepa-multiblock3d", types, batch: 4 });
    expect([context.length, targets.length]).toEqual([8, 2]);
    expect(context[4]!.length).toBeLessThan(context[0]!.length);
    for (const b of ranges(0, 4)) for (const m of [0, 1]) expect(shares(context[m * 4 + b]!, targets[m]![b]!)).toBe(false);
  });

  it("changes places and completes where that is asked for", () => {
    const options = { strategy: "vjepa-multiblock3d", seed: 2, batch: 6 } as const;
    const plain = sampleMasks([4, 10, 10], options);
    const inverse = sampleMasks([4, 10, 10], { ...options, invBlock: true });
    expect(inverse).toEqual({ context: plain.targets[0], targets: [plain.context] });
    const full = sampleMasks([4, 10, 10], { ...options, maxKeep: 20, fullComplement: true });
    expect(full.context[0]).toEqual(plain.context[0]!.slice(0, 20));
    expect([...full.context[5]!, ...full.targets[0]![5]!].sort((a, b) => a - b)).toEqual(ranges(0, 400));
  });
});

describe("tube and random", () => {
  it("keep int(196 · 0.1) places, in every time step the same", () => {
    const { context, targets } = sampleMasks([8, 14, 14], { strategy: "tube", batch: 2 });
    expect(context.map((list) => list.length)).toEqual([8 * 19, 8 * 19]);
    expect([...context[0]!].map((index) => index % 196)).toEqual(ranges(0, 8).flatMap(() => [...context[0]!.slice(0, 19)]));
    expect(targets[0]![1]!.length).toBe(8 * 177);
  });

  it("hide 40 to 60 of 100", () => {
    const kept = ranges(0, 200).map((seed) => {
      const { context, targets } = sampleMasks([1, 14, 14], { strategy: "random", seed });
      expect([...context[0]!, ...targets[0]![0]!].sort((a, b) => a - b)).toEqual(ranges(0, 196));
      return context[0]!.length;
    });
    expect(Math.min(...kept)).toBeGreaterThanOrEqual(Math.floor(196 * 0.4));
    expect(Math.max(...kept)).toBeLessThanOrEqual(196 * 0.6);
    // Uniform: mean 98, a deviation of 196 · 0.2 / √12 = 11.3 each, 0.8 of the mean; four of these.
    expect(Math.abs(kept.reduce((a, b) => a + b) / 200 - 98)).toBeLessThan(3.7);
  });
});

describe("lengths of the originals, over the same numbers of batches", () => {
  const mean = (values: number[]) => values.reduce((a, b) => a + b) / values.length;

  function expectLengths(grid: Grid, options: MaskOptions, batches: number, context: number, target: number): void {
    const masks = ranges(0, batches).map((seed) => sampleMasks(grid, { ...options, seed }));
    expect(Math.abs(mean(masks.map((m) => m.context[0]!.length)) / context - 1)).toBeLessThan(0.1);
    expect(Math.abs(mean(masks.map((m) => m.targets[0]![0]!.length)) / target - 1)).toBeLessThan(0.05);
  }

  type Entry = { key: string; kind: string; batch: number; batches: number } & Record<string, any>;
  const cases = (file: string, kind: string): Entry[] => fixture("manifest.json").files[file].cases.filter((entry: Entry) => entry.kind === kind);

  it.each(cases("ijepa_masks.json", "monte_carlo"))("$key", (entry) => {
    const { ctx_len, tgt_len } = fixture("ijepa_masks.json")[entry.key];
    const parameters = { encMaskScale: entry.enc_scale, predMaskScale: entry.pred_scale, aspectRatio: entry.pred_aspect, numEncMasks: entry.nenc, numPredMasks: entry.npred, minKeep: entry.min_keep, allowOverlap: entry.allow_overlap };
    expectLengths([1, ...(entry["grid_hw"] as [number, number])], { strategy: "ijepa-multiblock", ...parameters, batch: entry.batch }, entry.batches, ctx_len.mean, tgt_len.mean);
  });

  it.each(cases("vjepa_masks.json", "monte_carlo_3d").filter(({ batch }) => batch === 1))("$key", (entry) => {
    const { ctx, pred } = fixture("vjepa_masks.json")[entry.key];
    const parameters = { numBlocks: entry.n_blocks, spatialScale: entry.spatial_scale, temporalScale: entry.temporal_scale, aspectRatio: entry.aspect, maxTemporalKeep: entry.max_temporal_keep };
    expectLengths(entry.grid_thw, { strategy: "vjepa-multiblock3d", ...parameters }, entry.batches, ctx.mean, pred.mean);
  });
});

describe("refusals", () => {
  it.each([
    [[14, 14], { strategy: "random" }, "grid"],
    [[1, 14, 1.5], { strategy: "random" }, "grid"],
    [undefined, { strategy: "random" }, "grid"],
    [[1, 14, 14], undefined, "strategy"],
    [[1, 14, 14], { strategy: "multiblock" }, "strategy"],
    [[1, 14, 14], { strategy: "random", ratio: 0.5 }, "ratio"],
    [[1, 14, 14], { strategy: "tube", ratio: [0.4, 0.6] }, "ratio"],
    [[1, 14, 14], { strategy: "random", seed: -1 }, "seed"],
    [[1, 14, 14], { strategy: "random", batch: 0 }, "batch"],
    [[1, 14, 14], { strategy: "random", generator: "numpy" }, "generator"],
    [[1, 14, 14], { strategy: "ijepa-multiblock", minKep: 3 }, "minKep"],
    [[1, 14, 14], { strategy: "ijepa-multiblock", minKeep: Number.MAX_SAFE_INTEGER }, "option"],
    [[8, 14, 14], { strategy: "vjepa-multiblock3d", types: [{}], numBlocks: 3 }, "numBlocks"],
    [[8, 14, 14], { strategy: "vjepa-multiblock3d", types: [{ blocks: 3 }] }, "types[0].blocks"],
    [[8, 14, 14], { strategy: "vjepa-multiblock3d", types: [null] }, "types[0]"],
  ])("bad-input for %j, %j", (grid, options, word) => {
    expect(() => sampleMasks(grid as Grid, options as MaskOptions)).toThrow(expect.objectContaining({ code: "bad-input", message: expect.stringContaining(word) }));
  });

  it.each([
    [[0, 14, 14], { strategy: "random" }, "grid"],
    [[2 ** 30, 2 ** 30, 2 ** 30], { strategy: "random" }, "grid"],
    [[1, 14, 14], { strategy: "random", ratio: [0.6, 0.4] }, "ratio"],
    [[1, 14, 14], { strategy: "random", batch: 2 ** 40 }, "batch"],
    [[1, 1, 196], { strategy: "ijepa-multiblock" }, "2×2"],
    [[1, 14, 14], { strategy: "ijepa-multiblock", encMaskScale: [0.05, 0.05], minKeep: 10 }, "encMaskScale"],
    [[4, 14, 14], { strategy: "vjepa-multiblock3d", spatialScale: [1, 1], aspectRatio: [1, 1] }, "spatialScale"],
    [[4, 2, 2], { strategy: "tube" }, "ratio"],
  ])("bad-mask for %j, %j", (grid, options, word) => {
    expect(() => sampleMasks(grid as Grid, options as MaskOptions)).toThrow(expect.objectContaining({ code: "bad-mask", message: expect.stringContaining(word) }));
  });

  it("leaves the module usable", () => {
    expect(() => sampleMasks([4, 2, 2], { strategy: "tube" })).toThrow();
    expectSound(sampleMasks([4, 8, 8], { strategy: "tube" }), [4, 8, 8], 1);
  });
});
