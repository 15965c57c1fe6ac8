// Masks: which tokens a model sees, and which it has to predict.

import { callCore } from "./core.js";
import { JepaError } from "./errors.js";
import { aBoolean, anything, between, checkFields, moreThan, oneOf, shown, whole, type Rule } from "./options.js";
import type { Grid } from "./types.js";

/**
 * I-JEPA's blocks: a few targets, and one large context without what they cover. The defaults are those of every released model.
 *
 * The last row and the last column of the grid are never used, as published. A clip has the masks of one picture in every time step.
 */
export interface IJepaMultiblock {
  strategy: "ijepa-multiblock";
  /** Area of a context block as a part of the grid. Default `[0.85, 1]`. */
  encMaskScale?: readonly [from: number, to: number] | undefined;
  /** Area of a target block as a part of the grid. Default `[0.15, 0.2]`. */
  predMaskScale?: readonly [from: number, to: number] | undefined;
  /** Height of a target block over its width. Default `[0.75, 1.5]`. */
  aspectRatio?: readonly [from: number, to: number] | undefined;
  /** Context masks of each image. Default 1. */
  numEncMasks?: number | undefined;
  /** Target blocks of each image. Default 4. */
  numPredMasks?: number | undefined;
  /**
   * Every mask keeps more tokens than this, before it is cut to the shortest of its batch. Default 10; on grids that are too small for
   * that, one less than the smallest block. (There the published sampler never ends; an explicit value is refused with `bad-mask`.)
   */
  minKeep?: number | undefined;
  /** Whether contexts may hold targets. Default false; even so they do where there is no other place, which happens on small grids. */
  allowOverlap?: boolean | undefined;
}

/** One of V-JEPA's kinds of masks: the targets are a union of blocks, the context is the rest. The defaults are V-JEPA's first, short-range kind. */
export interface VJepaMaskType {
  /** Default 8; V-JEPA's second, long-range kind: 2. */
  numBlocks?: number | undefined;
  /** Area of a block as a part of the grid. Default `[0.15, 0.15]`; long-range: `[0.7, 0.7]`. */
  spatialScale?: readonly [from: number, to: number] | undefined;
  /** Duration of a block as a part of the clip's. Default `[1, 1]`. */
  temporalScale?: readonly [from: number, to: number] | undefined;
  /** Height of a block over its width. Default `[0.75, 1.5]`. */
  aspectRatio?: readonly [from: number, to: number] | undefined;
  /** Only this first part of the clip can be context. Default 1. */
  maxTemporalKeep?: number | undefined;
  /** Most tokens of a context. Default: no limit. */
  maxKeep?: number | undefined;
  /** Targets are all tokens that are not in the context after it was cut to the shortest of its batch. Default false. */
  fullComplement?: boolean | undefined;
  /** The context is all tokens that are not in the targets after these were cut to the shortest of their batch. Default false. */
  predFullComplement?: boolean | undefined;
  /** Context and targets change places. Default false. */
  invBlock?: boolean | undefined;
}

/** V-JEPA's blocks, of one kind, or of several at once. */
export interface VJepaMultiblock3d extends VJepaMaskType {
  strategy: "vjepa-multiblock3d";
  /**
   * Several kinds, instead of the fields beside this one. Each has a context and a block of targets of its own; all share their aspect ratio.
   * V-JEPA trains with `[{}, { numBlocks: 2, spatialScale: [0.7, 0.7] }]`.
   */
  types?: readonly VJepaMaskType[] | undefined;
}

/** A random part of the places, in every time step the same, is context: V-JEPA's ablation. */
export interface Tube {
  strategy: "tube";
  /** The part that is masked. Default 0.9. */
  ratio?: number | undefined;
}

/** A random part of the tokens is context, the rest is target: I-JEPA's ablation. */
export interface RandomMask {
  strategy: "random";
  /** The part that is masked, drawn once for a batch. Default `[0.4, 0.6]`. */
  ratio?: readonly [from: number, to: number] | undefined;
}

/** A published way to choose masks, with its parameters. */
export type MaskStrategy = IJepaMultiblock | VJepaMultiblock3d | Tube | RandomMask;

/** What {@link sampleMasks} takes: a strategy, its parameters, and what follows. */
export type MaskOptions = MaskStrategy & {
  /** A whole number. Masks of the same seed are the same, on every machine. Default 0. */
  seed?: number | undefined;
  /** Images whose masks are of one length. The more, the shorter are their contexts. Default 1. */
  batch?: number | undefined;
  /**
   * `"torch"` draws from PyTorch's CPU generator, seeded alike for the sizes and for the places of blocks: with seed 0 the masks are those of
   * the published sampler's first batch after `torch.manual_seed(0)`. Default `"default"`, which is independent of PyTorch.
   */
  generator?: "default" | "torch" | undefined;
};

/** Token indices in raster order: `(t · height + row) · width + column`. */
export interface Masks {
  /** What the encoder sees, one list for each image; with several context masks, all images of the first, then those of the second. */
  context: Uint32Array[];
  /** What is predicted: `[block][image]`. All lists of a block are of one length. */
  targets: Uint32Array[][];
}

/** What the wasm module exports; `grid` and the numbers have been checked for their kind. */
interface GlueMasks {
  sampleMasks(strategy: string, parameters: object, grid: readonly number[], torch: boolean, seed: number, batch: number): Masks;
}

const range: Rule = {
  what: "two numbers, from and to",
  allows: (value) => Array.isArray(value) && value.length === 2 && value.every((end) => typeof end === "number" && Number.isFinite(end)),
};

