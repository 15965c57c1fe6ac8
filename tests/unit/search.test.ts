// Plans with models of the caller's: a point mass, which is pushed for a step at a time, and whose best pushes are known.

import { describe, expect, it } from "vitest";
import { planActions, planningModel, runEpisode, type Environment, type PlanIteration, type PlanOptions, type Rows, type Search, type StepModel } from "../../www/src/index.js";

const failure = (promise: Promise<unknown>) => promise.then(() => expect.unreachable("it should have failed"), (error) => error);
const far = (a: ArrayLike<number>, b: ArrayLike<number>) => {
  expect(a.length).toBe(b.length);
  return Math.max(...Array.from(a, (value, i) => Math.abs(value - b[i]!)));
};

/** Place and speed after a push. */
const pushed = ([place, speed]: readonly number[], push: number) => [place! + speed! + push, speed! + push];

/** From rest at 0 to rest at 1 in two pushes: 2a + b = 1 and a + b = 0. */
const BEST = [1, -1];
const squares = (sequence: ArrayLike<number>) => {
  const [place, speed] = Array.from(sequence).reduce(pushed, [0, 0]) as [number, number];
  return (place - 1) ** 2 + speed ** 2;
};
const rows = (data: Float32Array, size: number) => Array.from({ length: data.length / size }, (_, i) => data.subarray(i * size, (i + 1) * size));

const mass: Search = { actionSize: 1, cost: ({ data }) => rows(data, 2).map(squares) };
const small = { horizon: 2, samples: 200, elites: 20, iterations: 20, seed: 3 };

const model: StepModel = {
  actionSize: 1,
  shape: [2],
  encode: (observation) => (observation as { data: Float32Array }).data.slice(0, 2),
  step: async ({ data }: Rows, actions: Rows) => Float32Array.from(rows(data, 2).flatMap((state, i) => pushed([...state], actions.data[i]!))),
  cost: ({ data }, goal) => rows(data, 2).map((state) => (state[0]! - goal[0]!) ** 2 + (state[1]! - goal[1]!) ** 2),
};

