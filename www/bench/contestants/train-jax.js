// jax-js: the whole training step under one jit, its state resident on the device.
import { decays, transposed } from "../training.mjs";

export async function create({ libraries, task, device }) {
  const { defaultDevice, init, jit, nn, numpy: np, tree, valueAndGrad } = await import(libraries.jax);
  const backend = device === "webgpu" ? "webgpu" : "wasm";
  if (!(await init(backend)).includes(backend)) throw new Error(`jax-js has no ${backend} here`);
  defaultDevice(backend);

  const { batch, encoder, predictor, patchSize, contextLength, targetLength, targets, eps, targetEps, optimizer, momentum } = task;
  const [rows, columns] = task.grid;
  const tokens = rows * columns;
  const pixels = 3 * patchSize * patchSize;

  // Linear weights come as [out, in]; jax-js multiplies by [in, out] half as fast again.
  const place = ([name, { shape, data }]) => {
    if (name.endsWith("pos_embed")) return [name, np.array(data).reshape(shape.slice(1))];
    if (!decays(name, shape) || name.endsWith("mask_token")) return [name, np.array(data).reshape(shape)];
    const out = shape[0];
    return [name, np.array(transposed(data, out, data.length / out)).reshape([data.length / out, out])];
  };
  const placed = [...task.weights()].map(place);
  const part = (keep) => Object.fromEntries(placed.filter(([name]) => keep(name)));
  const isTable = (name) => name.endsWith("pos_embed");
  const tables = part((name) => isTable(name) && !name.startsWith("target_"));
  const params = part((name) => !isTable(name) && !name.startsWith("target_"));
  const target = Object.fromEntries(Object.entries(part((name) => !isTable(name) && name.startsWith("target_"))).map(([name, array]) => [name.slice("target_".length), array]));
  const zeros = () => tree.map((array) => np.zeros(array.shape), params);
  placed.filter(([name]) => isTable(name) && name.startsWith("target_")).forEach(([, array]) => array.dispose());

  // jax-js counts references: `.ref` keeps an array that is used again, every other use consumes it.
  const linear = (w, name, x) => np.dot(x, w[`${name}.weight`].ref).add(w[`${name}.bias`].ref);
  const layerNorm = (w, name, x) => nn.standardize(x, -1, { epsilon: eps }).mul(w[`${name}.weight`].ref).add(w[`${name}.bias`].ref);
  const attention = (w, at, x, heads) => {
    const [sequences, length, d] = x.shape;
    const qkv = np.split(linear(w, `${at}.qkv`, x), 3, -1).map((part) => part.reshape([sequences, length, heads, d / heads]));
    return linear(w, `${at}.proj`, nn.dotProductAttention(...qkv).reshape([sequences, length, d]));
  };
  const mlp = (w, at, x) => linear(w, `${at}.fc2`, nn.gelu(linear(w, `${at}.fc1`, x), { approximate: false }));
  const blocks = (w, name, { layers, heads }, x) => {
    for (let i = 0; i < layers; i++) {
      const at = `${name}.${i}`;
      x = x.ref.add(attention(w, `${at}.attn`, layerNorm(w, `${at}.norm1`, x), heads));
      x = x.ref.add(mlp(w, `${at}.mlp`, layerNorm(w, `${at}.norm2`, x)));
    }
    return x;
  };
  const encode = (w, patches, positions) => {
    const x = linear(w, "encoder.patch_embed.proj", patches).add(positions);
    return layerNorm(w, "encoder.norm", blocks(w, "encoder.blocks", encoder, x));
  };
  const predict = (w, context, contextPositions, targetPositions) => {
    const known = linear(w, "predictor.predictor_embed", context).add(contextPositions);
    const queries = w["predictor.mask_token"].ref.add(targetPositions);
    const x = np.concatenate([np.tile(known, [targets, 1, 1]), queries], 1);
    const [, answers] = np.split(blocks(w, "predictor.predictor_blocks", predictor, x), [contextLength], 1);
    return linear(w, "predictor.predictor_proj", layerNorm(w, "predictor.predictor_norm", answers));
  };
  const smoothL1 = (difference) => {
    const size = np.absolute(difference);
    return np.where(size.ref.less(1), np.square(size.ref).mul(0.5), size.sub(0.5)).mean();
  };

  const step = jit(({ params, first, second, target }, tables, { pictures, context, targetRows, contextRows, targetTokens }, corrections) => {
    const patches = pictures
      .reshape([batch, 3, rows, patchSize, columns, patchSize])
      .transpose([0, 2, 4, 1, 3, 5])
      .reshape([batch * tokens, pixels]);
    const positions = tables["encoder.pos_embed"];
    const narrow = tables["predictor.predictor_pos_embed"];
    const goal = np.take(
      nn.standardize(encode(target, patches.ref.reshape([batch, tokens, pixels]), positions.ref), -1, { epsilon: targetEps }).reshape([batch * tokens, encoder.hiddenSize]),
      targetRows, 0,
    ).reshape([targets * batch, targetLength, encoder.hiddenSize]);
    const seen = np.take(patches, contextRows, 0).reshape([batch, contextLength, pixels]);
    const seenPositions = np.take(positions, context.ref, 0);
    const contextPositions = np.take(narrow.ref, context, 0);
    const targetPositions = np.take(narrow, targetTokens, 0);

    const [loss, gradients] = valueAndGrad((w) => {
      const predicted = predict(w, encode(w, seen, seenPositions), contextPositions, targetPositions);
      tree.dispose(w);
      return smoothL1(predicted.sub(goal));
    })(tree.ref(params));

    const { lr, weightDecay, beta1, beta2, eps: tiny } = optimizer;
    const next = { params: {}, first: {}, second: {}, target: {} };
    for (const [name, gradient] of Object.entries(gradients)) {
      const m = first[name].mul(beta1).add(gradient.ref.mul(1 - beta1));
      const v = second[name].mul(beta2).add(np.square(gradient).mul(1 - beta2));
      const change = m.ref.mul(corrections.first.ref).div(np.sqrt(v.ref.mul(corrections.second.ref)).add(tiny));
      const kept = decays(name, params[name].shape) ? params[name].mul(1 - lr * weightDecay) : params[name];
      next.first[name] = m;
      next.second[name] = v;
      next.params[name] = kept.sub(change.mul(lr));
    }
    for (const [name, old] of Object.entries(target)) {
      next.target[name] = old.mul(momentum).add(next.params[name].ref.mul(1 - momentum));
    }
    tree.dispose(corrections);
    return [loss, next];
  });

  const integers = (data, shape) => np.array(data, { dtype: np.int32 }).reshape(shape);
  let state = { params, first: zeros(), second: zeros(), target };
  return {
    setting: "one jit",
    async step(i) {
      const { planar, context, targets: wanted } = task.inputs(i);
      const data = {
        pictures: np.array(planar),
        context: integers(context, [batch, contextLength]),
        contextRows: integers(context.map((token, at) => Math.floor(at / contextLength) * tokens + token), [batch * contextLength]),
        targetTokens: integers(wanted, [targets * batch, targetLength]),
        targetRows: integers(wanted.map((token, at) => (Math.floor(at / targetLength) % batch) * tokens + token), [wanted.length]),
      };
      const corrections = { first: np.array(1 / (1 - optimizer.beta1 ** (i + 1))), second: np.array(1 / (1 - optimizer.beta2 ** (i + 1))) };
      const [loss, next] = step(state, tree.ref(tables), data, corrections);
      state = next;
      const [value] = await loss.data();
      return value;
    },
    dispose() {
      step.dispose();
      tree.dispose([state, tables]);
    },
  };
}
