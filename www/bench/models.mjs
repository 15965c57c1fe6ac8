// The models under test: published ViT geometries with the fixtures' pseudo-random weights (tests/fixtures/README.md §3),
// so that nothing is downloaded and every contestant gets the same numbers.

const SALT = "bench/";

export const product = (shape) => shape.reduce((a, b) => a * b, 1);

/** `grid`: tokens along time, rows and columns; a picture is one frame deep. */
export function geometry(hiddenSize, layers, heads, { imageSize = 224, patchSize = 16, frames = 1, tubelet = 1 } = {}) {
  const grid = [frames / tubelet, imageSize / patchSize, imageSize / patchSize];
  return { imageSize, frames, tubelet, patchSize, grid, tokens: product(grid), hiddenSize, layers, heads, mlpSize: 4 * hiddenSize, eps: 1e-6 };
}

/** What the cost of ViT-Ti is measured against: tokens by the side of the picture, and depth, at batch 1; and batches. */
export const COST = {
  tokens: [112, 160, 224, 320, 448].map((imageSize) => [`vit-ti@${imageSize}`, geometry(192, 12, 3, { imageSize })]),
  depth: [3, 6, 12, 24].map((layers) => [`vit-ti-${layers}`, geometry(192, layers, 3)]),
  batch: [1, 2, 4, 8],
};

/** I-JEPA's encoders, and V-JEPA 1's for clips, whose smaller one is there for choosing settings. */
export const MODELS = {
  "vit-ti": geometry(192, 12, 3),
  "vit-s": geometry(384, 12, 6),
  "vit-b": geometry(768, 12, 12),
  "clip-ti": geometry(192, 12, 3, { frames: 16, tubelet: 2 }),
  "clip-ti-2": geometry(192, 12, 3, { frames: 2, tubelet: 2 }),
  ...Object.fromEntries([...COST.tokens, ...COST.depth]),
};

/** Of what a model takes, without the batch: [3, H, W], or [3, T, H, W] for clips. */
export const inputShape = ({ frames, imageSize }) => [3, ...(frames > 1 ? [frames] : []), imageSize, imageSize];

/** Uniform values in [-amplitude, amplitude) from an LCG whose seed is the FNV-1a hash of `name`. */
export function pseudoRandom(name, length, amplitude) {
  let state = 2166136261;
  for (const byte of new TextEncoder().encode(name)) state = Math.imul(state ^ byte, 16777619);
  const out = new Float32Array(length);
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    out[i] = ((2 * (state >>> 8)) / 2 ** 24 - 1) * amplitude;
  }
  return out;
}

/** Sines, then cosines. */
function sincos(position, channels) {
  const angles = Array.from({ length: channels / 2 }, (_, i) => position * 10000 ** (-i / (channels / 2)));
  return [...angles.map(Math.sin), ...angles.map(Math.cos)];
}

/** I-JEPA's fixed 2-D sincos table; the first half of the channels encodes the column. */
export function positionTable([rows, columns], hiddenSize) {
  const out = new Float32Array(rows * columns * hiddenSize);
  for (let token = 0; token < rows * columns; token++) {
    const [row, column] = [Math.floor(token / columns), token % columns];
    out.set([column, row].flatMap((position) => sincos(position, hiddenSize / 2)), token * hiddenSize);
  }
  return out;
}

/** V-JEPA 1's fixed 3-D one: as many channels for time, row and column, in this order; what is more than `hiddenSize` is cut off. */
export function clipPositionTable([times, rows, columns], hiddenSize) {
  const out = new Float32Array(times * rows * columns * hiddenSize);
  for (let token = 0; token < times * rows * columns; token++) {
    const place = [Math.floor(token / (rows * columns)), Math.floor(token / columns) % rows, token % columns];
    out.set(place.flatMap((position) => sincos(position, 2 * Math.ceil(hiddenSize / 6))).slice(0, hiddenSize), token * hiddenSize);
  }
  return out;
}

/**
 * Hugging Face names and shapes, in file order; a clip's patches have their frames, too.
 * @returns {[name: string, shape: number[]][]}
 */
export function shapes({ hiddenSize: d, layers, mlpSize, tokens, frames, tubelet, patchSize }) {
  const linear = (name, out, input) => [[`${name}.weight`, [out, input]], [`${name}.bias`, [out]]];
  const norm = (name) => [[`${name}.weight`, [d]], [`${name}.bias`, [d]]];
  const block = (i) => {
    const at = `encoder.layer.${i}`;
    return [
      ...norm(`${at}.layernorm_before`),
      ...["query", "key", "value"].flatMap((part) => linear(`${at}.attention.attention.${part}`, d, d)),
      ...linear(`${at}.attention.output.dense`, d, d),
      ...norm(`${at}.layernorm_after`),
      ...linear(`${at}.intermediate.dense`, mlpSize, d),
      ...linear(`${at}.output.dense`, d, mlpSize),
    ];
  };
  return [
    ["embeddings.position_embeddings", [1, tokens, d]],
    ["embeddings.patch_embeddings.projection.weight", [d, 3, ...(frames > 1 ? [tubelet] : []), patchSize, patchSize]],
    ["embeddings.patch_embeddings.projection.bias", [d]],
    ...Array.from({ length: layers }, (_, i) => block(i)).flat(),
    ...norm("layernorm"),
  ];
}