describe("planActions", () => {
  it.each([
    ["cem", {}],
    // The mean of some 700 samples that count, whose deviation along the flattest direction is 0.23, is off by 0.009.
    ["mppi", { temperature: 0.02, scale: 0.5, samples: 20_000, iterations: 15, elites: undefined }],
    ["mppi", { temperature: 0.2, samples: 1000, elites: 100, maxStd: 2, centre: false }],
    // The steepest direction of the cost has a curvature of 13.1, the flattest one of 0.3: 600 steps of 0.1 leave 0.97 ** 600.
    ["gradient", { samples: 3, elites: undefined, rate: 0.1, iterations: 600 }],
  ] as const)("finds the best pushes by %s with %o", async (planner, more) => {
    const slopes: NonNullable<Search["slopes"]> = ({ data }) => ({
      costs: rows(data, 2).map(squares),
      gradients: rows(data, 2).flatMap(([a, b]) => [4 * (2 * a! + b! - 1) + 2 * (a! + b!), 2 * (2 * a! + b! - 1) + 2 * (a! + b!)]),
    });
    const rounds: PlanIteration[] = [];
    const options = { ...small, planner, ...more };
    const plan = await planActions({ ...mass, ...(planner === "gradient" ? { slopes } : {}) }, { ...options, onIteration: (round) => rounds.push(round) });
    expect(plan.actions.shape).toEqual([2, 1]);
    expect(far(plan.actions.data, BEST)).toBeLessThan(0.04);
    expect(rounds.map(({ iteration }) => iteration)).toEqual(Array.from({ length: options.iterations }, (_, i) => i));
    expect(rounds[0]!.samples.shape).toEqual([options.samples, 2, 1]);
    expect(plan.costs).toEqual(rounds.map(({ costs }) => Math.min(...costs)));
    // What is tried does not depend on what is done with it.
    expect(far(rounds[0]!.costs, rows(rounds[0]!.samples.data, 2).map(squares))).toBeLessThan(1e-5);
  });

  it("is repeated by its seed, and begins where it is told", async () => {
    const spoilt: Search = { actionSize: 1, cost: async (sequences) => { const costs = await mass.cost(sequences); sequences.data.fill(0); return costs; } };
    const plan = await planActions(mass, small);
    expect(await planActions(spoilt, small)).toEqual(plan);
    expect((await planActions(mass, { ...small, seed: 4 })).actions.data).not.toEqual(plan.actions.data);
    const near = await planActions(mass, { ...small, iterations: 1, start: BEST });
    // The mean itself is among the samples, unless it is told not to be.
    expect(near.costs[0]).toBe(0);
    expect((await planActions(mass, { ...small, iterations: 1, start: BEST, centre: false })).costs[0]).toBeGreaterThan(0);
  });

  it("keeps to limits, norms and momenta", async () => {
    // A turn of the plane: the best of what is no longer than 0.5 is in the direction of (3, 4).
    const toward: Search = { actionSize: 2, cost: ({ data }) => rows(data, 2).map(([x, y]) => (x! - 3) ** 2 + (y! - 4) ** 2) };
    const flat = { ...small, horizon: 1, iterations: 40 };
    const { actions } = await planActions(toward, { ...flat, maxNorm: 0.5 });
    expect(far(actions.data, [0.3, 0.4])).toBeLessThan(0.02);
    expect(Math.hypot(...actions.data)).toBeLessThanOrEqual(0.5 + 1e-6);
    const kept = await planActions(toward, { ...flat, iterations: 1, momentum: [0, 0], axes: [{}, { momentum: [1, 1] }] });
    expect(kept.actions.data[1]).toBe(0);
    expect(kept.actions.data[0]).toBeGreaterThan(0.5);
  });

  it("has published settings", async () => {
    const tried: [PlanOptions["preset"], PlanOptions["planner"], number[], number][] = [
      ["lewm", "cem", [300, 5, 1], 30],
      ["eb-jepa", "cem", [200, 90, 1], 20],
      ["eb-jepa", "mppi", [200, 90, 1], 20],
      ["dino-wm", "cem", [300, 5, 1], 30],
    ];
    for (const [preset, planner, shape, iterations] of tried) {
      const rounds: PlanIteration[] = [];
      const { costs } = await planActions({ actionSize: 1, cost: ({ data, shape: [count] }) => rows(data, data.length / count).map((sequence) => Math.abs(sequence[0]!)) }, { preset, planner, onIteration: (round) => rounds.push(round) });
      expect([rounds[0]!.samples.shape, costs.length]).toEqual([shape, iterations]);
      const spread = Math.sqrt(rounds[0]!.samples.data.reduce((sum, value) => sum + value ** 2, 0) / rounds[0]!.samples.data.length);
      // Normal deviates of these scales; those of EB-JEPA's cross-entropy method are cut off at 2.45, which leaves 1.37 of 1.5.
      expect(Math.abs(spread - (preset !== "eb-jepa" ? 1 : planner === "mppi" ? 2 : 1.37))).toBeLessThan(0.08);
    }
    expect(await failure(planActions(mass, { preset: "vjepa2-ac" }))).toMatchObject({ code: "bad-config", message: expect.stringMatching(/7 numbers, and these have 1/) });
  });

  it("says what is wrong", async () => {
    const costing = (cost: unknown): Search => ({ actionSize: 1, cost: cost as Search["cost"] });
    for (const [search, options, code, message] of [
      [costing(3), {}, "bad-input", /cost is a function/],
      [{ ...mass, actionSize: 0 }, {}, "bad-input", /actionSize/],
      [costing(() => undefined), {}, "bad-input", /array of numbers/],
      [costing(() => [1]), {}, "bad-input", /1 costs for 200/],
      [costing(() => Array(200).fill(NaN)), {}, "bad-input", /candidate 0 is NaN/],
      [costing(() => { throw new Error("no map"); }), {}, "bad-input", /cost function failed: no map/],
      [mass, { planner: "gradient" }, "unsupported", /slopes/],
      [{ ...mass, slopes: () => ({ costs: Array(200).fill(0), gradients: [1] }) }, { planner: "gradient" }, "bad-input", /gradients of the costs must be 400/],
      [mass, { elites: 201 }, "bad-config", /201 of 200/],
      [mass, { planner: "mppi", elites: 201 }, "bad-config", /201 of 200/],
      [mass, { momentum: [0, 2] }, "bad-input", /momentum/],
      [mass, { axes: [{ momentum: [1] }] }, "bad-input", /axes\[0\]\.momentum/],
      [mass, { maxNorm: 0 }, "bad-input", /maxNorm/],
      [mass, { maxStd: -1 }, "bad-input", /maxStd/],
      [mass, { centre: 1 }, "bad-input", /centre/],
      [mass, { preset: "dreamer" }, "bad-input", /preset/],
      [mass, { start: [1] }, "bad-input", /starts from 2/],
    ] as [Search, object, string, RegExp][]) {
      expect(await failure(planActions(search, { ...small, ...options }))).toMatchObject({ name: "JepaError", code, message: expect.stringMatching(message) });
    }
    const abort = new AbortController();
    const stopped = planActions(costing((sequences: PlanIteration["samples"]) => (abort.abort(), mass.cost(sequences))), { ...small, signal: abort.signal });
    expect(await failure(stopped)).toMatchObject({ code: "aborted" });
  });
});