const MASK_TYPE: Record<keyof VJepaMaskType, Rule> = {
  numBlocks: whole(1),
  spatialScale: range,
  temporalScale: range,
  aspectRatio: range,
  maxTemporalKeep: moreThan(0),
  maxKeep: whole(1),
  fullComplement: aBoolean,
  predFullComplement: aBoolean,
  invBlock: aBoolean,
};

const PARAMETERS: { [S in MaskStrategy["strategy"]]: Record<Exclude<keyof Extract<MaskStrategy, { strategy: S }>, "strategy">, Rule> } = {
  "ijepa-multiblock": {
    encMaskScale: range,
    predMaskScale: range,
    aspectRatio: range,
    numEncMasks: whole(1),
    numPredMasks: whole(1),
    minKeep: whole(0),
    allowOverlap: aBoolean,
  },
  "vjepa-multiblock3d": { ...MASK_TYPE, types: { what: "an array of at least one mask type", allows: (value) => Array.isArray(value) && value.length > 0 } },
  tube: { ratio: between(0, 1) },
  random: { ratio: range },
};

const COMMON = { strategy: anything, seed: whole(0), batch: whole(1), generator: anything };

/**
 * Samples masks as a published system does. Needs no model, and works at once, anywhere.
 *
 * @param grid - patches along time, height and width, as {@link Jepa.grid} has them
 * @param options - the strategy, its parameters, `seed`, and `batch`, the number of images
 * @throws {@link JepaError} `bad-input` for a malformed argument; `bad-mask` for parameters that leave no tokens to see or to predict,
 * and those with which the published sampler would search for ever; `unsupported` where the page's policy forbids WebAssembly
 *
 * @example
 * const { context, targets } = sampleMasks([1, 14, 14], { strategy: "ijepa-multiblock", seed: 0, batch: 16 });
 */
export function sampleMasks(grid: Readonly<Grid>, options: MaskOptions): Masks {
  if (!Array.isArray(grid) || grid.length !== 3 || !grid.every((side) => Number.isSafeInteger(side) && side >= 0)) {
    throw new JepaError("bad-input", `The grid is [time, height, width] in patches, not ${shown(grid)}.`);
  }
  const strategy = oneOf("strategy", (options as MaskOptions | undefined)?.strategy, Object.keys(PARAMETERS))!;
  checkFields("", options, { ...COMMON, ...PARAMETERS[strategy] });
  const { seed = 0, batch = 1, generator = "default" } = options;
  oneOf("generator", generator, ["default", "torch"]);
  const parameters = parametersOf(options);
  return callCore((core: GlueMasks) => core.sampleMasks(strategy, parameters, grid, generator === "torch", seed, batch));
}

/** A strategy as a trainer reads it, checked like the options of {@link sampleMasks}. `group`: what messages call the object. */
export function strategyOf(group: string, masks: MaskStrategy): object {
  const strategy = oneOf(`${group}.strategy`, (masks as MaskStrategy | null)?.strategy, Object.keys(PARAMETERS))!;
  checkFields(group, masks, { strategy: anything, ...PARAMETERS[strategy] });
  return { strategy, ...parametersOf(masks) };
}

/** The parameters as the module reads them, without what is undefined. */
function parametersOf({ seed: _seed, batch: _batch, generator: _generator, ...masks }: MaskOptions): object {
  const { strategy: _strategy, ...parameters } = masks;
  const defined = (fields: object) => Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
  if (masks.strategy !== "vjepa-multiblock3d") return defined(parameters);
  const { types, ...single } = defined(parameters) as VJepaMultiblock3d;
  if (!types) return { types: [single] };
  const beside = Object.keys(single);
  if (beside.length > 0) throw new JepaError("bad-input", `The option types stands instead of ${beside.join(", ")}: put them into its entries.`);
  for (const [i, type] of types.entries()) checkFields(`types[${i}]`, type, MASK_TYPE);
  return { types: types.map(defined) };
}

/** A copy of a list of token indices, of a grid of so many. */
export function tokenIndices(name: string, mask: Uint32Array | readonly number[], tokens: number): Uint32Array {
  if (!Array.isArray(mask) && !(mask instanceof Uint32Array)) throw new JepaError("bad-mask", `${name} is a Uint32Array or an array of token indices, not ${shown(mask)}.`);
  if (mask.length === 0) throw new JepaError("bad-mask", `${name} has no token; give at least one.`);
  const wrong = mask.findIndex((index: unknown) => !(Number.isInteger(index) && (index as number) >= 0 && (index as number) < tokens));
  if (wrong >= 0) throw new JepaError("bad-mask", `${name} names token ${shown(mask[wrong])}; the tokens of this model are the whole numbers from 0 to ${tokens - 1}.`);
  const indices = Uint32Array.from(mask);
  if (new Set(indices).size < indices.length) throw new JepaError("bad-mask", `${name} names a token twice.`);
  return indices;
}

/** A copy of masks of the caller's; the module checks them against its grid. */
export function masksOf(masks: Masks): Masks {
  const lists = (name: string, value: unknown): Uint32Array[] => {
    if (!Array.isArray(value)) throw new JepaError("bad-mask", `${name} is an array with a list of token indices for each image, not ${shown(value)}.`);
    return value.map((list, i) => tokenIndices(`${name}[${i}]`, list, 2 ** 32));
  };
  checkFields("masks", masks, { context: anything, targets: anything });
  const { context, targets } = masks;
  if (!Array.isArray(targets)) throw new JepaError("bad-mask", `masks.targets is an array of blocks, not ${shown(targets)}.`);
  return { context: lists("masks.context", context), targets: targets.map((block, i) => lists(`masks.targets[${i}]`, block)) };
}
