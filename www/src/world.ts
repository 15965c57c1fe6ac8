import { captureAll, type ImageInput } from "./inputs.js";
import { JepaError, throwIfAborted } from "./errors.js";
import type { GluePlanOptions, GlueWorldInfo } from "./glue.js";
import { asyncDispose, Resident, type Advice } from "./host.js";
import { customCache, loadRequest, type LoadOptions } from "./jepa.js";
import { valuesOf, type Vector } from "./math.js";
import { anything, atLeast, checkFields, moreThan, oneOf, whole, type Rule } from "./options.js";
import type { Backend, Dtype, ModelConfig } from "./types.js";
import type { ModelSource } from "./weights.js";

/** How a world model is loaded. */
export type WorldOptions = Pick<LoadOptions, "backend" | "dtype" | "worker" | "config" | "onProgress" | "signal" | "cache" | "integrity">;

export interface EncodeOptions {
  /** False: pictures are Float32Array pixel data, resized and normalised by the caller to be the model's very input. Default true. */
  preprocess?: boolean | undefined;
  /** Aborts the call; the model stays usable. */
  signal?: AbortSignal | undefined;
}

/** Where an episode is: the embedding of its last frame, or those of the last frames, `[frames, D]`, with the actions between them. */
export type Episode = Vector | { embeddings: Vector; actions: readonly Vector[] };

/** A sequence of action blocks, one after the other. */
export type ActionSequence = readonly Vector[];

/** One sequence, or several of one length: as arrays of blocks, or row-major in one array of shape `[horizon, A]` or `[N, horizon, A]`. */
export type Actions = ActionSequence | readonly ActionSequence[] | { data: Float32Array; shape: readonly number[] };

export interface RolloutOptions {
  /** Aborts the call; the model stays usable. */
  signal?: AbortSignal | undefined;
}

export interface PlanOptions {
  /**
   * `"cem"` (default): the cross-entropy method, as LeWorldModel plans. `"mppi"`: path integrals, in which every sample counts by its
   * cost. `"gradient"`: gradient descent from several starts, of which the cheapest sequence is the plan.
   */
  planner?: "cem" | "mppi" | "gradient" | undefined;
  /** Of the samples. Default 0. */
  seed?: number | undefined;
  /** Action blocks of a plan. Default 5. */
  horizon?: number | undefined;
  /** Sequences of a round; of `"gradient"` the starts. Default 300, of `"gradient"` 16. */
  samples?: number | undefined;
  /** Rounds. Default 30. */
  iterations?: number | undefined;
  /** `"cem"`: the cheapest sequences, to whose mean and standard deviation the search moves. Default 30. */
  elites?: number | undefined;
  /** `"cem"`: what mean and standard deviation keep of themselves in a round. Default `[0, 0]`. */
  momentum?: readonly [mean: number, std: number] | undefined;
  /** `"mppi"`: a sample weighs `exp(−(cost − lowest cost) / temperature)`. Default 1. */
  temperature?: number | undefined;
  /** `"gradient"`: what the gradient is multiplied with in a round. Default 1 / D, which is 1 for the mean over features, as DINO-WM plans. */
  rate?: number | undefined;
  /** Standard deviation of the first samples. Default 1, as actions are z-scored. */
  scale?: number | undefined;
  /** Largest absolute value of a number of an action. Default: none. */
  limit?: number | undefined;
  /**
   * What a sequence costs: the square distance of its `"last"` prediction to the goal (default, as published), or the `"sum"` over all of its
   * predictions, so that what arrives earlier costs less and horizons may be longer than the way.
   */
  cost?: "last" | "sum" | undefined;
  /** Where to begin: a plan, `[horizon, A]`. Default 0. */
  start?: Vector | undefined;
  /** Aborts the call between two rounds; the model stays usable. */
  signal?: AbortSignal | undefined;
}

/** What {@link WorldModel.plan} gives. */
export interface Plan {
  /** Row-major, `[horizon, A]`. */
  actions: { data: Float32Array; shape: [horizon: number, action: number] };
  /** The lowest cost of a sequence in each round: the sum over features of (last prediction − goal)², or of those of all predictions. */
  costs: number[];
}

const ADVICE: Advice = { disposed: "The model has been disposed of; load it again.", lost: "The next call loads the model again." };
const PLANNERS: readonly unknown[] = ["cem", "mppi", "gradient"];
const COSTS: readonly unknown[] = ["last", "sum"];

