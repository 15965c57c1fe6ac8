// The backends agree on geometries that no published model has: head widths and matrices that are no multiple of four, grey
// pictures, grids that are not square, one token, more tokens than fill a workgroup, matrices that are loaded in several pieces.

import { readFileSync } from "node:fs";
import { afterEach, beforeEach, expect, it } from "vitest";
import { pseudoRandom } from "../../www/bench/models.mjs";
import type { Dtype, ModelConfig } from "../../www/src/index.js";
import { useLab, type TestPage } from "./harness.js";

const lab = useLab();
let test: TestPage;
beforeEach(async () => {
  test = await lab.openPage();
});
afterEach(() => test.close());

const GEOMETRIES: Record<string, ModelConfig> = {
  "odd heads and matrices": { imageSize: [21, 35], patchSize: 7, channels: 1, hiddenSize: 36, layers: 4, heads: 6, mlpRatio: 65 / 36, predictor: null },
  "one token": { imageSize: 8, patchSize: 8, hiddenSize: 8, layers: 4, heads: 1, mlpRatio: 4, predictor: null },
  "many tokens": { imageSize: [60, 92], patchSize: 4, hiddenSize: 24, layers: 4, heads: 2, mlpRatio: 3, predictor: null },
  // A piece of 1 MiB has 1008 of the rows of 260 values, or 248 of those of 1045; 1045 packed values do not fill their last word.
  "large matrices": { imageSize: 16, patchSize: 8, hiddenSize: 260, layers: 4, heads: 4, mlpRatio: 1045 / 260, predictor: null },
};

/** A safetensors file in the original naming, without position table, of the fixtures' pseudo-random weights. */
function checkpoint({ patchSize, channels = 3, hiddenSize: d, layers, mlpRatio = 4 }: ModelConfig): Buffer {
  const hidden = Math.floor(d * mlpRatio);
  const block = (i: number): [string, number[]][] => [
    [`blocks.${i}.norm1.weight`, [d]],
    [`blocks.${i}.norm1.bias`, [d]],
    [`blocks.${i}.attn.qkv.weight`, [3 * d, d]],
    [`blocks.${i}.attn.qkv.bias`, [3 * d]],
    [`blocks.${i}.attn.proj.weight`, [d, d]],
    [`blocks.${i}.attn.proj.bias`, [d]],
    [`blocks.${i}.norm2.weight`, [d]],
    [`blocks.${i}.norm2.bias`, [d]],
    [`blocks.${i}.mlp.fc1.weight`, [hidden, d]],
    [`blocks.${i}.mlp.fc1.bias`, [hidden]],
    [`blocks.${i}.mlp.fc2.weight`, [d, hidden]],
    [`blocks.${i}.mlp.fc2.bias`, [d]],
  ];
  const shapes: [string, number[]][] = [
    ["patch_embed.proj.weight", [d, channels, patchSize, patchSize]],
    ["patch_embed.proj.bias", [d]],
    ...Array.from({ length: layers }, (_, i) => block(i)).flat(),
    ["norm.weight", [d]],
    ["norm.bias", [d]],
  ];
  const header: Record<string, { dtype: string; shape: number[]; data_offsets: number[] }> = {};
  let end = 0;
  const parts = shapes.map(([name, shape]) => {
    const data = pseudoRandom(name, shape.reduce((a, b) => a * b, 1), 0.1);
    if (/norm\d?\.weight$/.test(name)) data.forEach((value, i) => (data[i] = value + 1));
    header[name] = { dtype: "F32", shape, data_offsets: [end, (end += data.byteLength)] };
    return Buffer.from(data.buffer);
  });
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, ...parts]);
}

