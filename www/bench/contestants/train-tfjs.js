// TensorFlow.js: gradients by its tape, with one hand-written gradient for each compound that it would else take apart into many kernels.
import { decays, transposed } from "../training.mjs";
import { load } from "./tfjs.js";

/** Operations with their gradients. Rows are the flattened leading axes. */
function operations(tf, backend) {
  // The wasm backend has fast kernels for plain products of two matrices only: transposing first is ten times as fast.
  const explicit = backend === "wasm";
  const timesTransposed = (a, b) => (explicit ? tf.matMul(a, tf.transpose(b)) : tf.matMul(a, b, false, true));
  const transposedTimes = (a, b) => (explicit ? tf.matMul(tf.transpose(a), b) : tf.matMul(a, b, true, false));
  const columnSums = (x) => tf.matMul(tf.ones([1, x.shape[0]]), x).reshape([x.shape[1]]);

  const linear = tf.customGrad((x, weight, bias, save) => {
    save([x, weight]);
    return {
      value: tf.fused.matMul({ a: x, b: weight, bias }),
      gradFunc: (dy, [x, weight]) => [timesTransposed(dy, weight), transposedTimes(x, dy), columnSums(dy)],
    };
  });

  const standardize = (x, eps) => {
    const centred = tf.sub(x, tf.mean(x, -1, true));
    const inverse = tf.rsqrt(tf.add(tf.mean(tf.square(centred), -1, true), eps));
    return { inverse, unit: tf.mul(centred, inverse) };
  };

  const layerNorm = (eps) =>
    tf.customGrad((x, gain, bias, save) => {
      const { inverse, unit } = standardize(x, eps);
      save([unit, inverse, gain]);
      return {
        value: tf.add(tf.mul(unit, gain), bias),
        gradFunc(dy, [unit, inverse, gain]) {
          const dUnit = tf.mul(dy, gain);
          const dyUnit = tf.mul(dy, unit);
          const along = tf.mean(tf.mul(dUnit, unit), -1, true);
          const dx = tf.mul(tf.sub(tf.sub(dUnit, tf.mean(dUnit, -1, true)), tf.mul(unit, along)), inverse);
          return [dx, columnSums(dyUnit), columnSums(dy)];
        },
      };
    });

  const gelu = tf.customGrad((x, save) => {
    const below = tf.mul(tf.add(tf.erf(tf.mul(x, Math.SQRT1_2)), 1), 0.5);
    save([x, below]);
    return {
      value: tf.mul(x, below),
      gradFunc(dy, [x, below]) {
        const density = tf.mul(tf.exp(tf.mul(tf.square(x), -0.5)), 1 / Math.sqrt(2 * Math.PI));
        return tf.mul(dy, tf.add(below, tf.mul(x, density)));
      },
    };
  });

  /** Beta 1. */
  const smoothL1 = tf.customGrad((difference, save) => {
    save([difference]);
    const size = tf.abs(difference);
    const near = tf.minimum(size, 1);
    return {
      // ½ near² + (size − near) is the square below 1 and the line above.
      value: tf.mean(tf.add(tf.mul(tf.square(near), 0.5), tf.sub(size, near))),
      gradFunc: (dy, [difference]) => tf.mul(tf.clipByValue(difference, -1, 1), tf.div(dy, difference.size)),
    };
  });

  return { linear, standardize, layerNorm, gelu, smoothL1 };
}

