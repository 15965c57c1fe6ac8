// What agreement.mjs does in its page: one model on every backend and in every type, for its own input and for odd ones.

import { AttentiveProbe, Jepa, sampleMasks, WorldModel } from "webjepa";

/** Prepared pixels of a picture that is another for each seed, within the range of normalised ones. */
function picture([height, width], seed) {
  return { data: Float32Array.from({ length: height * width * 3 }, (_, i) => 1.5 * Math.sin(i * 0.37 + seed * 1.7) * Math.cos(i * 0.011 + seed)), width, height, channels: 3 };
}

/** Inputs by what they are called: sizes in patches, frames in tubelets, both odd. */
function inputsOf({ config, grid }) {
  const { patchSize: patch, system, tubelet = 1 } = config;
  const [height, width] = [config.imageSize].flat().length === 2 ? config.imageSize : [config.imageSize, config.imageSize];
  const sizes = { native: [height, width], "one patch": [patch, patch], "1 × 5 patches": [patch, 5 * patch], "7 × 3 patches": [7 * patch, 3 * patch] };
  const flat = system === undefined || system === "ijepa";
  const named = Object.entries(sizes).map(([name, size]) => {
    if (flat) return [name, picture(size, 1), 1];
    const frames = name === "native" ? grid[0] * tubelet : tubelet;
    return [`${name}, ${frames} frames`, Array.from({ length: frames }, (_, t) => picture(size, t)), frames];
  });
  if (flat) named.push(["three at once", [1, 2, 3].map((seed) => picture([height, width], seed)), 1]);
  else named.push(["native, one frame", picture([height, width], 1), 1], [`native, ${3 * tubelet} frames`, Array.from({ length: 3 * tubelet }, (_, t) => picture([height, width], t)), 3 * tubelet]);
  return named;
}

/** What a world model says: embeddings, what it imagines, and what plans cost. */
async function worldOf({ source, config }, options) {
  const found = new Map();
  const world = await WorldModel.load(source, options);
  const { imageSize: side } = config;
  const encoded = async (pictures, more) => (await world.encode(pictures, more)).data;
  const three = await encoded([1, 2, 3].map((seed) => picture([side, side], seed)), { preprocess: false });
  found.set("embedding\0three at once", three);
  found.set("embedding\0one", await encoded([picture([side, side], 1)], { preprocess: false }));
  for (const [height, width] of [[5, 31], [67, 9]]) {
    const data = Uint8Array.from({ length: height * width * 3 }, (_, i) => 128 + 127 * Math.sin(i * 0.7));
    found.set(`embedding\0${height} × ${width} pixels, preprocessed`, await encoded([{ data, width, height, channels: 3 }]));
  }
  const size = three.length / 3;
  const state = (i) => Float32Array.from({ length: world.stateSize }, (_, k) => 0.3 * Math.sin(i + k));
  const block = (i) => Float32Array.from({ length: world.actionSize }, (_, k) => 0.5 * Math.sin(1.3 * i + k));
  // Of one frame, and of as many as it can see.
  const episode = (frames) => ({
    embeddings: Float32Array.from({ length: frames * size }, (_, i) => three[i % three.length]),
    actions: Array.from({ length: frames - 1 }, (_, i) => block(i)),
    ...(world.stateSize > 0 ? { states: Array.from({ length: frames }, (_, i) => state(i)) } : {}),
  });
  for (const [name, frames, count, horizon] of [["five of four actions", 1, 5, 4], ["one of one action", 1, 1, 1], ["three of two actions, after all frames that it sees", world.history, 3, 2]]) {
    const actions = Float32Array.from({ length: count * horizon * world.actionSize }, (_, i) => 0.5 * Math.sin(i * 1.3));
    found.set(`rollout\0${name}`, (await world.rollout(episode(frames), { data: actions, shape: [count, horizon, world.actionSize] })).data);
  }
  const { costs } = await world.plan(episode(1), three.slice(2 * size), { samples: 9, elites: 3, iterations: 1, horizon: 2, seed: 4 });
  found.set("costs of plans\0nine of two actions", Float32Array.from(costs));
  await world.dispose();
  return found;
}

/** Everything that a model says, by what and of which input. */
async function valuesOf({ source, config, world, probe, heads }, backend, dtype) {
  const options = { backend, dtype, ...(config ? { config } : {}) };
  if (world) return worldOf({ source, config }, options);
  const found = new Map();
  const jepa = await Jepa.load(source, options);
  if (probe) {
    const reader = await AttentiveProbe.load(probe, { backend, heads });
    for (const [name, input] of inputsOf(jepa)) found.set(`scores of the probe\0${name}`, (await reader.predict(await jepa.embed(input, { pool: "none", preprocess: false }))).logits);
    await Promise.all([reader.dispose(), jepa.dispose()]);
    return found;
  }
  for (const [name, input] of inputsOf(jepa)) {
    found.set(`tokens\0${name}`, (await jepa.embed(input, { pool: "none", preprocess: false })).data);
    found.set(`mean\0${name}`, (await jepa.embed(input, { preprocess: false })).data);
    if (jepa.config.layers >= 4) found.set(`last4-mean\0${name}`, (await jepa.embed(input, { pool: "last4-mean", preprocess: false })).data);
  }
  // The Hugging Face layout of I-JEPA has no predictor.
  if (jepa.config.predictor) {
    const [, input] = inputsOf(jepa)[0];
    const flat = jepa.grid[0] === 1;
    const masks = sampleMasks(jepa.grid, flat ? { strategy: "random", ratio: [0.5, 0.5], seed: 1 } : { strategy: "vjepa-multiblock3d", seed: 1 });
    const { predicted } = await jepa.predict(input, { context: masks.context[0], targets: masks.targets.map(([block]) => block), preprocess: false });
    found.set("prediction\0native", predicted.data);
  }
  await jepa.dispose();
  return found;
}

export async function compared(model, columns) {
  const reference = await valuesOf(model, "cpu", "f32");
  const others = [];
  for (const [backend, dtype] of columns) others.push(await valuesOf(model, backend, dtype));
  return [...reference].map(([key, values]) => {
    const [what, input] = key.split("\0");
    const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const differences = others.map((other) => {
      const found = other.get(key);
      if (found?.length !== values.length) throw new Error(`${model.name}: ${key} has ${found?.length} values and not ${values.length}`);
      return values.reduce((most, value, i) => Math.max(most, Math.abs(value - found[i])), 0);
    });
    return { model: model.name, what, input, largest, differences };
  });
}
