// jax-js: the whole encoder under one jit, weights resident on the device and passed as arguments.
import { inputShape, readSafetensors } from "../models.mjs";

export async function open({ libraries, model, batch, device, base }) {
  const { defaultDevice, init, jit, nn, numpy: np } = await import(libraries.jax);
  const backend = device === "webgpu" ? "webgpu" : "wasm";
  if (!(await init(backend)).includes(backend)) throw new Error(`jax-js has no ${backend} here`);
  defaultDevice(backend);

  const { hiddenSize: d, heads, layers, tokens, grid: [times, rows, columns], tubelet, patchSize, frames, eps } = model;
  const patchLength = 3 * tubelet * patchSize * patchSize;
  // Linear weights come as [out, in]; jax-js multiplies by [in, out] half as fast again.
  const place = ([name, { shape, data }]) => {
    if (shape.length !== 2) return [name, np.array(data).reshape(shape)];
    const [rows, columns] = shape;
    return [name, np.array(data.map((_, i) => data[(i % rows) * columns + Math.floor(i / rows)])).reshape([columns, rows])];
  };
  const weights = Object.fromEntries([...(await readSafetensors(`${base}/${frames > 1 ? "separate" : "model"}.safetensors`))].map(place));

  // jax-js counts references: `.ref` keeps an array that is used again, every other use consumes it.
  const linear = (w, name, x) => np.dot(x, w[`${name}.weight`]).add(w[`${name}.bias`]);
  const layerNorm = (w, name, x) => nn.standardize(x, -1, { epsilon: eps }).mul(w[`${name}.weight`]).add(w[`${name}.bias`]);
  const split = (x) => x.reshape([batch, tokens, heads, d / heads]);
  const attention = (w, at, x) => {
    const part = (name) => split(linear(w, `${at}.attention.${name}`, x.ref));
    const mixed = nn.dotProductAttention(part("query"), part("key"), part("value"));
    x.dispose();
    return linear(w, `${at}.output.dense`, mixed.reshape([batch, tokens, d]));
  };
  const mlp = (w, at, x) => linear(w, `${at}.output.dense`, nn.gelu(linear(w, `${at}.intermediate.dense`, x), { approximate: false }));
  const encode = jit((w, pixels) => {
    const patches = pixels
      .reshape([batch, 3, times, tubelet, rows, patchSize, columns, patchSize])
      .transpose([0, 2, 4, 6, 1, 3, 5, 7])
      .reshape([batch, tokens, patchLength]);
    const kernel = w["embeddings.patch_embeddings.projection.weight"].reshape([d, patchLength]).transpose();
    let x = np.dot(patches, kernel).add(w["embeddings.patch_embeddings.projection.bias"]).add(w["embeddings.position_embeddings"]);
    for (let i = 0; i < layers; i++) {
      const at = `encoder.layer.${i}`;
      x = x.ref.add(attention(w, `${at}.attention`, layerNorm(w, `${at}.layernorm_before`, x)));
      x = x.ref.add(mlp(w, at, layerNorm(w, `${at}.layernorm_after`, x)));
    }
    return layerNorm(w, "layernorm", x);
  });

  const hold = (tree) => Object.fromEntries(Object.entries(tree).map(([name, array]) => [name, array.ref]));
  return {
    name: "jax-js",
    setting: "one jit",
    run: async ({ planar }) => encode(hold(weights), np.array(planar).reshape([batch, ...inputShape(model)])).data(),
    close() {
      encode.dispose();
      Object.values(weights).forEach((array) => array.dispose());
    },
  };
}