describe("planningModel", () => {
  it("plans with what a model says of each step", async () => {
    const world = planningModel(model);
    const last = await world.plan([0, 0], [1, 0], small);
    expect(far(last.actions.data, BEST)).toBeLessThan(0.02);
    expect(await planActions(mass, small)).toEqual(last);
    // At rest at 1 after one push and after two: 2 (a − 1)² + … is least where 0 = 10a + 6b − 4 … of both steps' squares, by hand.
    const sum = await world.plan([0, 0], [1, 0], { ...small, cost: "sum", iterations: 40 });
    const both = ([a, b]: readonly number[]) => (a! - 1) ** 2 + a! ** 2 + squares([a!, b!]);
    // d/da: 2(a − 1) + 2a + 4(2a + b − 1) + 2(a + b) = 14a + 6b − 6 = 0; d/db: 2(2a + b − 1) + 2(a + b) = 6a + 4b − 2 = 0.
    expect(far(sum.actions.data, [0.6, -0.4])).toBeLessThan(0.02);
    expect(sum.costs.at(-1)).toBeCloseTo(both([0.6, -0.4]), 2);
  });

  it("acts in an environment", async () => {
    let state = [0, 0];
    const seen = () => ({ observation: { data: Float32Array.of(...state, 0), width: 1, height: 1, channels: 3 } });
    const room: Environment = {
      actionSize: 1,
      reset: () => ((state = [0, 0]), seen()),
      step: ([push]) => {
        state = pushed(state, push!);
        return { ...seen(), reward: 0, terminated: Math.hypot(state[0]! - 1, state[1]!) < 0.05, truncated: false };
      },
    };
    const world = planningModel(model);
    expect(await world.encode([seen().observation, seen().observation])).toEqual({ data: new Float32Array(4), shape: [2, 2] });
    const episode = await runEpisode(world, room, [1, 0], { steps: 5, plan: small });
    expect(episode.terminated).toBe(true);
    expect(far(episode.actions.map(([push]) => push!), BEST)).toBeLessThan(0.05);
  });

  it("says what is wrong with a model", async () => {
    const abort = new AbortController();
    expect(() => planningModel({ ...model, shape: [0] })).toThrow(/shape/);
    expect(() => planningModel({ ...model, step: undefined } as never)).toThrow(/step is missing/);
    for (const [change, message, code] of [
      [{ step: () => [1] }, /step gave has 1 numbers, not 400/, "bad-input"],
      [{ step: () => { throw new Error("fell over"); } }, /failed in step: fell over/, "bad-input"],
      [{ cost: () => [1] }, /cost gave has 1 numbers, not 200/, "bad-input"],
      [{ cost: (embeddings: Rows, goal: Float32Array) => (abort.abort(), model.cost(embeddings, goal)) }, /aborted/, "aborted"],
    ] as [Partial<StepModel>, RegExp, string][]) {
      expect(await failure(planningModel({ ...model, ...change }).plan([0, 0], [1, 0], { ...small, signal: abort.signal }))).toMatchObject({ code, message: expect.stringMatching(message) });
    }
    const world = planningModel(model);
    expect(await failure(Promise.resolve().then(() => world.plan([0], [1, 0], small)))).toMatchObject({ code: "bad-input", message: expect.stringMatching(/embedding has 1 numbers, not 2/) });
    expect(await failure(world.plan([0, 0], [1, 0], { ...small, planner: "gradient" }))).toMatchObject({ code: "unsupported" });
  });
});
