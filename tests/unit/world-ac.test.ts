// V-JEPA 2-AC in Node with the real CPU module: against the published implementation's numbers, and trained on a dot that is pushed about.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { AC_CONFIG as CONFIG, acCheckpoint } from "../../scripts/fixtures.mjs";
import { pseudoRandom } from "../../www/bench/models.mjs";
import { ActionScale, collectEpisodes, Jepa, runEpisode, Trainer, uniformPolicy, windowsOf, WorldModel, type TrainerOptions, type TrainMetrics } from "../../www/src/index.js";
import { Dots, frame, SIDE } from "./dots.js";

const fixture = (name: string) => readFileSync(fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url)));
const expected = JSON.parse(fixture("vjepa2_tiny.json").toString());
const manifest = JSON.parse(fixture("manifest.json").toString());
const [N, D, A] = [16, 64, 7];

const load = (options: object = {}) => WorldModel.load({ "config.json": JSON.stringify(CONFIG), "model.safetensors": new Blob(acCheckpoint()) }, { backend: "cpu", ...options });
const input = (name: string): Float32Array => {
  const { seed, shape, amp } = manifest.files["vjepa2_tiny.json"].inputs[name];
  return pseudoRandom(seed, shape.reduce((a: number, b: number) => a * b, 1), amp);
};
const rows = (data: Float32Array, size: number) => Array.from({ length: data.length / size }, (_, i) => data.slice(i * size, (i + 1) * size));
const differences = (a: ArrayLike<number>, b: ArrayLike<number>) => {
  expect(a.length).toBe(b.length);
  return Math.max(...Array.from(a, (value, i) => Math.abs(value - b[i]!)));
};
/** LayerNorm without parameters. */
const normed = (token: ArrayLike<number>) => {
  const values = Array.from(token);
  const mean = values.reduce((sum, v) => sum + v, 0) / values.length;
  const variance = values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / values.length;
  return values.map((v) => (v - mean) / Math.sqrt(variance + 1e-5));
};
const failure = (promise: Promise<unknown>) => promise.then(() => expect.unreachable("it should have failed"), (error) => error);

const [tokens, actions, states] = [input("ac_tokens"), rows(input("ac_actions"), A), rows(input("ac_states"), A)];
const first = { embeddings: tokens.slice(0, N * D), states: states.slice(0, 1) };
const goal = tokens.slice(N * D, 2 * N * D);
const picture = (seed: number) => ({ data: pseudoRandom(`picture ${seed}`, 32 * 32 * 3, 2), width: 32, height: 32, channels: 3 });

