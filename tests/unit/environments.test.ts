// Episodes in environments of the caller's: of policies, and of plans of a model that is none, so that what the loop does can be told exactly.

import { describe, expect, it } from "vitest";
import { ActionScale, collectEpisodes, runEpisode, uniformPolicy, windowsOf, type Environment, type EnvironmentStep, type ImageInput, type Plan, type PlanningModel, type PlanOptions } from "../../www/src/index.js";
import { Dots } from "./dots.js";

const failure = (promise: Promise<unknown>) => promise.then(() => expect.unreachable("it should have failed"), (error) => error);
const anywhere = uniformPolicy([-0.5, -0.5], [0.5, 0.5]);

/** An environment with something wrong. */
function broken(change: Partial<Environment> | ((step: EnvironmentStep) => unknown)): Environment {
  const dots = new Dots();
  const step = (action: Float32Array) => (typeof change === "function" ? (change(dots.step(action)) as EnvironmentStep) : dots.step(action));
  return { actionSize: 2, reset: (options) => dots.reset(options), step, ...(typeof change === "function" ? {} : change) };
}

describe("episodes of a policy", () => {
  it("are recorded, the same for the same seed", async () => {
    const options = { episodes: 3, steps: 6, seed: 4 };
    const episodes = await collectEpisodes(new Dots(), anywhere, options);
    expect(episodes).toHaveLength(3);
    for (const { frames, actions, states, rewards, terminated, truncated } of episodes) {
      expect([frames.length, actions.length, states!.length, rewards.length]).toEqual([7, 6, 7, 6]);
      expect({ terminated, truncated }).toEqual({ terminated: false, truncated: true });
      for (const [i, action] of actions.entries()) {
        const pushed = [0, 1].map((axis) => Math.max(-1, Math.min(1, states![i]![axis]! + action[axis]!)));
        expect(states![i + 1]![0]).toBeCloseTo(pushed[0]!, 6);
        expect(states![i + 1]![1]).toBeCloseTo(pushed[1]!, 6);
      }
    }
    expect(await collectEpisodes(new Dots(), anywhere, options)).toEqual(episodes);
    const others = await collectEpisodes(new Dots(), anywhere, { ...options, seed: 5 });
    expect(others[0]!.actions).not.toEqual(episodes[0]!.actions);
    expect(episodes[1]!.actions).not.toEqual(episodes[0]!.actions);
    const { length, get } = windowsOf(episodes, { history: 2, scale: ActionScale.identity(2) });
    expect(length).toBe(3 * 5);
    expect(get(1)).toEqual({ frames: episodes[0]!.frames.slice(1, 4), actions: episodes[0]!.actions.slice(1, 3).map((action) => [...action]), states: episodes[0]!.states!.slice(1, 4) });
  });

  it("act uniformly between the bounds", async () => {
    const [episode] = await collectEpisodes(new Dots(), uniformPolicy([-0.2, 0.1], [0.4, 0.1]), { steps: 2000 });
    const first = episode!.actions.map(([value]) => value!);
    expect(Math.min(...first)).toBeGreaterThanOrEqual(-0.2);
    expect(Math.max(...first)).toBeLessThanOrEqual(0.4);
    // Mean 0.1 and deviation 0.6 / √12, within four standard errors.
    const mean = first.reduce((sum, value) => sum + value, 0) / first.length;
    expect(Math.abs(mean - 0.1)).toBeLessThan((4 * 0.6) / Math.sqrt(12 * 2000));
    expect(episode!.actions.every(([, value]) => value === Math.fround(0.1))).toBe(true);
  });

  it("end where the environment ends them, and keep what it shows even if it shows it again", async () => {
    const picture = { data: new Uint8Array(3), width: 1, height: 1, channels: 3 };
    const environment: Environment = {
      actionSize: 1,
      reset: () => ({ observation: picture }),
      step: async ([action]) => {
        picture.data.fill(picture.data[0]! + action!);
        return { observation: picture, reward: 1, terminated: picture.data[0]! >= 6, truncated: false };
      },
    };
    const [episode] = await collectEpisodes(environment, ({ observation }) => [(observation as typeof picture).data[0]! + 1]);
    expect(episode).toMatchObject({ terminated: true, truncated: false, rewards: [1, 1, 1] });
    expect(episode!.frames.map((frame) => (frame as typeof picture).data[0])).toEqual([0, 1, 3, 7]);
    expect(episode!.states).toBeUndefined();
  });

  it("keep pictures whose sizes are not properties of their own, as ImageData's are not", async () => {
    class Pixels {
      data = new Uint8ClampedArray(4);
      get width() {
        return 1;
      }
      get height() {
        return 1;
      }
    }
    const pixels = new Pixels();
    const seen = () => ({ observation: pixels as unknown as ImageInput });
    const environment: Environment = { actionSize: 1, reset: seen, step: () => (pixels.data.fill(9), { ...seen(), reward: 0, terminated: true, truncated: false }) };
    const [episode] = await collectEpisodes(environment, () => [0]);
    expect(episode!.frames).toMatchObject([{ width: 1, height: 1, data: { 0: 0 } }, { width: 1, height: 1, data: { 0: 9 } }]);
  });

  it.each<[string, Environment, RegExp]>([
    ["no environment", {} as Environment, /actionSize, reset/],
    ["no size", broken({ actionSize: 0 }), /actionSize/],
    ["reset throws", broken({ reset: () => { throw new Error("no power"); } }), /failed in reset: no power/],
    ["step rejects", broken({ step: () => Promise.reject(new Error("it fell")) }), /failed in step 0: it fell/],
    ["no observation", broken(() => undefined), /no observation \(in step 0\)/],
    ["no reward", broken((step) => ({ ...step, reward: NaN })), /reward NaN in step 0/],
    ["no end", broken((step) => ({ ...step, terminated: undefined })), /terminated and truncated in step 0/],
    ["state NaN", broken((step) => ({ ...step, state: [0, NaN] })), /state.*not finite/],
    ["no state", broken((step) => ({ ...step, state: undefined })), /give one always, or never/],
  ])("say what is wrong with an environment: %s", async (_, environment, message) => {
    expect(await failure(collectEpisodes(environment, anywhere))).toMatchObject({ name: "JepaError", code: "bad-input", message: expect.stringMatching(message) });
  });

  it("say what is wrong with a policy, and stop when they are aborted", async () => {
    for (const [policy, message] of [
      [() => [1], /action in step 0 has 1 numbers, not 2/],
      [() => [1, NaN], /action in step 0 has a number that is not finite/],
      [() => { throw new Error("no idea"); }, /policy failed in step 0: no idea/],
      ["random", /policy is a function/],
    ] as const) {
      expect(await failure(collectEpisodes(new Dots(), policy as never))).toMatchObject({ code: "bad-input", message: expect.stringMatching(message) });
    }
    expect(() => uniformPolicy([0, 1], [1])).toThrow(/least/);
    expect(() => uniformPolicy([2], [1])).toThrow(/least/);
    const abort = new AbortController();
    const stopping = collectEpisodes(new Dots(), () => (abort.abort(), [0, 0]), { signal: abort.signal });
    expect(await failure(stopping)).toMatchObject({ code: "aborted" });
  });
});