const dtypes: Dtype[] = ["f32", "f16", "q8"];
it.each(Object.keys(GEOMETRIES).flatMap((name) => dtypes.map((dtype) => [name, dtype] as const)))("on %s, weights in %s", async (name, dtype) => {
  const config = GEOMETRIES[name]!;
  lab.server.files.set("odd.safetensors", checkpoint(config));
  const [cpu, gpu] = await test.page.evaluate(
    async ({ config, dtype }) => {
      const [height, width] = typeof config.imageSize === "number" ? [config.imageSize, config.imageSize] : config.imageSize;
      const channels = config.channels ?? 3;
      const picture = (seed: number) => ({ data: Float32Array.from({ length: height * width * channels }, (_, i) => Math.sin(i * 0.7 + seed)), width, height, channels });
      const embedded = async (backend: "cpu" | "webgpu") => {
        const jepa = await webjepa.Jepa.load("/odd.safetensors", { config, dtype, backend, worker: false });
        const { data, shape } = await jepa.embed([picture(0), picture(1), picture(2)], { pool: "none", preprocess: false });
        const last4 = await jepa.embed([picture(0), picture(1), picture(2)], { pool: "last4-mean", preprocess: false });
        await jepa.dispose();
        return { data: [...data, ...last4.data], shape };
      };
      return [await embedded("cpu"), await embedded("webgpu")];
    },
    { config, dtype },
  );
  expect(gpu!.shape).toEqual(cpu!.shape);
  const worst = cpu!.data.reduce((most, value, i) => Math.max(most, Math.abs(value - gpu!.data[i]!)), 0);
  expect(cpu!.data.some((value) => Math.abs(value) > 0.5)).toBe(true);
  // The tolerance of the fixtures for activations in f32 on WebGPU; both sides hold the same rounded weights.
  expect(worst).toBeLessThan(1e-4);
});

it("whether subgroups share the rows of products or not, bit for bit", async () => {
  const names = Object.keys(GEOMETRIES);
  for (const name of names) lab.server.files.set(`${name}.safetensors`, checkpoint(GEOMETRIES[name]!));
  const computed = ({ page }: TestPage, shared: boolean) =>
    page.evaluate(
      async ({ geometries, dtypes, shared }) => {
        if (!shared) {
          Object.defineProperty(GPUAdapterInfo.prototype, "subgroupMinSize", { get: () => 4 });
          Object.defineProperty(GPUAdapterInfo.prototype, "subgroupMaxSize", { get: () => 128 });
        }
        let enabled = 0;
        const { createShaderModule } = GPUDevice.prototype;
        GPUDevice.prototype.createShaderModule = function (descriptor) {
          if (descriptor.code.includes("enable subgroups") && descriptor.code.includes("subgroupBroadcast")) enabled++;
          return createShaderModule.call(this, descriptor);
        };
        const values: number[] = [];
        const take = (list: ArrayLike<number>) => Array.from(list, (value) => values.push(value));
        const backend = { backend: "webgpu", worker: false } as const;
        const picture = (width: number, height: number, channels: number, seed: number) => ({
          data: Float32Array.from({ length: height * width * channels }, (_, i) => Math.sin(i * 0.7 + seed)),
          width,
          height,
          channels,
        });
        for (const [name, config] of Object.entries(geometries)) {
          const [height, width] = typeof config.imageSize === "number" ? [config.imageSize, config.imageSize] : config.imageSize;
          const pictures = [0, 1, 2].map((seed) => picture(width, height, config.channels ?? 3, seed));
          for (const dtype of dtypes) {
            const jepa = await webjepa.Jepa.load(`/${name}.safetensors`, { config, dtype, ...backend });
            for (const input of [pictures, pictures[0]!]) take((await jepa.embed(input, { pool: "none", preprocess: false })).data);
            await jepa.dispose();
          }
        }
        const model = { imageSize: 30, patchSize: 5, hiddenSize: 36, layers: 2, heads: 3, mlpRatio: 3, predictor: { hiddenSize: 20, layers: 1, heads: 2 } };
        for (const dtype of ["f32", "f16"] as const) {
          const trainer = await webjepa.Trainer.create({ model, dtype, batchSize: 3, seed: 7, masks: { strategy: "random" }, schedule: { steps: 10 }, ...backend });
          for (let step = 0; step < 2; step++) values.push((await trainer.step([0, 1, 2].map((seed) => picture(30, 30, 3, seed)), { preprocess: false })).gradNorm);
          take(await trainer.save());
          await trainer.dispose();
        }
        const { info } = (await navigator.gpu.requestAdapter())!;
        return { sizes: [info.subgroupMinSize, info.subgroupMaxSize], enabled, values };
      },
      { geometries: GEOMETRIES, dtypes, shared },
    );
  const other = await lab.openPage();
  const [shared, plain] = [await computed(test, true), await computed(other, false)];
  await other.close();
  expect(plain.sizes).toEqual([4, 128]);
  expect(plain.enabled).toBe(0);
  // SwiftShader's are four wide, half a line.
  expect(shared.sizes).toEqual([4, 4]);
  expect(shared.enabled).toBeGreaterThan(10);
  expect(shared.values).toEqual(plain.values);
});