/**
 * A world model: it tells what actions lead to, in embeddings, and which actions lead to a goal. This version runs LeWorldModel
 * (arXiv 2603.19312), whose actions are z-scored blocks.
 *
 * @example
 * const world = await WorldModel.load("/models/lewm/");
 * const [now, goal] = [await world.encode(camera), await world.encode(wanted)];
 * const { actions } = await world.plan(now, goal);
 */
export class WorldModel {
  readonly #resident: Resident<GlueWorldInfo>;

  /**
   * Loads a model.
   *
   * @throws {@link JepaError} those of {@link Jepa.load}; `unsupported` for a model that is no world model
   */
  static async load(source: ModelSource, options: WorldOptions = {}): Promise<WorldModel> {
    const { signal, worker = true, onProgress } = options;
    throwIfAborted(signal);
    const request = loadRequest(source, options);
    request.options.world = true;
    const cache = customCache(options.cache);
    return new WorldModel(await Resident.settle((engine, each) => engine.call("world", request, { ...each, cache }), { worker, again: true, advice: ADVICE, signal, onProgress }));
  }

  /** @internal */
  static of(resident: Resident<GlueWorldInfo>): WorldModel {
    return new WorldModel(resident);
  }

  private constructor(resident: Resident<GlueWorldInfo>) {
    this.#resident = resident;
  }

  /** What computes. */
  get backend(): Backend {
    return this.#resident.info.backend;
  }

  /** Why `backend: "auto"` chose the CPU, as a sentence; undefined when it did not. */
  get fallbackReason(): string | undefined {
    return this.#resident.fallbackReason;
  }

  /** Why files were not kept in the cache, or not read from it, as a sentence; undefined when nothing went wrong. */
  get cacheFailure(): string | undefined {
    return this.#resident.cacheFailure;
  }

  /** How the weights of the encoder are kept. */
  get dtype(): Dtype {
    return this.#resident.info.dtype;
  }

  /** The geometry of the model. */
  get config(): ModelConfig {
    return this.#resident.info.config;
  }

  /** Numbers of an action block, A. */
  get actionSize(): number {
    return this.#resident.info.actionSize;
  }

  /** Most frames that a prediction is made from. */
  get history(): number {
    return this.#resident.info.history;
  }