describe("V-JEPA 2-AC", () => {
  it("encodes frames by themselves, each repeated to a tubelet", async () => {
    await using world = await load();
    expect(world).toMatchObject({ actionSize: A, stateSize: A, shape: [N, D], history: 4, backend: "cpu" });
    const both = await world.encode([picture(0), picture(1)], { preprocess: false });
    expect(both.shape).toEqual([2, N, D]);
    await using jepa = await Jepa.load({ "config.json": JSON.stringify(CONFIG), "model.safetensors": new Blob(acCheckpoint()) }, { backend: "cpu" });
    const clip = await jepa.embed([[picture(1), picture(1)]], { preprocess: false, pool: "none" });
    const wanted = rows(clip.data, D).flatMap(normed);
    expect(differences(both.data.slice(N * D), wanted)).toBeLessThan(1e-5);
    expect(await world.encode(picture(1), { preprocess: false })).toEqual({ data: both.data.slice(N * D), shape: [N, D] });
  });

  it("predicts the frame that the published implementation does", async () => {
    await using world = await load();
    // The fixture has the last patch of the last of three frames, before it is normalised.
    const from = { embeddings: tokens, actions: actions.slice(0, 2), states };
    const next = await world.rollout(from, [actions[2]!]);
    expect(next.shape).toEqual([1, N, D]);
    expect(differences(next.data.slice(-D), normed(expected.ac_out.last))).toBeLessThan(1e-4);
    const told = await world.rollout({ ...from, states: states.slice(0, 2) }, [actions[2]!], { states: [states[2]!] });
    expect(told).toEqual(next);
  });

  it("goes on from the pose that an action leads to", async () => {
    await using world = await load();
    // A turn about one axis, so that its angles add up, and a gripper that is pushed beyond its end.
    const pose = [0.1, 0.2, 0.3, 0, 0, 0.4, 0.75];
    const action = [0.01, -0.02, 0.03, 0, 0, 0.2, 0.5];
    const start = { ...first, states: [pose] };
    const sequences = [[action, action], [action, actions[1]!]];
    const own = await world.rollout(start, sequences);
    expect(own.shape).toEqual([2, 2, N, D]);
    const given = await world.rollout(start, sequences, { states: [pose, [0.11, 0.18, 0.33, 0, 0, 0.6, 1]] });
    expect(differences(own.data, given.data)).toBeLessThan(1e-5);
    const other = await world.rollout(start, sequences, { states: [pose, pose] });
    expect(differences(own.data, other.data)).toBeGreaterThan(1e-4);
    expect(own.data.slice(0, N * D)).toEqual(other.data.slice(0, N * D));
  });

  it.each(["cem", "mppi", "gradient"] as const)("plans by %s within the published bounds", async (planner) => {
    await using world = await load();
    // Where actions within the bounds lead.
    const done = [0.04, -0.03, 0.02, 0, 0, 0, 0.6];
    const { data: led } = await world.rollout(first, [done, done]);
    const goal = led.slice(-N * D);
    const options = { planner, samples: planner === "gradient" ? 8 : 80, iterations: planner === "gradient" ? 20 : 8, seed: 3, ...(planner === "mppi" ? { temperature: 0.005 } : {}) };
    const plan = await world.plan(first, goal, options);
    expect(plan.actions.shape).toEqual([2, A]);
    for (const [i, value] of plan.actions.data.entries()) {
      const axis = i % A;
      expect(Math.abs(value)).toBeLessThanOrEqual((axis < 3 ? 0.05 : axis < 6 ? 0 : 0.75) + 1e-7);
      if (axis === 6 && value !== 0) expect(Math.abs(value)).toBeGreaterThanOrEqual(0.25);
    }
    const cost = async (data: Float32Array) => {
      const { data: steps } = await world.rollout(first, { data, shape: [2, A] });
      return steps.slice(-N * D).reduce((sum, value, i) => sum + Math.abs(value - goal[i]!), 0) / (N * D);
    };
    expect(await cost(plan.actions.data)).toBeLessThan((await cost(new Float32Array(2 * A))) / 2);
    expect(await world.plan(first, goal, options)).toEqual(plan);
    const pinned = await world.plan(first, goal, { ...options, axes: [{ pin: 0.03 }, { limit: 0.01 }, {}, {}, {}, {}, { pin: { from: 1, value: 1 } }] });
    expect(pinned.actions.data[0]).toBeCloseTo(0.03, 6);
    expect(Math.abs(pinned.actions.data[1]!)).toBeLessThanOrEqual(0.01 + 1e-7);
    expect(pinned.actions.data[A + 6]).toBe(1);
  });

  it("stops planning when it is aborted, also within a round", async () => {
    await using world = await load();
    const abort = new AbortController();
    const planning = world.plan(first, goal, { samples: 200_000, iterations: 1, signal: abort.signal });
    setTimeout(() => abort.abort(), 50);
    expect(await failure(planning)).toMatchObject({ code: "aborted" });
    expect((await world.plan(first, goal, { samples: 10, iterations: 1 })).costs).toHaveLength(1);
  });

  it("refuses what does not fit, and goes on", async () => {
    await using world = await load();
    for (const [attempt, code, message] of [
      [() => world.rollout(first.embeddings, [actions[0]!]), "bad-input", /told the state, 7 numbers/],
      [() => world.rollout({ ...first, states: [[1, 2]] }, [actions[0]!]), "bad-input", /A state has 7 numbers; state 0 has 2/],
      [() => world.rollout({ ...first, states: [[1, 2, 3, 4, 5, 6, NaN]] }, [actions[0]!]), "bad-input", /not finite/],
      [() => world.rollout(first, [actions[0]!], { states: [states[0]!, states[1]!] }), "bad-input", /state before each of the 1 actions/],
      [() => world.rollout({ ...first, embeddings: tokens.slice(0, D) }, [actions[0]!]), "bad-input", /no embeddings of 1024/],
      [() => world.plan(first, goal.slice(1)), "bad-input", /goal/],
      [() => world.plan(first, goal, { samples: 9 }), "bad-config", /10 of 9 samples/],
      [() => world.plan(first, goal, { planner: "mppi", samples: 8, elites: 9 }), "bad-config", /9 of 8 samples/],
      [() => world.plan(first, goal, { axes: [{}] }), "bad-input", /axes has 1 entries/],
      [() => world.plan(first, goal, { axes: Array(A).fill({ pin: NaN }) }), "bad-input", /pin/],
      [() => world.encode({ data: new Float32Array(40 * 40 * 3), width: 40, height: 40, channels: 3 }, { preprocess: false }), "bad-input", /40×40/],
    ] as const) {
      expect(await failure(attempt())).toMatchObject({ name: "JepaError", code, message: expect.stringMatching(message) });
    }
    expect((await world.rollout(first, [actions[0]!])).shape).toEqual([1, N, D]);
  });
});