/** A model whose embedding is the mean of a picture, and whose plans are numbered. */
class Told implements PlanningModel {
  readonly history = 2;
  readonly shape = [1];
  readonly asked: { from: { embeddings: number[]; actions: number[][]; states: number[][] | undefined }; options: PlanOptions }[] = [];
  constructor(
    readonly actionSize: number,
    readonly stateSize: number,
  ) {}

  encode: PlanningModel["encode"] = async (picture) => {
    const { data } = picture as { data: Uint8Array };
    return { data: Float32Array.of(data.reduce((sum, value) => sum + value, 0) / data.length), shape: [1] };
  };

  plan: PlanningModel["plan"] = async (from, _, options = {}): Promise<Plan> => {
    const { embeddings, actions = [], states } = from as { embeddings: Float32Array; actions?: Float32Array[]; states?: Float32Array[] };
    this.asked.push({ from: { embeddings: [...embeddings], actions: actions.map((block) => [...block]), states: states?.map((state) => [...state]) }, options });
    const data = Float32Array.from({ length: 3 * this.actionSize }, (_, i) => (this.asked.length + i / 16) / 16);
    return { actions: { data, shape: [3, this.actionSize] }, costs: [0] };
  };
}

describe("episodes of plans", () => {
  it("carry out the beginning of each plan, and plan on from its rest and from what is then seen", async () => {
    const world = new Told(2, 2);
    const plans: Plan[] = [];
    const episode = await runEpisode(world, new Dots(), [0], { steps: 5, seed: 7, execute: 2, history: 2, plan: { samples: 9 }, onPlan: (plan) => plans.push(plan) });
    expect(episode).toMatchObject({ terminated: false, truncated: true, plans });
    expect(plans).toHaveLength(3);
    const done = [0, 0, 1, 1, 2].map((plan, i) => plans[plan]!.actions.data.slice((i % 2) * 2, (i % 2) * 2 + 2));
    expect(episode.actions).toEqual(done);
    const [, second] = world.asked;
    expect(second!.options).toMatchObject({ samples: 9, seed: 8, start: Float32Array.of(...plans[0]!.actions.data.slice(4), 0, 0, 0, 0) });
    expect(second!.from.states).toEqual(episode.states!.slice(1, 3).map((state) => [...state]));
    expect(second!.from.actions).toEqual([[...done[1]!]]);
    expect(second!.from.embeddings).toHaveLength(2);
    expect(world.asked[0]!.options.start).toBeUndefined();
    const cold = new Told(2, 2);
    await runEpisode(cold, new Dots(), [0], { steps: 2, warmStart: false });
    expect(cold.asked.map(({ options }) => options.start)).toEqual([undefined, undefined]);
  });

  it("give the environment its own units, several actions for a block", async () => {
    const world = new Told(4, 0);
    const scale = ActionScale.fromJSON({ mean: [0.25, 0], std: [0.5, 2] });
    const episode = await runEpisode(world, new Dots(), [0], { steps: 3, scale });
    const [first, second] = [1, 2].map((number) => Array.from({ length: 4 }, (_, i) => (number + i / 16) / 16)) as [number[], number[]];
    const own = [[first[0], first[1]], [first[2], first[3]], [second[0], second[1]]].map(([a, b]) => [0.25 + 0.5 * a!, 2 * b!]);
    expect(episode.actions.map((action) => [...action])).toEqual(own);
    expect(world.asked[1]!.from.states).toBeUndefined();
    expect(episode.frames).toHaveLength(4);
  });

  it("end at the goal", async () => {
    const dots = new Dots([0, 0]);
    const world = new Told(2, 2);
    world.plan = async () => ({ actions: { data: Float32Array.of(-dots.place[0], -dots.place[1]), shape: [1, 2] }, costs: [0] });
    const { actions, ...episode } = await runEpisode(world, dots, [0]);
    expect(episode).toMatchObject({ terminated: true, truncated: false });
    expect(actions).toHaveLength(1);
  });

  it("say what does not fit", async () => {
    const scale = ActionScale.identity(3);
    for (const [attempt, message] of [
      [() => runEpisode(new Told(3, 2), new Dots(), [0]), /3 numbers and the environment's 2/],
      [() => runEpisode(new Told(2, 7), new Dots(), [0]), /state of 7 numbers, and the environment gives 2/],
      [() => runEpisode(new Told(2, 2), broken((step) => step), [0], { scale }), /scale is of actions of 3/],
      [() => runEpisode(new Told(2, 2), new Dots(), [0], { history: 3 }), /2 frames at most, not from 3/],
      [() => runEpisode(new Told(2, 2), new Dots(), [0], { execute: 4 }), /3 action blocks, of which 4/],
      [() => runEpisode(new Told(2, 2), new Dots(), [0], { step: 3 } as object), /no option step;/],
      [() => runEpisode(new Told(2, 2), broken({ step: () => { throw new Error("stuck"); } }), [0]), /failed in step 0: stuck/],
    ] as const) {
      expect(await failure(attempt())).toMatchObject({ name: "JepaError", code: "bad-input", message: expect.stringMatching(message) });
    }
  });
});