  /**
   * The embedding of a picture, or of several.
   *
   * @returns row-major data of shape `[D]`, or `[B, D]` for an array of pictures
   * @throws {@link JepaError} those of {@link Jepa.embed}
   */
  encode(images: ImageInput | readonly ImageInput[], { preprocess = true, signal }: EncodeOptions = {}): Promise<{ data: Float32Array; shape: number[] }> {
    const list: readonly ImageInput[] | undefined = Array.isArray(images) ? images : undefined;
    const capturing = async () => {
      throwIfAborted(signal);
      if (list?.length === 0) throw new JepaError("bad-input", "There is no picture to encode: the array is empty.");
      return { pictures: await captureAll(list ?? [images as ImageInput], (i) => (list && list.length > 1 ? i : undefined), !preprocess), preprocess };
    };
    return this.#resident.callWith(
      capturing(),
      async (engine, request) => {
        const { data } = await engine.call("encode", request, { signal });
        const { hiddenSize } = this.#resident.info;
        return { data, shape: list ? [list.length, hiddenSize] : [hiddenSize] };
      },
      signal,
    );
  }

  /**
   * What actions lead to, step by step.
   *
   * @returns the embeddings after each action, row-major, `[horizon, D]`, or `[N, horizon, D]` for several sequences
   * @throws {@link JepaError} `bad-input` for sizes that do not fit the model and for numbers that are none; `aborted`, `disposed`
   */
  async rollout(from: Episode, actions: Actions, { signal }: RolloutOptions = {}): Promise<{ data: Float32Array; shape: number[] }> {
    const sequences = this.#sequences(actions);
    const episode = this.#episode(from);
    const { count, horizon, listed, data } = sequences;
    const result = await this.#resident.call((engine, id) => engine.call("rollout", { id, ...episode, actions: data, count, horizon }, { signal }), signal);
    const { hiddenSize } = this.#resident.info;
    return { data: result.data, shape: listed ? [count, horizon, hiddenSize] : [horizon, hiddenSize] };
  }

  /**
   * Searches for actions that lead near a goal.
   *
   * @param goal - its embedding
   * @throws {@link JepaError} `bad-config` for a search that cannot be, such as more elites than samples; those of
   * {@link WorldModel.rollout}
   */
  async plan(from: Episode, goal: Vector, options: PlanOptions = {}): Promise<Plan> {
    const { signal, ...rest } = options;
    checkFields("", rest, PLAN);
    const { planner = "cem", cost = "last", seed = 0, momentum, start, ...numbers } = rest;
    oneOf("planner", planner, PLANNERS);
    oneOf("cost", cost, COSTS);
    if (momentum !== undefined && !(Array.isArray(momentum) && momentum.length === 2)) throw new JepaError("bad-input", "The option momentum is [mean, std], two numbers from 0 to 1.");
    const search: GluePlanOptions = JSON.parse(
      JSON.stringify({ planner, cost, seed, ...numbers, momentum, start: start === undefined ? undefined : [...this.#finite("the start", start)] }),
    );
    const request = { ...this.#episode(from), goal: this.#finite("the goal", goal), options: search };
    const { actions, costs } = await this.#resident.call((engine, id) => engine.call("plan", { id, ...request }, { signal }), signal);
    return { actions: { data: actions, shape: [actions.length / this.actionSize, this.actionSize] }, costs };
  }

  #episode(from: Episode): { embeddings: Float32Array; past: Float32Array } {
    const isEpisode = typeof from === "object" && from !== null && "embeddings" in from;
    const embeddings = this.#finite("the embeddings", isEpisode ? from.embeddings : from);
    const past = isEpisode ? from.actions.map((block, i) => this.#block(`past action ${i}`, block)) : [];
    return { embeddings, past: joined(past) };
  }

  #sequences(actions: Actions): { data: Float32Array; count: number; horizon: number; listed: boolean } {
    if (typeof actions === "object" && actions !== null && "data" in actions) {
      const { data, shape } = actions;
      const [count, horizon, action] = shape.length === 2 ? [1, ...shape] : shape;
      if (![2, 3].includes(shape.length) || action !== this.actionSize || count! * horizon! * action !== data.length || data.length === 0) {
        throw new JepaError("bad-input", `Actions are [horizon, ${this.actionSize}] or [N, horizon, ${this.actionSize}], not ${data.length} numbers of shape [${shape.join(", ")}].`);
      }
      return { data: this.#finite("the actions", data), count: count!, horizon: horizon!, listed: shape.length === 3 };
    }
    if (!Array.isArray(actions) || actions.length === 0) throw new JepaError("bad-input", "Actions are an array of action blocks, or of several such sequences.");
    const first: unknown = actions[0];
    const listed = Array.isArray(first) && typeof first[0] !== "number";
    const list = (listed ? actions : [actions]) as readonly ActionSequence[];
    const horizon = list[0]!.length;
    if (horizon === 0 || list.some(({ length }) => length !== horizon)) throw new JepaError("bad-input", "Sequences of actions have one length, of one action block at least.");
    const blocks = list.flatMap((sequence, n) => sequence.map((block, i) => this.#block(listed ? `action ${i} of sequence ${n}` : `action ${i}`, block)));
    return { data: joined(blocks), count: list.length, horizon, listed };
  }

  #block(name: string, block: Vector): Float32Array {
    const values = this.#finite(name, block);
    if (values.length !== this.actionSize) throw new JepaError("bad-input", `An action block has ${this.actionSize} numbers; ${name} has ${values.length}.`);
    return values;
  }

  #finite(name: string, vector: Vector): Float32Array {
    const values = Float32Array.from(valuesOf(vector));
    if (!values.every(Number.isFinite)) throw new JepaError("bad-input", `There is a number in ${name} that is not finite.`);
    return values;
  }

  /** Gives back the model's memory and, with the last that lives there, its worker and GPU device. Calls in progress reject with `disposed`. May be called twice. */
  dispose(): Promise<void> {
    return this.#resident.dispose();
  }

  /** The same as {@link WorldModel.dispose}, for `await using`. */
  [asyncDispose](): Promise<void> {
    return this.dispose();
  }
}

const PLAN: Record<Exclude<keyof PlanOptions, "signal">, Rule> = {
  planner: anything,
  seed: whole(0),
  horizon: whole(1),
  samples: whole(1),
  iterations: whole(1),
  elites: whole(1),
  momentum: anything,
  temperature: moreThan(0),
  rate: moreThan(0),
  scale: atLeast(0),
  limit: moreThan(0),
  cost: anything,
  start: anything,
};

/** All numbers, one block after the other. */
export function joined(blocks: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(blocks.reduce((sum, { length }) => sum + length, 0));
  blocks.reduce((at, block) => (all.set(block, at), at + block.length), 0);
  return all;
}