it("on what V-JEPA 2-AC imagines, plans and learns", async () => {
  const [cpu, gpu] = await test.page.evaluate(async () => {
    const { Trainer, WorldModel } = webjepa;
    const model = {
      system: "vjepa2",
      imageSize: [16, 24] as [number, number],
      patchSize: 8,
      frames: 8,
      hiddenSize: 36,
      layers: 2,
      heads: 2,
      predictor: { hiddenSize: 28, layers: 2, heads: 2, actions: { actionSize: 3, stateSize: 3 } },
    } as const;
    const host = { worker: false } as const;
    const begun = await Trainer.create({ model, objective: { kind: "vjepa2-ac", frames: 4, autoSteps: 3 }, batchSize: 2, seed: 3, backend: "cpu", ...host });
    const numbers = (count: number, seed: number) => Float32Array.from({ length: count }, (_, i) => Math.sin(i * 0.7 + seed));
    const picture = (seed: number) => ({ data: numbers(16 * 24 * 3, seed), width: 24, height: 16, channels: 3 });
    const windows = [0, 1].map((n) => ({ frames: [0, 1, 2, 3].map((i) => picture(10 * n + i)), actions: [0, 1, 2].map((i) => numbers(3, n + i)), states: [0, 1, 2, 3].map((i) => numbers(3, 5 * n + i)) }));
    const [files, save] = [await begun.export("original"), await begun.save()];
    await begun.dispose();
    const computed = async (backend: "cpu" | "webgpu") => {
      const world = await WorldModel.load(files as never, { backend, ...host });
      const { data } = await world.encode([picture(0), picture(1), picture(2)], { preprocess: false });
      const size = data.length / 3;
      const from = { embeddings: data.slice(0, 2 * size), actions: [numbers(3, 1)], states: [numbers(3, 2), numbers(3, 3)] };
      const steps = await world.rollout(from, [[numbers(3, 4), numbers(3, 5)], [numbers(3, 6), numbers(3, 7)]]);
      const { costs } = await world.plan(from, data.slice(2 * size), { samples: 30, elites: 5, iterations: 1, seed: 4 });
      const trainer = await Trainer.resume(save, { backend, ...host });
      const metrics = [await trainer.step(windows, { preprocess: false }), await trainer.step(windows, { preprocess: false })];
      await Promise.all([world.dispose(), trainer.dispose()]);
      return { activations: [...data, ...steps.data, ...costs], losses: metrics.flatMap(({ loss, gradNorm, parts }) => [loss, gradNorm, parts.autoregressive!]) };
    };
    return [await computed("cpu"), await computed("webgpu")];
  });
  const far = (a: number[], b: number[]) => a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);
  expect(gpu!.activations).toHaveLength(cpu!.activations.length);
  expect(far(cpu!.activations, gpu!.activations)).toBeLessThan(1e-4);
  expect(far(cpu!.losses, gpu!.losses)).toBeLessThan(1e-3);
  expect(cpu!.losses[3]).not.toBe(cpu!.losses[0]);
});