function values({ grid, frames, hiddenSize }, name, shape) {
  if (name === "embeddings.position_embeddings") return frames > 1 ? clipPositionTable(grid, hiddenSize) : positionTable(grid.slice(1), hiddenSize);
  const data = pseudoRandom(SALT + name, product(shape), 0.1);
  if (/norm.*\.weight$/.test(name)) for (let i = 0; i < data.length; i++) data[i] += 1;
  return data;
}

/** Map of tensor name to { shape, data }. */
export function weights(model) {
  return new Map(shapes(model).map(([name, shape]) => [name, { shape, data: values(model, name, shape) }]));
}

/** Tensors, by name { shape, data }, as the parts of a safetensors file. */
export function safetensors(tensors, metadata = { format: "pt" }) {
  const header = { __metadata__: metadata };
  let end = 0;
  for (const [name, { shape, data }] of tensors) {
    header[name] = { dtype: "F32", shape, data_offsets: [end, (end += data.byteLength)] };
  }
  const json = JSON.stringify(header);
  const head = new TextEncoder().encode(json.padEnd(Math.ceil(json.length / 8) * 8));
  const length = new BigUint64Array([BigInt(head.length)]);
  return [length, head, ...[...tensors.values()].map(({ data }) => data)].map(({ buffer, byteOffset, byteLength }) => new Uint8Array(buffer, byteOffset, byteLength));
}

/** The tensors, as `weights` has them, of a file of f32 values that the bench's server has. */
export async function readSafetensors(url) {
  const bytes = await (await fetch(url)).arrayBuffer();
  const start = 8 + Number(new DataView(bytes).getBigUint64(0, true));
  const { __metadata__, ...tensors } = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 8, start - 8)));
  const read = ([name, { shape, data_offsets: [begin, end] }]) => [name, { shape, data: new Float32Array(bytes, start + begin, (end - begin) / 4) }];
  return new Map(Object.entries(tensors).map(read));
}

/** V-JEPA 1's own names of Hugging Face's tensors but for queries, keys and values, which it has as one. */
const ORIGINAL_NAMES = [
  [/^embeddings\.position_embeddings$/, "pos_embed"],
  [/^embeddings\.patch_embeddings\.projection/, "patch_embed.proj"],
  [/^encoder\.layer/, "blocks"],
  [/layernorm_before/, "norm1"],
  [/attention\.output\.dense/, "attn.proj"],
  [/layernorm_after/, "norm2"],
  [/intermediate\.dense/, "mlp.fc1"],
  [/output\.dense/, "mlp.fc2"],
  [/^layernorm/, "norm"],
];

/** The tensors as V-JEPA 1's checkpoints have them. */
function original(tensors) {
  const out = new Map();
  const put = (name, tensor) => out.set(`target_encoder.module.backbone.${ORIGINAL_NAMES.reduce((name, [theirs, ours]) => name.replace(theirs, ours), name)}`, tensor);
  for (const [name, tensor] of tensors) {
    const part = /^(.*\.)attention\.attention\.(query|key|value)(\..*)$/.exec(name);
    if (!part) put(name, tensor);
    else if (part[2] === "query") {
      const { shape: [rows, ...rest], data } = tensor;
      const fused = { shape: [3 * rows, ...rest], data: new Float32Array(3 * data.length) };
      ["query", "key", "value"].forEach((which, i) => fused.data.set(tensors.get(`${part[1]}attention.attention.${which}${part[3]}`).data, i * data.length));
      put(`${part[1]}attn.qkv${part[3]}`, fused);
    }
  }
  return out;
}

const json = (value) => Buffer.from(JSON.stringify(value));

const file = (tensors) => Buffer.concat(safetensors(tensors));

/** The files of a clip's model: its weights as V-JEPA 1's checkpoints have them, and once more under the names of `shapes`, for the rivals. */
function clipCheckpoint(model) {
  const { hiddenSize, layers, heads, imageSize, patchSize, frames, tubelet, eps } = model;
  const tensors = weights(model);
  return {
    "config.json": json({ system: "vjepa", imageSize, patchSize, frames, tubelet, hiddenSize, layers, heads, layerNormEps: eps, predictor: null }),
    "model.safetensors": file(original(tensors)),
    "separate.safetensors": file(tensors),
  };
}

/** The files of a model: config.json, preprocessor_config.json, model.safetensors, in Hugging Face's form for pictures. */
export function checkpoint(model) {
  if (model.frames > 1) return clipCheckpoint(model);
  return {
    "config.json": json({
      architectures: ["IJepaModel"],
      model_type: "ijepa",
      hidden_act: "gelu",
      hidden_size: model.hiddenSize,
      image_size: model.imageSize,
      intermediate_size: model.mlpSize,
      layer_norm_eps: model.eps,
      num_attention_heads: model.heads,
      num_channels: 3,
      num_hidden_layers: model.layers,
      patch_size: model.patchSize,
      qkv_bias: true,
    }),
    "preprocessor_config.json": json({
      image_processor_type: "ViTImageProcessor",
      do_resize: true, do_rescale: true, do_normalize: true,
      image_mean: [0.5, 0.5, 0.5], image_std: [0.5, 0.5, 0.5],
      resample: 2, rescale_factor: 1 / 255,
      size: { height: model.imageSize, width: model.imageSize },
    }),
    "model.safetensors": file(weights(model)),
  };
}
