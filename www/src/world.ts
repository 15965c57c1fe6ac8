import { captureAll, type ImageInput } from "./inputs.js";
import { JepaError, throwIfAborted } from "./errors.js";
import type { GlueWorldInfo } from "./glue.js";
import { asyncDispose, isolated, type Advice, type LossListeners, type Resident } from "./host.js";
import { settled, type LoadOptions } from "./load-options.js";
import type { Vector } from "./math.js";
import { finiteValues, planRequest, type Plan, type PlanOptions } from "./plan-options.js";
import type { PlanRound } from "./protocol.js";
import type { Backend, Dtype, ModelConfig } from "./types.js";
import type { ModelSource } from "./weights.js";

/** How a world model is loaded. */
export type WorldOptions = Pick<LoadOptions, "backend" | "threads" | "dtype" | "worker" | "config" | "onProgress" | "signal" | "cache" | "integrity" | "requestInit" | keyof LossListeners>;

export interface EncodeOptions {
  /** False: pictures are Float32Array pixel data, resized and normalised by the caller to be the model's very input. Default true. */
  preprocess?: boolean | undefined;
  /** Aborts the call; the model stays usable. */
  signal?: AbortSignal | undefined;
}

/**
 * Where an episode is: the embedding of its last frame, or those of the last frames, `[frames, D]` or `[frames, N, D]`, with the actions
 * between them, and, for a model that is told states (V-JEPA 2-AC), the state in each frame.
 */
export type Episode = Vector | { embeddings: Vector; actions?: readonly Vector[] | undefined; states?: readonly Vector[] | undefined };

/** A sequence of action blocks, one after the other. */
export type ActionSequence = readonly Vector[];

/** One sequence, or several of one length: as arrays of blocks, or row-major in one array of shape `[horizon, A]` or `[N, horizon, A]`. */
export type Actions = ActionSequence | readonly ActionSequence[] | { data: Float32Array; shape: readonly number[] };

/** A sequence of states, or several of one length: as {@link Actions} are given. */
export type States = Actions;

export interface RolloutOptions {
  /**
   * For a model that is told states: the state before each action, in place of those that follow from the state in the last frame and the
   * actions. `[horizon, S]`, which counts for all sequences, or `[N, horizon, S]`.
   */
  states?: States | undefined;
  /** Aborts the call; the model stays usable. */
  signal?: AbortSignal | undefined;
}

const ADVICE: Advice = { disposed: "The model has been disposed of; load it again.", lost: "The next call loads the model again." };

/**
 * A world model: it tells what actions lead to, in embeddings, and which actions lead to a goal. Of LeWorldModel (arXiv 2603.19312) a
 * frame is one embedding and actions are z-scored blocks; of V-JEPA 2-AC (arXiv 2506.09985) a frame is the embeddings of its patches, and
 * the model is told the state of the robot, too.
 *
 * @example
 * const world = await WorldModel.load("/models/lewm/");
 * const [now, goal] = [await world.encode(camera), await world.encode(wanted)];
 * const { actions } = await world.plan(now, goal);
 * // V-JEPA 2-AC: with the pose of the arm, [x, y, z, three angles, gripper]
 * const next = await world.plan({ embeddings: now, states: [pose] }, goal);
 */
export class WorldModel {
  readonly #resident: Resident<GlueWorldInfo>;

