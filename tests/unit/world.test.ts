// World models in Node with the real CPU module, against numbers of an implementation in PyTorch: see tests/data/README.md.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { Jepa, WorldModel, type Plan } from "../../www/src/index.js";

const data = (name: string) => fileURLToPath(new URL(`../data/${name}`, import.meta.url));
interface Numbers {
  shape: number[];
  data: number[];
}
const expected: Record<string, Numbers> = JSON.parse(readFileSync(data("lewm.json"), "utf8"));
const CONFIG = {
  system: "lewm",
  imageSize: 12,
  patchSize: 4,
  hiddenSize: 12,
  layers: 2,
  heads: 3,
  lewm: { actionSize: 3, actionChannels: 5, projectorHidden: 14, layers: 2, heads: 3, headDim: 6, mlpHidden: 20 },
} as const;
const D = CONFIG.hiddenSize;
const A = CONFIG.lewm.actionSize;

const load = (options: object = {}) =>
  WorldModel.load({ "config.json": JSON.stringify(CONFIG), "model.safetensors": new Blob([readFileSync(data("lewm.safetensors"))]) }, { backend: "cpu", ...options });
const differences = (a: ArrayLike<number>, b: ArrayLike<number>) => {
  expect(a.length).toBe(b.length);
  return Math.max(...Array.from(a, (value, i) => Math.abs(value - b[i]!)));
};
const rows = ({ data: values, shape }: Numbers) => Array.from({ length: shape[0]! }, (_, i) => values.slice((i * values.length) / shape[0]!, ((i + 1) * values.length) / shape[0]!));
const failure = (promise: Promise<unknown>) => promise.then(() => expect.unreachable("it should have failed"), (error) => error);

/** The pictures of the fixture as interleaved model input. */
const pictures = rows(expected.frames!).map((planar) => {
  const [, channels, height, width] = expected.frames!.shape as [number, number, number, number];
  const at = (i: number) => planar[(i % channels) * height * width + Math.floor(i / channels)]!;
  return { data: Float32Array.from({ length: planar.length }, (_, i) => at(i)), width, height, channels };
});
const embeddings = rows(expected.embeddings!);
const past = rows(expected.past!);

