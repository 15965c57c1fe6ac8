// Worlds to act in: what an environment is, episodes of a policy in one, and of plans that are made anew after each action.

import { callCore } from "./core.js";
import { JepaError, throwIfAborted, told } from "./errors.js";
import { kept, type ImageInput } from "./inputs.js";
import { valuesOf, type Vector } from "./math.js";
import { aBoolean, aFunction, anObject, anything, checkFields, shown, whole } from "./options.js";
import type { Plan, PlanOptions } from "./plan-options.js";
import { finite, sized, type ActionScale, type Trajectory } from "./trajectories.js";
import { joined, type WorldModel } from "./world.js";

/** What an environment shows. */
export interface Observation {
  /** A picture. It is kept: arrays are copied, anything else must not change later. */
  observation: ImageInput;
  /** What else is known, in numbers: of a robot its pose. */
  state?: Vector | undefined;
}

/** What an action led to. */
export interface EnvironmentStep extends Observation {
  reward: number;
  /** Whether the task is over: done, or failed. */
  terminated: boolean;
  /** Whether the episode ends for another reason, such as its length. */
  truncated: boolean;
}

/** Something to act in, with the methods of Gymnasium's environments. */
export interface Environment {
  /** Numbers of an action. */
  readonly actionSize: number;
  /** Begins an episode, the same one for the same seed. */
  reset(options: { seed: number }): Observation | Promise<Observation>;
  step(action: Float32Array): EnvironmentStep | Promise<EnvironmentStep>;
}

/** What is done where this is seen. `random` gives numbers from 0 to 1, which follow from the seed and the episode. */
export type Policy = (seen: Observation, random: () => number) => Vector | Promise<Vector>;

/** What happened in an episode: a recording for {@link windowsOf}. */
export interface EpisodeRecord extends Trajectory {
  frames: ImageInput[];
  actions: Float32Array[];
  /** One more than there are actions, where the environment tells states. */
  states?: Float32Array[] | undefined;
  /** After each action. */
  rewards: number[];
  terminated: boolean;
  /** Also where the option `steps` ended it. */
  truncated: boolean;
}

export interface CollectOptions {
  /** How many. Default 1. */
  episodes?: number | undefined;
  /** Most actions of an episode. Default 100. */
  steps?: number | undefined;
  /** Episode `i` is reset with the seed `seed + i`. Default 0. */
  seed?: number | undefined;
  /** Ends the collection between two actions. */
  signal?: AbortSignal | undefined;
}

/** The part of a {@link WorldModel} that {@link runEpisode} uses; {@link planningModel} makes one of any model. */
export type PlanningModel = Pick<WorldModel, "actionSize" | "stateSize" | "shape" | "history" | "encode" | "plan">;

export interface EpisodeOptions {
  /** Most actions. Default 100. */
  steps?: number | undefined;
  /** Of the environment and of every search. Default 0. */
  seed?: number | undefined;
  /** Action blocks of a plan that are carried out before the next search. Default 1. */
  execute?: number | undefined;
  /** Whether a search begins with the rest of the plan before it, and not with 0. Default true. */
  warmStart?: boolean | undefined;
  /** Frames that a search starts from, at most the model's {@link WorldModel.history}. Default 1. */
  history?: number | undefined;
  /** How the actions that the model learnt from were scaled. Default: the environment takes them as the model gives them. */
  scale?: ActionScale | undefined;
  /** How to search; `seed` and `start` are those of the loop. */
  plan?: Omit<PlanOptions, "seed" | "start" | "signal"> | undefined;
  /** Told of every plan when it has been made. */
  onPlan?: ((plan: Plan) => void) | undefined;
  /** Ends the episode between two actions, or between two rounds of a search. */
  signal?: AbortSignal | undefined;
}

/** An episode, and the plans that were made in it. */
export interface PlannedEpisode extends EpisodeRecord {
  plans: Plan[];
}

/** What the wasm module exports. */
interface GlueRandom {
  /** From 0 to 1, of the stream with this number. */
  uniformNumbers(seed: number, number: number, count: number): Float32Array;
}

/** Random numbers that are drawn at once, and most of an episode. */
const DRAWN = 256;
const MOST_DRAWS = 2 ** 20;

export interface UniformOptions {
  /** An action is kept for 1 to so many steps, each number as likely, and then drawn anew, which gets about. Default 1. */
  longest?: number | undefined;
}

/**
 * Acts at random: each number of an action is uniform between a least and a greatest value.
 *
 * @throws {@link JepaError} `bad-input` where the two are not as many finite numbers, the least first
 */