  /**
   * Loads a model.
   *
   * @throws {@link JepaError} those of {@link Jepa.load}; `unsupported` for a model that is no world model
   */
  static async load(source: ModelSource, options: WorldOptions = {}): Promise<WorldModel> {
    return new WorldModel(await settled("world", source, options, ADVICE, { world: true }));
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

  /** Threads that compute: more than 1 only on the CPU, in a worker of a cross-origin isolated page; see {@link LoadOptions.threads}. */
  get threads(): number {
    return this.#resident.threads;
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

  /** Numbers of a state, S; 0 for a model that is told none. */
  get stateSize(): number {
    return this.#resident.info.stateSize;
  }

  /** Of a frame's embeddings: `[D]`, or `[N, D]` where every patch has one. */
  get shape(): number[] {
    return [...this.#resident.info.shape];
  }

  /** Most frames that a prediction is made from. */
  get history(): number {
    return this.#resident.info.history;
  }

  /**
   * The embedding of a picture, or of several.
   *
   * @returns row-major data of the model's {@link WorldModel.shape}, with a leading `B` for an array of pictures
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
        const { shape } = this;
        return { data, shape: list ? [list.length, ...shape] : shape };
      },
      signal,
    );
  }

  /**
   * What actions lead to, step by step.
   *
   * @returns the embeddings after each action, row-major, `[horizon, ...shape]`, or `[N, horizon, ...shape]` for several sequences
   * @throws {@link JepaError} `bad-input` for sizes that do not fit the model and for numbers that are none; `aborted`, `disposed`
   */
  async rollout(from: Episode, actions: Actions, { states, signal }: RolloutOptions = {}): Promise<{ data: Float32Array; shape: number[] }> {
    const { count, horizon, listed, data } = this.#sequences(actions);
    const told = states === undefined ? undefined : this.#told(states, count, horizon);
    const request = { ...this.#episode(from), actions: data, told, count, horizon };
    const result = await this.#resident.call((engine, id) => engine.call("rollout", { id, ...request }, { signal }), signal);
    return { data: result.data, shape: [...(listed ? [count] : []), horizon, ...this.shape] };
  }

  /**
   * Searches for actions that lead near a goal.
   *
   * @param goal - its embedding
   * @throws {@link JepaError} `bad-config` for a search that cannot be, such as more elites than samples; those of
   * {@link WorldModel.rollout}
   */
  async plan(from: Episode, goal: Vector, options: PlanOptions = {}): Promise<Plan> {
    const { signal, onIteration } = options;
    const request = { ...this.#episode(from), goal: finiteValues("the goal", goal), options: planRequest(options) };
    let iteration = 0;
    const listener = onIteration && isolated(onIteration);
    const onRound = listener && (({ samples: data, costs }: PlanRound) => {
      const shape: [number, number, number] = [costs.length, data.length / costs.length / this.actionSize, this.actionSize];
      listener({ iteration: iteration++, samples: { data, shape }, costs });
    });
    const { actions, costs } = await this.#resident.call((engine, id) => engine.call("plan", { id, ...request }, { signal, onRound }), signal);
    return { actions: { data: actions, shape: [actions.length / this.actionSize, this.actionSize] }, costs };
  }

  #episode(from: Episode): { embeddings: Float32Array; past: Float32Array; states: Float32Array } {
    const { embeddings, actions = [], states = [] } = typeof from === "object" && from !== null && "embeddings" in from ? from : { embeddings: from };
    const past = actions.map((block, i) => this.#block(ACTIONS, `past action ${i}`, block));
    const told = states.map((state, i) => this.#block(STATES, `state ${i}`, state));
    return { embeddings: finiteValues("the embeddings", embeddings), past: joined(past), states: joined(told) };
  }

  /** The states before each action of every sequence. */
  #told(states: States, count: number, horizon: number): Float32Array {
    const told = this.#sequences(states, STATES);
    if (told.horizon !== horizon || (told.listed && told.count !== count)) {
      throw new JepaError("bad-input", `There is a state before each of the ${horizon} actions, for all ${count} sequences or for each, not [${told.count}, ${told.horizon}].`);
    }
    return told.listed ? told.data : joined(Array.from({ length: count }, () => told.data));
  }

  #sequences(actions: Actions, kind: Kind = ACTIONS): { data: Float32Array; count: number; horizon: number; listed: boolean } {
    const { one, many, size } = kind;
    const numbers = this.#resident.info[size];
    if (typeof actions === "object" && actions !== null && "data" in actions) {
      const { data, shape } = actions;
      const [count, horizon, action] = shape.length === 2 ? [1, ...shape] : shape;
      if (![2, 3].includes(shape.length) || action !== numbers || count! * horizon! * action !== data.length || data.length === 0) {
        throw new JepaError("bad-input", `${capital(many)} are [horizon, ${numbers}] or [N, horizon, ${numbers}], not ${data.length} numbers of shape [${shape.join(", ")}].`);
      }
      return { data: finiteValues(`the ${many}`, data), count: count!, horizon: horizon!, listed: shape.length === 3 };
    }
    if (!Array.isArray(actions) || actions.length === 0) throw new JepaError("bad-input", `${capital(many)} are an array of ${one}s, or of several such sequences.`);
    const first: unknown = actions[0];
    const listed = Array.isArray(first) && typeof first[0] !== "number";
    const list = (listed ? actions : [actions]) as readonly ActionSequence[];
    const horizon = list[0]!.length;
    if (horizon === 0 || list.some(({ length }) => length !== horizon)) throw new JepaError("bad-input", `Sequences of ${many} have one length, of one ${one} at least.`);
    const blocks = list.flatMap((sequence, n) => sequence.map((block, i) => this.#block(kind, `${many.slice(0, -1)} ${i}${listed ? ` of sequence ${n}` : ""}`, block)));
    return { data: joined(blocks), count: list.length, horizon, listed };
  }

  #block({ one, many, size }: Kind, name: string, block: Vector): Float32Array {
    const numbers = this.#resident.info[size];
    if (numbers === 0) throw new JepaError("bad-input", `This model is told no ${many}: leave them out.`);
    const values = finiteValues(name, block);
    if (values.length !== numbers) throw new JepaError("bad-input", `${/^[aeiou]/.test(one) ? "An" : "A"} ${one} has ${numbers} numbers; ${name} has ${values.length}.`);
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

/** What is given number by number, and where the model says how many there are. */
interface Kind {
  one: string;
  many: string;
  size: "actionSize" | "stateSize";
}
const ACTIONS: Kind = { one: "action block", many: "actions", size: "actionSize" };
const STATES: Kind = { one: "state", many: "states", size: "stateSize" };

const capital = (word: string): string => word[0]!.toUpperCase() + word.slice(1);

/** All numbers, one block after the other. */
export function joined(blocks: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(blocks.reduce((sum, { length }) => sum + length, 0));
  blocks.reduce((at, block) => (all.set(block, at), at + block.length), 0);
  return all;
}