export async function create({ libraries, task, device, threads = 1, backend = device === "webgpu" ? "webgpu" : "wasm", joined = backend !== "wasm" }) {
  const tf = await load(libraries, backend, threads);
  const { batch, encoder, predictor, patchSize, contextLength, targetLength, targets, eps, targetEps, optimizer, momentum } = task;
  const [rows, columns] = task.grid;
  const tokens = rows * columns;
  const pixels = 3 * patchSize * patchSize;
  const { linear, standardize, layerNorm, gelu, smoothL1 } = operations(tf, backend);
  const normalize = layerNorm(eps);

  const isTarget = ([name]) => name.startsWith("target_");
  const place = ([name, { shape, data }]) => {
    if (!decays(name, shape) || name.endsWith("mask_token")) return { name, shape, data };
    const out = shape[0];
    return { name, shape: [data.length / out, out], data: transposed(data, out, data.length / out) };
  };
  const weights = [...task.weights()].filter(([name]) => !name.endsWith("pos_embed"));
  const sources = new Map(weights.filter(isTarget));
  const own = weights.filter((entry) => !isTarget(entry)).map(place);
  const ofEncoder = own.filter(({ name }) => name.startsWith("encoder."));
  const ofPredictor = own.filter(({ name }) => !name.startsWith("encoder."));

  // The optimizer works on groups of parameters, each joined to one vector: one vector for the encoder and one for the predictor are a dozen kernels each
  // instead of a dozen for each parameter. The wasm backend copies the whole vector to take a parameter out of it, so there each is a group of its own.
  const groups = joined ? [ofEncoder, ofPredictor] : [...ofEncoder, ...ofPredictor].map((entry) => [entry]);
  const followed = groups.filter(([{ name }]) => name.startsWith("encoder."));
  const join = (tensors) => (tensors.length > 1 ? tf.concat(tensors.map((tensor) => tensor.flatten())) : tensors[0]);
  const vector = (group) => join(group.map(({ shape, data }) => tf.tensor(data, shape)));
  const parts = (flat, group) => (group.length > 1 ? tf.split(flat, group.map(({ data }) => data.length)).map((part, i) => part.reshape(group[i].shape)) : [flat]);
  const named = (vectors, groups) => Object.fromEntries(groups.flatMap((group, i) => parts(vectors[i], group).map((tensor, j) => [group[j].name, tensor])));

  const { lr, weightDecay, beta1, beta2, eps: tiny } = optimizer;
  let state = tf.tidy(() => {
    const params = groups.map(vector);
    return {
      params,
      first: params.map((tensor) => tf.zerosLike(tensor)),
      second: params.map((tensor) => tf.zerosLike(tensor)),
      target: followed.map((group) => vector(group.map(({ name }) => place([name, sources.get(`target_${name}`)])))),
    };
  });
  // What decay leaves of a parameter in one step.
  const keeps = ({ name, shape }) => (decays(name, shape) ? 1 - lr * weightDecay : 1);
  const kept = groups.map((group) => (group.length > 1 ? tf.tidy(() => join(group.map((entry) => tf.fill([entry.data.length], keeps(entry))))) : keeps(group[0])));
  const table = (name) => tf.tensor2d(task.weights().get(name).data, [tokens, task.weights().get(name).shape[2]]);
  const tables = { wide: table("encoder.pos_embed"), narrow: table("predictor.predictor_pos_embed") };

  const attention = (w, at, x, heads, length) => {
    const d = x.shape[1];
    const sequences = x.shape[0] / length;
    const qkv = linear(x, w[`${at}.qkv.weight`], w[`${at}.qkv.bias`]).reshape([sequences, length, 3 * heads, d / heads]).transpose([0, 2, 1, 3]);
    const [q, k, v] = tf.split(qkv, 3, 1);
    const mixed = tf.matMul(tf.softmax(tf.mul(tf.matMul(q, k, false, true), Math.sqrt(heads / d))), v);
    return linear(mixed.transpose([0, 2, 1, 3]).reshape(x.shape), w[`${at}.proj.weight`], w[`${at}.proj.bias`]);
  };
  const norm = (w, name, x) => normalize(x, w[`${name}.weight`], w[`${name}.bias`]);
  const mlp = (w, at, x) => linear(gelu(linear(x, w[`${at}.fc1.weight`], w[`${at}.fc1.bias`])), w[`${at}.fc2.weight`], w[`${at}.fc2.bias`]);
  const blocks = (w, name, { layers, heads }, length, x) => {
    for (let i = 0; i < layers; i++) {
      const at = `${name}.${i}`;
      x = tf.add(x, attention(w, `${at}.attn`, norm(w, `${at}.norm1`, x), heads, length));
      x = tf.add(x, mlp(w, `${at}.mlp`, norm(w, `${at}.norm2`, x)));
    }
    return x;
  };
  const encode = (w, patches, positions, length) => {
    const x = tf.add(linear(patches, w["encoder.patch_embed.proj.weight"], w["encoder.patch_embed.proj.bias"]), positions);
    return norm(w, "encoder.norm", blocks(w, "encoder.blocks", encoder, length, x));
  };
  const predict = (w, context, contextPositions, targetPositions) => {
    const d = predictor.hiddenSize;
    const known = tf.add(linear(context, w["predictor.predictor_embed.weight"], w["predictor.predictor_embed.bias"]), contextPositions).reshape([batch, contextLength, d]);
    const queries = tf.add(w["predictor.mask_token"], targetPositions.reshape([targets * batch, targetLength, d]));
    const length = contextLength + targetLength;
    const x = tf.concat([tf.concat(Array(targets).fill(known), 0), queries], 1).reshape([targets * batch * length, d]);
    const all = blocks(w, "predictor.predictor_blocks", predictor, length, x).reshape([targets * batch, length, d]);
    const answers = all.slice([0, contextLength, 0]).reshape([targets * batch * targetLength, d]);
    return linear(norm(w, "predictor.predictor_norm", answers), w["predictor.predictor_proj.weight"], w["predictor.predictor_proj.bias"]);
  };

  const step = (i) => {
    const { planar, context, targets: wanted } = task.inputs(i);
    const integers = (data) => tf.tensor1d(data, "int32");
    const contextTokens = integers(context);
    const contextRows = integers(context.map((token, at) => Math.floor(at / contextLength) * tokens + token));
    const targetRows = integers(wanted.map((token, at) => (Math.floor(at / targetLength) % batch) * tokens + token));
    const patches = tf.tensor(planar, [batch, 3, rows, patchSize, columns, patchSize]).transpose([0, 2, 4, 1, 3, 5]).reshape([batch * tokens, pixels]);
    const everywhere = tf.concat(Array(batch).fill(tables.wide), 0);
    const goal = tf.gather(standardize(encode(named(state.target, followed), patches, everywhere, tokens), targetEps).unit, targetRows);
    const seen = tf.gather(patches, contextRows);
    const seenPositions = tf.gather(tables.wide, contextTokens);
    const contextPositions = tf.gather(tables.narrow, contextTokens);
    const targetPositions = tf.gather(tables.narrow, integers(wanted));

    const tensors = named(state.params, groups);
    const names = Object.keys(tensors);
    const { value: loss, grads } = tf.valueAndGrads((...values) => {
      const w = Object.fromEntries(names.map((name, at) => [name, values[at]]));
      return smoothL1(tf.sub(predict(w, encode(w, seen, seenPositions, contextLength), contextPositions, targetPositions), goal));
    })(Object.values(tensors));
    const gradientOf = Object.fromEntries(names.map((name, at) => [name, grads[at]]));

    // The bias corrections 1 − βᵗ, drawn out of the quotient.
    const [unbias, unbiasRoot] = [1 - beta1 ** (i + 1), Math.sqrt(1 - beta2 ** (i + 1))];
    const next = { params: [], first: [], second: [], target: [] };
    groups.forEach((group, at) => {
      const gradient = join(group.map(({ name }) => gradientOf[name]));
      const first = tf.add(tf.mul(state.first[at], beta1), tf.mul(gradient, 1 - beta1));
      const second = tf.add(tf.mul(state.second[at], beta2), tf.mul(tf.square(gradient), 1 - beta2));
      const change = tf.div(first, tf.add(tf.sqrt(second), tiny * unbiasRoot));
      const params = tf.sub(tf.mul(state.params[at], kept[at]), tf.mul(change, (lr * unbiasRoot) / unbias));
      next.first.push(first);
      next.second.push(second);
      next.params.push(params);
    });
    state.target.forEach((old, at) => next.target.push(tf.add(tf.mul(old, momentum), tf.mul(next.params[at], 1 - momentum))));
    return { loss, next };
  };

  return {
    setting: backend === "wasm" && threads > 1 ? `wasm, ${threads} threads` : backend,
    async step(i) {
      // The backend in use is one for the whole page, and another contestant may be on another.
      await tf.setBackend(backend);
      const { loss, next } = tf.tidy(() => step(i));
      const [value] = await loss.data();
      tf.dispose([loss, state]);
      state = next;
      return value;
    },
    dispose: () => tf.dispose([state, tables, kept]),
  };
}
