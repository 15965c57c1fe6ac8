// The models under test: published ViT geometries with the fixtures' pseudo-random weights (tests/fixtures/README.md §3),
// so that nothing is downloaded and every contestant gets the same numbers.

const PATCH = 16;
const IMAGE = 224;
const GRID = IMAGE / PATCH;
const TOKENS = GRID * GRID;
const SALT = "bench/";

const geometry = (hiddenSize, layers, heads) => ({ imageSize: IMAGE, patchSize: PATCH, tokens: TOKENS, hiddenSize, layers, heads, mlpSize: 4 * hiddenSize, eps: 1e-6 });

export const MODELS = {
  "vit-ti": geometry(192, 12, 3),
  "vit-s": geometry(384, 12, 6),
  "vit-b": geometry(768, 12, 12),
};

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

/** I-JEPA's fixed 2-D sincos table; the first half of the channels encodes the column. */
export function positionTable([rows, columns], hiddenSize) {
  const quarter = hiddenSize / 4;
  const out = new Float32Array(rows * columns * hiddenSize);
  for (let token = 0; token < rows * columns; token++) {
    [token % columns, Math.floor(token / columns)].forEach((position, half) => {
      for (let i = 0; i < quarter; i++) {
        const angle = position * 10000 ** (-i / quarter);
        const at = token * hiddenSize + half * 2 * quarter + i;
        out[at] = Math.sin(angle);
        out[at + quarter] = Math.cos(angle);
      }
    });
  }
  return out;
}

const product = (shape) => shape.reduce((a, b) => a * b, 1);

/**
 * Hugging Face names and shapes, in file order.
 * @returns {[name: string, shape: number[]][]}
 */
export function shapes({ hiddenSize: d, layers, mlpSize }) {
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
    ["embeddings.position_embeddings", [1, TOKENS, d]],
    ["embeddings.patch_embeddings.projection.weight", [d, 3, PATCH, PATCH]],
    ["embeddings.patch_embeddings.projection.bias", [d]],
    ...Array.from({ length: layers }, (_, i) => block(i)).flat(),
    ...norm("layernorm"),
  ];
}

function values(name, shape) {
  if (name === "embeddings.position_embeddings") return positionTable([GRID, GRID], shape[2]);
  const data = pseudoRandom(SALT + name, product(shape), 0.1);
  if (/norm.*\.weight$/.test(name)) for (let i = 0; i < data.length; i++) data[i] += 1;
  return data;
}

/** Map of tensor name to { shape, data }. */
export function weights(model) {
  return new Map(shapes(model).map(([name, shape]) => [name, { shape, data: values(name, shape) }]));
}

/** Tensors, by name { shape, data }, as the parts of a safetensors file. */
export function safetensors(tensors) {
  const header = { __metadata__: { format: "pt" } };
  let end = 0;
  for (const [name, { shape, data }] of tensors) {
    header[name] = { dtype: "F32", shape, data_offsets: [end, (end += data.byteLength)] };
  }
  const json = JSON.stringify(header);
  const head = new TextEncoder().encode(json.padEnd(Math.ceil(json.length / 8) * 8));
  const length = new BigUint64Array([BigInt(head.length)]);
  return [length, head, ...[...tensors.values()].map(({ data }) => data)].map(({ buffer, byteOffset, byteLength }) => new Uint8Array(buffer, byteOffset, byteLength));
}

/** The Hugging Face files of a model: config.json, preprocessor_config.json, model.safetensors. */
export function checkpoint(model) {
  return {
    "config.json": Buffer.from(JSON.stringify({
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
    })),
    "preprocessor_config.json": Buffer.from(JSON.stringify({
      image_processor_type: "ViTImageProcessor",
      do_resize: true, do_rescale: true, do_normalize: true,
      image_mean: [0.5, 0.5, 0.5], image_std: [0.5, 0.5, 0.5],
      resample: 2, rescale_factor: 1 / 255,
      size: { height: model.imageSize, width: model.imageSize },
    })),
    "model.safetensors": Buffer.concat(safetensors(weights(model))),
  };
}