const OPTIONS: TrainerOptions = {
  model: { system: "vjepa2", imageSize: SIDE, patchSize: 8, frames: 8, hiddenSize: 24, layers: 1, heads: 2, predictor: { hiddenSize: 48, layers: 2, heads: 2, actions: { actionSize: 2, stateSize: 2 } } },
  objective: { kind: "vjepa2-ac", frames: 4 },
  batchSize: 16,
  seed: 5,
  schedule: { steps: 500, lr: 2e-3, startLr: 1e-3 },
  backend: "cpu",
  worker: false,
};

async function run(trainer: Trainer, windows: Parameters<Trainer["run"]>[0], steps: number): Promise<TrainMetrics[]> {
  const all = [];
  for await (const metrics of trainer.run(windows, { steps })) all.push(metrics);
  return all;
}

describe("the objective vjepa2-ac", () => {
  it("learns from episodes, resumes bit for bit, and gives a world model that brings a dot to its goal", { timeout: 120_000 }, async () => {
    const episodes = await collectEpisodes(new Dots(), uniformPolicy([-0.6, -0.6], [0.6, 0.6]), { episodes: 150, steps: 8, seed: 1 });
    const windows = windowsOf(episodes, { history: 3, scale: ActionScale.identity(2) });
    await using trainer = await Trainer.create(OPTIONS);
    expect(trainer.info).toMatchObject({ objective: "vjepa2-ac", frames: 4 });
    const begun = await run(trainer, windows, 5);
    expect(Object.keys(begun[0]!.parts).sort()).toEqual(["autoregressive", "teacherForced"]);
    const save = await trainer.save();
    const went = await run(trainer, windows, 5);
    {
      await using again = await Trainer.resume(save, { backend: "cpu", worker: false });
      const repeated = await run(again, windows, 5);
      const timeless = ({ ms: _, ...metrics }: TrainMetrics) => metrics;
      expect(repeated.map(timeless)).toEqual(went.map(timeless));
    }
    const rest = await run(trainer, windows, 490);
    const mean = (list: TrainMetrics[]) => list.reduce((sum, { loss }) => sum + loss, 0) / list.length;
    expect(mean(rest.slice(-5))).toBeLessThan(mean(begun) / 4);

    await using world = await trainer.world();
    expect(world).toMatchObject({ actionSize: 2, stateSize: 2, shape: [4, 24] });
    const files = await trainer.export("original");
    await using loaded = await WorldModel.load(files as never, { backend: "cpu", worker: false });
    const seen = await world.encode(frame(0.2, -0.4));
    expect((await loaded.encode(frame(0.2, -0.4))).data).toEqual(seen.data);
    const from = { embeddings: seen, states: [[0.2, -0.4]] };
    expect(await loaded.rollout(from, [[0.3, 0.1]])).toEqual(await world.rollout(from, [[0.3, 0.1]]));

    let reached = 0;
    const random = await collectEpisodes(new Dots([0.5, 0.5]), uniformPolicy([-0.6, -0.6], [0.6, 0.6]), { episodes: 8, steps: 6, seed: 100 });
    const wanted = await world.encode(frame(0.5, 0.5));
    for (let seed = 100; seed < 108; seed++) {
      // A plan of two steps need not be near the goal after the first.
      const options = { seed, steps: 6, execute: 2, plan: { samples: 64, iterations: 5, elites: 8, limit: 0.6, scale: 0.5, horizon: 2 } };
      const episode = await runEpisode(world, new Dots([0.5, 0.5]), wanted, options);
      reached += Number(episode.terminated);
      expect(episode.frames).toHaveLength(episode.actions.length + 1);
      expect(episode.plans).toHaveLength(Math.ceil(episode.actions.length / 2));
    }
    expect(reached).toBeGreaterThanOrEqual(7);
    expect(random.filter(({ terminated }) => terminated).length).toBeLessThan(5);
  });

  it("goes on from a checkpoint, whose encoder stays", async () => {
    await using trainer = await Trainer.create({ from: { "config.json": JSON.stringify(CONFIG), "model.safetensors": new Blob(acCheckpoint()) }, objective: { kind: "vjepa2-ac", frames: 2, autoSteps: 1 }, batchSize: 1, backend: "cpu", worker: false });
    await using world = await trainer.world();
    await using loaded = await load({ worker: false });
    expect(await world.rollout(first, [actions[0]!])).toEqual(await loaded.rollout(first, [actions[0]!]));
    const window = { frames: [picture(0), picture(1)], actions: [actions[0]!], states: states.slice(0, 2) };
    await trainer.step([window], { preprocess: false });
    await using after = await trainer.world();
    expect((await after.encode(picture(0), { preprocess: false })).data).toEqual((await loaded.encode(picture(0), { preprocess: false })).data);
    expect(differences((await after.rollout(first, [actions[0]!])).data, (await loaded.rollout(first, [actions[0]!])).data)).toBeGreaterThan(1e-6);
  });

  it("says what is wrong with windows", async () => {
    await using trainer = await Trainer.create({ ...OPTIONS, batchSize: 1 });
    const place = [0.1, 0.2];
    const window = { frames: Array(4).fill(frame(0, 0)), actions: Array(3).fill([0.1, 0.1]), states: Array(4).fill(place) };
    for (const [damaged, message] of [
      [{ ...window, states: undefined }, /Window 0 has 0 states; the model takes 4/],
      [{ ...window, states: [place, place, place, [1, 2, 3]] }, /State 3 of window 0 has 3 numbers, not 2/],
      [{ ...window, states: [place, place, place, [1, NaN]] }, /State 3 of window 0 has a number that is not finite/],
      [{ ...window, actions: window.actions.slice(1) }, /4 frames and 2 action blocks/],
    ] as const) {
      expect(await failure(trainer.step([damaged as never]))).toMatchObject({ code: "bad-input", message: expect.stringMatching(message) });
    }
    expect((await trainer.step([window])).loss).toBeGreaterThan(0);
    expect(await failure(Trainer.create({ ...OPTIONS, objective: { kind: "vjepa2-ac", frames: 8 } }))).toMatchObject({ code: "bad-config", message: expect.stringMatching(/2 to 5/) });
  });
});
