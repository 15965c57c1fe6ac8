// What agreement.mjs does in its page: one model on every backend and in every type, for its own input and for odd ones.

import { Jepa, sampleMasks, WorldModel } from "webjepa";

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

/** Everything that a model says, by what and of which input. */
async function valuesOf({ source, config }, backend, dtype) {
  const options = { backend, dtype, ...(config ? { config } : {}) };
  const found = new Map();
  if (config?.system === "lewm") {
    const world = await WorldModel.load(source, options);
    const size = [config.imageSize, config.imageSize];
    const { data } = await world.encode([1, 2, 3].map((seed) => picture(size, seed)), { preprocess: false });
    found.set("embedding\0three at once", data);
    const actions = Float32Array.from({ length: 5 * 4 * world.actionSize }, (_, i) => Math.sin(i * 1.3));
    const from = data.slice(0, data.length / 3);
    found.set("rollout\0five of four actions", (await world.rollout(from, { data: actions, shape: [5, 4, world.actionSize] })).data);
    await world.dispose();
    return found;
  }
  const jepa = await Jepa.load(source, options);
  for (const [name, input] of inputsOf(jepa)) {
    found.set(`tokens\0${name}`, (await jepa.embed(input, { pool: "none", preprocess: false })).data);
    found.set(`mean\0${name}`, (await jepa.embed(input, { preprocess: false })).data);
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
