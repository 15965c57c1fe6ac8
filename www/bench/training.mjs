// The training task: I-JEPA steps of one geometry from the same weights on the same pictures and masks for every contestant.
// All of it is pseudo-random (tests/fixtures/README.md §3) and made where it is used, so that nothing is downloaded.
import { pictures } from "./measure.js";
import { positionTable, pseudoRandom } from "./models.mjs";

const SALT = "bench/train/";
// Uniform values this wide have the standard deviation that the published models start from.
const AMPLITUDE = 0.02 * Math.sqrt(3);
// Steps take these batches in turn, so that making them is never part of a timed step.
const BATCHES = 8;

const tower = (hiddenSize, layers, heads) => ({ hiddenSize, layers, heads, mlpSize: 4 * hiddenSize });

/**
 * A block of `targetBlock` patches is predicted `targets` times a picture, each time from the same `contextLength` patches.
 * The optimizer is AdamW, whose constants and the target encoder's momentum stay the same over the steps.
 */
const WHOLE = {
  imageSize: 64,
  patchSize: 8,
  grid: [8, 8],
  encoder: tower(192, 6, 3),
  predictor: tower(96, 4, 3),
  eps: 1e-6,
  targetEps: 1e-5,
  contextLength: 32,
  targetBlock: [3, 4],
  targets: 4,
  optimizer: { lr: 1e-3, weightDecay: 0.04, beta1: 0.9, beta2: 0.999, eps: 1e-8 },
  momentum: 0.996,
};

/** Numbers of patches, of 64, that the context encoder is given where its cost is measured against them: all but the one to be predicted at most. */
export const KEPT = [16, 32, 48, 63];

const GEOMETRIES = {
  "ijepa-64": WHOLE,
  // As little besides the encoders as can be: one patch to predict by one block.
  ...Object.fromEntries(KEPT.map((contextLength) => [`kept-${contextLength}`, { ...WHOLE, predictor: tower(96, 1, 3), contextLength, targetBlock: [1, 1], targets: 1 }])),
};

/** Weight decay spares vectors and biases. */
export const decays = (name, shape) => shape.length > 1 && !name.includes("bias");

/** [rows, columns] to [columns, rows]. */
export const transposed = (data, rows, columns) => data.map((_, i) => data[(i % rows) * columns + Math.floor(i / rows)]);

/**
 * A geometry with a batch size, and everything that a step takes:
 * `weights()`, a map of original I-JEPA names (`encoder.…`, `predictor.…`, `target_encoder.…`) to { shape, data };
 * `inputs(step)`, see `inputs` below.
 */
export function trainingTask(name, batch) {
  const geometry = GEOMETRIES[name];
  const task = { ...geometry, batch, targetLength: geometry.targetBlock[0] * geometry.targetBlock[1] };
  const made = [];
  return {
    ...task,
    weights: () => weights(task),
    inputs(step) {
      const at = step % BATCHES;
      return (made[at] ??= inputs(task, at));
    },
  };
}

/**
 * Normalised pictures in both layouts of `pictures`; `context`, token indices [batch, contextLength];
 * `targets`, token indices [targets · batch, targetLength], all pictures of the first block first.
 */
function inputs(task, step) {
  const masks = Array.from({ length: task.batch }, (_, image) => maskPicture(task, `${SALT}masks.${step}.${image}`));
  const blocks = Array.from({ length: task.targets }, (_, block) => masks.flatMap(({ targets }) => targets[block]));
  return {
    ...pictures(task, task.batch, `${SALT}pictures.${step}`),
    context: Int32Array.from(masks.flatMap(({ context }) => context)),
    targets: Int32Array.from(blocks.flat()),
  };
}

/** Blocks wherever they fall; the context is the first patches, in raster order, that are in none of them. Drawn again until there are enough. */
function maskPicture({ grid: [rows, columns], contextLength, targets: count, targetBlock: [height, width] }, name) {
  for (let attempt = 0; ; attempt++) {
    const draws = pseudoRandom(`${name}.${attempt}`, 2 * count, 0.5).map((value) => value + 0.5);
    const targets = Array.from({ length: count }, (_, block) => {
      const top = Math.floor(draws[2 * block] * (rows - height + 1));
      const left = Math.floor(draws[2 * block + 1] * (columns - width + 1));
      return Array.from({ length: height * width }, (_, i) => (top + Math.floor(i / width)) * columns + left + (i % width));
    });
    const hidden = new Set(targets.flat());
    const context = Array.from({ length: rows * columns }, (_, token) => token).filter((token) => !hidden.has(token));
    if (context.length >= contextLength) return { context: context.slice(0, contextLength), targets };
  }
}

const linear = (name, out, input) => [[`${name}.weight`, [out, input]], [`${name}.bias`, [out]]];
const norm = (name, size) => [[`${name}.weight`, [size]], [`${name}.bias`, [size]]];
const blocks = (name, { hiddenSize: d, layers, mlpSize }) =>
  Array.from({ length: layers }, (_, i) => [
    ...norm(`${name}.${i}.norm1`, d),
    ...linear(`${name}.${i}.attn.qkv`, 3 * d, d),
    ...linear(`${name}.${i}.attn.proj`, d, d),
    ...norm(`${name}.${i}.norm2`, d),
    ...linear(`${name}.${i}.mlp.fc1`, mlpSize, d),
    ...linear(`${name}.${i}.mlp.fc2`, d, mlpSize),
  ]).flat();

/** @returns {[name: string, shape: number[]][]} */
export function shapes({ grid: [rows, columns], patchSize, encoder, predictor }) {
  const [d, narrow] = [encoder.hiddenSize, predictor.hiddenSize];
  return [
    ["encoder.pos_embed", [1, rows * columns, d]],
    ["encoder.patch_embed.proj.weight", [d, 3, patchSize, patchSize]],
    ["encoder.patch_embed.proj.bias", [d]],
    ...blocks("encoder.blocks", encoder),
    ...norm("encoder.norm", d),
    ...linear("predictor.predictor_embed", narrow, d),
    ["predictor.mask_token", [1, 1, narrow]],
    ["predictor.predictor_pos_embed", [1, rows * columns, narrow]],
    ...blocks("predictor.predictor_blocks", predictor),
    ...norm("predictor.predictor_norm", narrow),
    ...linear("predictor.predictor_proj", d, narrow),
  ];
}

function values(grid, name, shape) {
  if (name.endsWith("pos_embed")) return positionTable(grid, shape.at(-1));
  const data = pseudoRandom(SALT + name, shape.reduce((a, b) => a * b), AMPLITUDE);
  return /norm.*\.weight$/.test(name) ? data.map((value) => value + 1) : data;
}

/** The target encoder starts as a copy of the encoder, as it does in a real run. */
function weights(task) {
  const own = shapes(task).map(([name, shape]) => [name, { shape, data: values(task.grid, name, shape) }]);
  const copies = own.filter(([name]) => name.startsWith("encoder.")).map(([name, { shape, data }]) => [`target_${name}`, { shape, data: data.slice() }]);
  return new Map([...own, ...copies]);
}