it("on what LeWorldModel imagines, plans and learns", async () => {
  const [cpu, gpu] = await test.page.evaluate(async () => {
    const { Trainer } = webjepa;
    const model = {
      system: "lewm",
      imageSize: 12,
      patchSize: 4,
      hiddenSize: 12,
      layers: 2,
      heads: 3,
      lewm: { actionSize: 3, actionChannels: 5, projectorHidden: 14, layers: 2, heads: 3, headDim: 6, mlpHidden: 20 },
    } as const;
    const host = { worker: false } as const;
    const begun = await Trainer.create({ model, objective: "lewm", batchSize: 6, seed: 3, backend: "cpu", ...host });
    const numbers = (count: number, seed: number) => Float32Array.from({ length: count }, (_, i) => Math.sin(i * 0.7 + seed));
    const picture = (seed: number) => ({ data: numbers(12 * 12 * 3, seed), width: 12, height: 12, channels: 3 });
    const { frames } = begun.info;
    const windows = Array.from({ length: 6 }, (_, n) => ({ frames: Array.from({ length: frames }, (_, i) => picture(10 * n + i)), actions: Array.from({ length: frames - 1 }, (_, i) => numbers(3, n + i)) }));
    const save = await begun.save();
    await begun.dispose();
    const computed = async (backend: "cpu" | "webgpu") => {
      const trainer = await Trainer.resume(save, { backend, ...host });
      const world = await trainer.world();
      const { data } = await world.encode([picture(0), picture(1), picture(2)], { preprocess: false });
      const size = data.length / 3;
      const from = { embeddings: data.slice(0, 2 * size), actions: [numbers(3, 1)] };
      const steps = await world.rollout(from, [[numbers(3, 4), numbers(3, 5)], [numbers(3, 6), numbers(3, 7)]]);
      const goal = data.slice(2 * size);
      const { costs } = await world.plan(from, goal, { samples: 30, elites: 5, iterations: 1, horizon: 2, seed: 4 });
      const slid = await world.plan(from, goal, { planner: "gradient", samples: 4, iterations: 3, horizon: 2, seed: 4 });
      const metrics = [await trainer.step(windows, { preprocess: false }), await trainer.step(windows, { preprocess: false })];
      await Promise.all([world.dispose(), trainer.dispose()]);
      return { activations: [...data, ...steps.data, ...slid.actions.data], costs: [...costs, ...slid.costs], losses: metrics.flatMap(({ loss, gradNorm, parts }) => [loss, gradNorm, parts.sigreg!]) };
    };
    return [await computed("cpu"), await computed("webgpu")];
  });
  const far = (a: number[], b: number[]) => a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);
  expect(gpu!.activations).toHaveLength(cpu!.activations.length);
  expect(cpu!.activations.some((value) => Math.abs(value) > 0.5)).toBe(true);
  expect(far(cpu!.activations, gpu!.activations)).toBeLessThan(1e-4);
  // Sums over 12 features of squares near 1.
  expect(far(cpu!.costs, gpu!.costs)).toBeLessThan(1e-3);
  expect(far(cpu!.losses, gpu!.losses)).toBeLessThan(1e-3);
  expect(cpu!.losses[3]).not.toBe(cpu!.losses[0]);
});

it("reads back once a round of a plan, in however many passes that is predicted", async () => {
  lab.server.files.set("counters.js", readFileSync(new URL("../../www/bench/counters.js", import.meta.url)));
  await test.page.addScriptTag({ type: "module", content: 'import { count } from "/counters.js"; globalThis.calls = count();' });
  await test.page.waitForFunction(() => "calls" in globalThis);
  const counted = await test.page.evaluate(async () => {
    const { Trainer } = webjepa;
    const { calls } = globalThis as unknown as { calls: { readBacks: number } };
    const numbers = (length: number, seed: number) => Float32Array.from({ length }, (_, i) => Math.sin(i * 0.7 + seed));
    const picture = (seed: number) => ({ data: numbers(16 * 16 * 3, seed), width: 16, height: 16, channels: 3 });
    const sizes = { imageSize: 16, patchSize: 8, hiddenSize: 24, layers: 1, heads: 2 };
    const models = [
      // A frame has 6 tokens, so that of two frames 341 sequences go through the predictor at once.
      { model: { ...sizes, system: "vjepa2", frames: 8, predictor: { hiddenSize: 28, layers: 1, heads: 2, actions: { actionSize: 2, stateSize: 2 } } }, objective: { kind: "vjepa2-ac", frames: 4 }, states: [[0, 0]] },
      { model: { ...sizes, system: "lewm", lewm: { actionSize: 2, actionChannels: 4, projectorHidden: 16, layers: 1, heads: 2, headDim: 8, mlpHidden: 16 } }, objective: "lewm", states: undefined },
    ] as const;
    const found: number[] = [];
    for (const { model, objective, states } of models) {
      const trainer = await Trainer.create({ model: model as never, objective, batchSize: 2, seed: 1, backend: "webgpu", worker: false });
      const world = await trainer.world();
      const [now, goal] = [await world.encode(picture(0), { preprocess: false }), await world.encode(picture(1), { preprocess: false })];
      for (const options of [{ planner: "cem", elites: 10, iterations: 3 }, { planner: "gradient", iterations: 2 }] as const) {
        const before = calls.readBacks;
        await world.plan({ embeddings: now, ...(states ? { states } : {}) }, goal, { ...options, horizon: 2, samples: 700, axes: [{ limit: 1 }, { limit: 1 }] });
        found.push(calls.readBacks - before);
      }
      await Promise.all([world.dispose(), trainer.dispose()]);
    }
    return found;
  });
  expect(counted).toEqual([3, 2, 3, 2]);
});