export function uniformPolicy(least: Vector, greatest: Vector, options: UniformOptions = {}): Policy {
  checkFields("", options, { longest: whole(1) });
  const { longest = 1 } = options;
  const [low, high] = [finite(Float32Array.from(valuesOf(least)), "The least action"), finite(Float32Array.from(valuesOf(greatest)), "The greatest action")];
  if (low.length === 0 || low.length !== high.length || low.some((value, i) => value > high[i]!)) {
    throw new JepaError("bad-input", "A uniform policy has a least and a greatest value for each number of an action, as many of both, the least not above the other.");
  }
  const draw = (random: () => number) => low.map((value, i) => value + random() * (high[i]! - value));
  let [episode, action, left]: [unknown, Float32Array, number] = [undefined, low, 0];
  return (_, random) => {
    // Each episode has random numbers of its own, and no action of the one before.
    if (left === 0 || episode !== random) {
      action = draw(random);
      left = longest > 1 ? 1 + Math.min(longest - 1, Math.floor(random() * longest)) : 1;
      episode = random;
    }
    left--;
    return action;
  };
}

/**
 * Episodes of a policy in an environment, the same for the same seed where both heed it.
 *
 * @example
 * const episodes = await collectEpisodes(room, uniformPolicy([-1, -1], [1, 1]), { episodes: 200, steps: 50 });
 * const windows = windowsOf(episodes);
 * @throws {@link JepaError} `bad-input` for an environment or policy that fails or gives what it should not; `aborted`
 */
export async function collectEpisodes(environment: Environment, policy: Policy, options: CollectOptions = {}): Promise<EpisodeRecord[]> {
  checkFields("", options, { episodes: whole(1), steps: whole(1), seed: whole(0), signal: anObject });
  const { episodes = 1, steps = 100, seed = 0, signal } = options;
  checkFields("", { policy }, { policy: aFunction });
  const records: EpisodeRecord[] = [];
  for (let episode = 0; episode < episodes; episode++) {
    const stage = await Stage.open(environment, seed + episode, steps, signal);
    const random = numbersFrom(seed, episode);
    while (!stage.over) {
      const at = stage.place;
      await stage.act(await told(`The policy failed ${at}`, () => policy(stage.seen, random)), signal);
    }
    records.push(stage.record);
  }
  return records;
}

/**
 * Plans to a goal, carries out the beginning of the plan, and plans anew from what is then seen, until the environment says that it is over.
 *
 * @param goal - its embedding, as {@link WorldModel.encode} gives it
 * @example
 * const goal = await world.encode(wanted);
 * const { terminated, plans } = await runEpisode(world, room, goal, { scale: windows.scale, steps: 50 });
 * @throws {@link JepaError} `bad-input` for a model and an environment that do not fit each other, and those of {@link collectEpisodes}
 * and {@link WorldModel.plan}
 */
export async function runEpisode(world: PlanningModel, environment: Environment, goal: Vector, options: EpisodeOptions = {}): Promise<PlannedEpisode> {
  checkFields("", options, { steps: whole(1), seed: whole(0), execute: whole(1), warmStart: aBoolean, history: whole(1), scale: anything, plan: anObject, onPlan: aFunction, signal: anObject });
  const { steps = 100, seed = 0, execute = 1, warmStart = true, history = 1, scale, plan: search, onPlan, signal } = options;
  const actions = fitting(world, environment, scale);
  if (history > world.history) throw new JepaError("bad-input", `The model predicts from ${world.history} frames at most, not from ${history}: lower the option history.`);
  const stage = await Stage.open(environment, seed, steps, signal);
  const [frames, past, states]: [Float32Array[], Float32Array[], Float32Array[]] = [[], [], []];
  const look = async () => {
    const { observation, state } = stage.seen;
    if (world.stateSize > 0) {
      const size = state && valuesOf(state).length;
      if (size !== world.stateSize) {
        throw new JepaError("bad-input", `The model is told a state of ${world.stateSize} numbers, and the environment gives ${size ?? "none"}: they do not fit each other.`);
      }
      states.push(Float32Array.from(valuesOf(state!)));
    }
    frames.push((await world.encode(observation, { signal })).data);
    for (const [list, length] of [[frames, history], [past, history - 1], [states, history]] as const) list.splice(0, list.length - length);
  };
  await look();
  const plans: Plan[] = [];
  let start: Float32Array | undefined;
  while (!stage.over) {
    const from = { embeddings: joined(frames), actions: past, ...(states.length > 0 ? { states } : {}) };
    const plan = await world.plan(from, goal, { ...search, seed: seed + plans.length, start, signal });
    plans.push(plan);
    onPlan?.(plan);
    const [horizon, size] = plan.actions.shape;
    if (execute > horizon) throw new JepaError("bad-input", `A plan has ${horizon} action blocks, of which ${execute} cannot be carried out: lower the option execute.`);
    for (let done = 0; done < execute && !stage.over; done++) {
      const block = plan.actions.data.slice(done * size, (done + 1) * size);
      const real = scale ? scale.unscaled(block) : block;
      for (let i = 0; i < actions && !stage.over; i++) await stage.act(real.slice((i * size) / actions, ((i + 1) * size) / actions), signal);
      if (stage.over) break;
      past.push(block);
      await look();
    }
    if (!warmStart) continue;
    start = new Float32Array(plan.actions.data.length);
    start.set(plan.actions.data.subarray(execute * size));
  }
  return { ...stage.record, plans };
}