describe("a world model", () => {
  it("encodes pictures as the published implementation does", async () => {
    await using world = await load();
    expect(world).toMatchObject({ backend: "cpu", dtype: "f32", actionSize: A, history: 3 });
    expect(world.config).toMatchObject({ system: "lewm", hiddenSize: D });
    const all = await world.encode(pictures, { preprocess: false });
    expect(all.shape).toEqual([pictures.length, D]);
    expect(differences(all.data, expected.embeddings!.data)).toBeLessThan(2e-5);
    const one = await world.encode(pictures[0]!, { preprocess: false });
    expect(one).toEqual({ data: all.data.slice(0, D), shape: [D] });
  });

  it("tells what actions lead to", async () => {
    await using world = await load();
    const { shape } = expected.candidates!;
    const candidates = { data: Float32Array.from(expected.candidates!.data), shape };
    const now = await world.rollout(embeddings[0]!, candidates);
    expect(now.shape).toEqual([shape[0], shape[1], D]);
    expect(differences(now.data, expected.rollout_1!.data)).toBeLessThan(2e-5);
    const episode = { embeddings: embeddings.slice(0, 3).flat(), actions: past.slice(0, 2) };
    const later = await world.rollout(episode, candidates);
    expect(differences(later.data, expected.rollout_3!.data)).toBeLessThan(2e-5);
    const sequences = rows(expected.candidates!).map((sequence) => Array.from({ length: shape[1]! }, (_, i) => sequence.slice(i * A, (i + 1) * A)));
    expect((await world.rollout(episode, sequences)).data).toEqual(later.data);
    const first = await world.rollout(episode, sequences[0]!);
    expect(first).toEqual({ data: later.data.slice(0, shape[1]! * D), shape: [shape[1], D] });
  });

  it.each([
    ["cem", "last", 120],
    ["cem", "sum", 120],
    ["mppi", "last", 120],
    ["gradient", "last", 12],
    ["gradient", "sum", 12],
  ] as const)("plans by %s, which by the %s of its predictions costs less than doing nothing, and what it says it costs", async (planner, of, samples) => {
    await using world = await load();
    const [from, goal] = [embeddings[0]!, embeddings.at(-1)!];
    const options = { planner, cost: of, horizon: 3, samples, iterations: 12, seed: 4, ...(planner === "cem" ? { elites: 12 } : {}) };
    const cost = async ({ actions }: Pick<Plan, "actions">) => {
      const { data: steps } = await world.rollout(from, actions);
      return steps.slice(of === "last" ? -D : 0).reduce((sum, value, i) => sum + (value - goal[i % D]!) ** 2, 0);
    };
    const plan = await world.plan(from, goal, options);
    expect(plan.actions.shape).toEqual([3, A]);
    expect(plan.costs).toHaveLength(12);
    const nothing = await cost({ actions: { data: new Float32Array(3 * A), shape: [3, A] } });
    const planned = await cost(plan);
    expect(planned).toBeLessThan(nothing);
    // The mean of the last round is among the samples of none, but near its best.
    expect(planned).toBeLessThan(1.5 * Math.min(...plan.costs));
    expect(await world.plan(from, goal, options)).toEqual(plan);
    expect((await world.plan(from, goal, { ...options, seed: 5 })).actions.data).not.toEqual(plan.actions.data);
    const limited = await world.plan(from, goal, { ...options, limit: 0.1, start: plan.actions });
    expect(Math.max(...limited.actions.data.map(Math.abs))).toBeLessThanOrEqual(0.1 + 1e-6);
  });

  it.each([true, false])("stops planning between two rounds when it is aborted, in a worker: %s", async (worker) => {
    await using world = await load({ worker });
    const [from, goal] = [embeddings[0]!, embeddings[1]!];
    const abort = new AbortController();
    // Rounds enough for minutes.
    const planning = world.plan(from, goal, { iterations: 60_000, samples: 20, elites: 5, horizon: 2, signal: abort.signal });
    setTimeout(() => abort.abort(), 50);
    expect(await failure(planning)).toMatchObject({ code: "aborted" });
    expect((await world.plan(from, goal, { iterations: 1, samples: 8, elites: 2, horizon: 1 })).costs).toHaveLength(1);
  });

  it("refuses what does not fit, and goes on", async () => {
    await using world = await load();
    const [from, goal] = [embeddings[0]!, embeddings[1]!];
    const few = { horizon: 1, samples: 8, iterations: 1, elites: 2 };
    for (const [attempt, code, message] of [
      [() => world.encode([]), "bad-input", /empty/],
      [() => world.rollout(from, []), "bad-input", /array of action blocks/],
      [() => world.rollout(from, [[1, 2]]), "bad-input", /has 3 numbers; action 0 has 2/],
      [() => world.rollout(from, [[1, 2, NaN]]), "bad-input", /not finite/],
      [() => world.rollout(from, [[[1, 2, 3]], []]), "bad-input", /one length/],
      [() => world.rollout(from, { data: new Float32Array(6), shape: [3, 2] }), "bad-input", /\[horizon, 3\]/],
      [() => world.rollout(from.slice(1), [[1, 2, 3]]), "bad-input", /no embeddings of 12/],
      [() => world.rollout({ embeddings: embeddings.slice(0, 2).flat(), actions: [] }, [[1, 2, 3]]), "bad-input", /action/],
      [() => world.plan(from, goal.slice(1), few), "bad-input", /goal/],
      [() => world.plan(from, goal, { ...few, horizon: 0 }), "bad-input", /horizon/],
      [() => world.plan(from, goal, { ...few, elites: 9 }), "bad-config", /9 of 8 samples/],
      [() => world.plan(from, goal, { ...few, planner: "random" as "cem" }), "bad-input", /planner/],
      [() => world.plan(from, goal, { ...few, cost: "mean" as "sum" }), "bad-input", /cost/],
      [() => world.plan(from, goal, { ...few, sample: 3 } as object), "bad-input", /no option sample;/],
      [() => world.plan(from, goal, { ...few, start: [1] }), "bad-input", /start/],
    ] as const) {
      expect(await failure(attempt())).toMatchObject({ name: "JepaError", code, message: expect.stringMatching(message) });
    }
    const aborted = AbortSignal.abort();
    expect(await failure(world.plan(from, goal, { ...few, signal: aborted }))).toMatchObject({ code: "aborted" });
    expect((await world.plan(from, goal, few)).actions.shape).toEqual([1, A]);
    await world.dispose();
    expect(await failure(world.plan(from, goal, few))).toMatchObject({ code: "disposed" });
  });

  it("is not made of a model that has no dynamics", async () => {
    const folder = fileURLToPath(new URL("../fixtures/ijepa_tiny_hf/", import.meta.url));
    expect(await failure(WorldModel.load(folder, { backend: "cpu" }))).toMatchObject({ name: "JepaError", code: "unsupported", message: expect.stringMatching(/LeWorldModel/) });
    await using jepa = await Jepa.load({ "config.json": JSON.stringify(CONFIG), "model.safetensors": new Blob([readFileSync(data("lewm.safetensors"))]) }, { backend: "cpu" });
    expect((await jepa.embed(pictures[0]!, { preprocess: false, pool: "none" })).shape).toEqual([9, D]);
  });
});