/** Actions of the environment in one of the model. */
function fitting(world: PlanningModel, environment: Environment, scale: ActionScale | undefined): number {
  checkEnvironment(environment);
  const actions = world.actionSize / environment.actionSize;
  if (!Number.isInteger(actions)) {
    throw new JepaError("bad-input", `The model's actions have ${world.actionSize} numbers and the environment's ${environment.actionSize}, of which the former are no whole number: they do not fit each other.`);
  }
  if (scale && scale.size !== environment.actionSize) {
    throw new JepaError("bad-input", `The option scale is of actions of ${scale.size} numbers, and the environment's have ${environment.actionSize}.`);
  }
  return actions;
}

function checkEnvironment(environment: Environment): void {
  const isObject = typeof environment === "object" && environment !== null;
  if (!isObject || typeof environment.reset !== "function" || typeof environment.step !== "function" || !whole(1).allows(environment.actionSize)) {
    throw new JepaError("bad-input", "An environment is { actionSize, reset({ seed }), step(action) }, with a whole number of at least 1 and two functions.");
  }
}

/** An episode in progress. */
class Stage {
  readonly #environment: Environment;
  readonly #steps: number;
  readonly record: EpisodeRecord = { frames: [], actions: [], rewards: [], terminated: false, truncated: false };
  #seen!: Observation;

  static async open(environment: Environment, seed: number, steps: number, signal: AbortSignal | undefined): Promise<Stage> {
    checkEnvironment(environment);
    throwIfAborted(signal);
    const stage = new Stage(environment, steps);
    await stage.#see(await told("The environment failed in reset", () => environment.reset({ seed })), "reset");
    return stage;
  }

  private constructor(environment: Environment, steps: number) {
    this.#environment = environment;
    this.#steps = steps;
  }

  /** What is seen now. */
  get seen(): Observation {
    return this.#seen;
  }

  get over(): boolean {
    return this.record.terminated || this.record.truncated;
  }

  /** For messages. */
  get place(): string {
    return `in step ${this.record.actions.length}`;
  }

  async act(action: Vector, signal: AbortSignal | undefined): Promise<void> {
    throwIfAborted(signal);
    const { record, place } = this;
    const values = finite(sized(action, this.#environment.actionSize, `The action ${place}`), `The action ${place}`);
    // The environment may do with its copy what it likes.
    const step = await told(`The environment failed ${place}`, () => this.#environment.step(values.slice()));
    await this.#see(step, place);
    const { reward, terminated, truncated } = step;
    if (typeof reward !== "number" || Number.isNaN(reward)) throw new JepaError("bad-input", `The environment gave the reward ${shown(reward)} ${place}: it is a number.`);
    if (typeof terminated !== "boolean" || typeof truncated !== "boolean") throw new JepaError("bad-input", `The environment gave no terminated and truncated ${place}: both are true or false.`);
    record.actions.push(values);
    record.rewards.push(reward);
    record.terminated = terminated;
    record.truncated = truncated || (!terminated && record.actions.length >= this.#steps);
  }

  async #see(seen: Observation, place: string): Promise<void> {
    const { record } = this;
    if (typeof seen !== "object" || seen === null || seen.observation === undefined || seen.observation === null) {
      throw new JepaError("bad-input", `The environment gave no observation (${place}): it gives { observation }, a picture, and { reward, terminated, truncated } after an action.`);
    }
    const { observation } = seen;
    this.#seen = { observation: await kept(observation) };
    if (seen.state !== undefined) {
      const state = finite(Float32Array.from(valuesOf(seen.state)), `The state that the environment gave (${place})`);
      this.#seen.state = state;
      (record.states ??= []).push(state);
    }
    record.frames.push(this.#seen.observation);
    if (record.states && record.states.length !== record.frames.length) throw new JepaError("bad-input", `The environment gave a state in some frames and none in others (${place}): give one always, or never.`);
  }
}

/** Random numbers of an episode, as many as are asked for. */
function numbersFrom(seed: number, episode: number): () => number {
  let [drawn, at, draws] = [new Float32Array(), 0, 0];
  return () => {
    if (at === drawn.length) {
      if (draws === MOST_DRAWS) throw new JepaError("bad-input", "The policy drew more random numbers than an episode has.");
      drawn = callCore<GlueRandom, Float32Array>((glue) => glue.uniformNumbers(seed, episode * MOST_DRAWS + draws++, DRAWN)) as Float32Array<ArrayBuffer>;
      at = 0;
    }
    return drawn[at++]!;
  };
}
