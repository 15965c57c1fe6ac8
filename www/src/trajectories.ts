// What was done and what was seen: recordings that world models learn from.

import { callCore } from "./core.js";
import { JepaError } from "./errors.js";
import type { ImageInput } from "./inputs.js";
import { valuesOf, type Vector } from "./math.js";
import { anything, checkFields, whole } from "./options.js";

/** An episode as it was recorded: frames, and the action between each and the next. */
export interface Trajectory {
  /** One more than there are actions. */
  frames: ArrayLike<ImageInput>;
  /** As the environment takes them. NaN, as of an action that is not known, counts as the mean. */
  actions: readonly Vector[];
  /** The state in each frame, for models that are told it (V-JEPA 2-AC). */
  states?: readonly Vector[] | undefined;
}

/** What a world model learns from: frames that it sees, and the action blocks between them as it takes them. */
export interface ActionWindow {
  /** As many as the trainer's `info.frames`: of LeWorldModel one more than its history. */
  frames: readonly ImageInput[];
  /** One fewer, blocks of `actionSize` numbers; NaN counts as 0. */
  actions: readonly Vector[];
  /** Of V-JEPA 2-AC one for each frame, of `stateSize` numbers. */
  states?: readonly Vector[] | undefined;
}

export interface WindowOptions {
  /** Action blocks of a window: the history of the model; of V-JEPA 2-AC, which was published with 7, the frames of a window but one. Default 3. */
  history?: number | undefined;
  /** Actions of a block, of which so many are between two frames of a window. Default 1; LeWorldModel was published with 5. */
  skip?: number | undefined;
  /**
   * How actions are scaled. Default: to the mean and deviation of those of the trajectories. V-JEPA 2-AC, which adds actions to states,
   * takes them as they are: {@link ActionScale.identity}.
   */
  scale?: ActionScale | undefined;
}

/** All windows of trajectories, made when they are asked for: a data set for {@link Trainer.run}. */
export interface ActionWindows {
  readonly length: number;
  get(index: number): ActionWindow;
  /** Whose {@link ActionScale.unscaled} brings planned actions back to the environment's units. Keep it with the model. */
  readonly scale: ActionScale;
}

/** What the wasm module exports. */
interface GlueActions {
  /** The means, then the deviations. */
  fitActionScale(actions: Float32Array, action: number): Float64Array;
  scaleActions(mean: Float64Array, std: Float64Array, actions: Float32Array, back: boolean): Float32Array;
}

/** Actions in units of their own spread, as world models take them: `(a − mean) / deviation`, number by number. */
export class ActionScale {
  readonly #mean: Float64Array;
  readonly #std: Float64Array;

  /**
   * Of actions of one size, with the unbiased deviation; NaN is left out.
   *
   * @throws {@link JepaError} `bad-input` for actions of different sizes, fewer than two, and infinite ones
   */
  static of(actions: readonly Vector[]): ActionScale {
    if (!Array.isArray(actions) || actions.length === 0) throw new JepaError("bad-input", "There is no action: give an array of them.");
    const size = valuesOf(actions[0]!).length;
    const all = new Float32Array(actions.length * size);
    actions.forEach((action, i) => all.set(sized(action, size, `Action ${i}`), i * size));
    const statistics = callCore<GlueActions, Float64Array>((glue) => glue.fitActionScale(all, size));
    return new ActionScale(statistics.slice(0, size), statistics.slice(size));
  }

  /** Of actions that are taken as they are. */
  static identity(size: number): ActionScale {
    checkFields("", { size }, { size: whole(1) });
    return new ActionScale(new Float64Array(size), new Float64Array(size).fill(1));
  }

  /**
   * A scale as {@link ActionScale.toJSON} wrote it.
   *
   * @throws {@link JepaError} `bad-input` when it is none
   */
  static fromJSON(json: unknown): ActionScale {
    const { mean, std } = (typeof json === "object" && json !== null ? json : {}) as Record<string, unknown>;
    const isList = (list: unknown): list is number[] => Array.isArray(list) && list.length > 0 && list.every((value) => typeof value === "number" && Number.isFinite(value));
    if (!isList(mean) || !isList(std) || mean.length !== std.length || std.some((value) => value < 0)) throw new JepaError("bad-input", "This is no saved scale of actions, or a damaged one.");
    return new ActionScale(Float64Array.from(mean), Float64Array.from(std));
  }

  private constructor(mean: Float64Array, std: Float64Array) {
    this.#mean = mean;
    this.#std = std;
  }

  /** Numbers of an action. */
  get size(): number {
    return this.#mean.length;
  }

  /**
   * An action, or several one after the other, as models take them; 0 for NaN.
   *
   * @throws {@link JepaError} `bad-input` for another number of values
   */
  scaled(actions: Vector): Float32Array {
    return this.#applied(actions, false);
  }

  /** The same the other way: as the environment takes them. */
  unscaled(actions: Vector): Float32Array {
    return this.#applied(actions, true);
  }

  #applied(actions: Vector, back: boolean): Float32Array {
    const values = Float32Array.from(valuesOf(actions));
    return callCore<GlueActions, Float32Array>((glue) => glue.scaleActions(this.#mean, this.#std, values, back));
  }

  /** For `JSON.stringify`. */
  toJSON(): { mean: number[]; std: number[] } {
    return { mean: [...this.#mean], std: [...this.#std] };
  }
}

/**
 * Cuts trajectories into windows, one beginning at each frame that has enough of them after it.
 *
 * @example
 * const windows = windowsOf(episodes, { skip: 5 });
 * const trainer = await Trainer.create({ model: { ...sizes, system: "lewm", lewm: { actionSize: 5 * windows.scale.size } }, objective: "lewm" });
 * for await (const { loss } of trainer.run(windows)) console.log(loss);
 * @throws {@link JepaError} `bad-input` for a trajectory whose frames and actions do not fit each other, actions of different sizes, and
 * where no trajectory is long enough
 */
export function windowsOf(trajectories: readonly Trajectory[], options: WindowOptions = {}): ActionWindows {
  checkFields("", options, { history: whole(1), skip: whole(1), scale: anything });
  const { history = 3, skip = 1, scale = ActionScale.of(trajectories.flatMap(({ actions }) => actions)) } = options;
  const blocks = trajectories.map(({ frames, actions, states }, n) => {
    if (frames.length !== actions.length + 1) throw new JepaError("bad-input", `Trajectory ${n} has ${frames.length} frames and ${actions.length} actions: there is one action between a frame and the next.`);
    if (states && states.length !== frames.length) throw new JepaError("bad-input", `Trajectory ${n} has ${frames.length} frames and ${states.length} states: there is one in each frame.`);
    return actions.map((action, i) => scale.scaled(sized(action, scale.size, `Action ${i} of trajectory ${n}`)));
  });
  const starts = blocks.flatMap((actions, n) => Array.from({ length: Math.max(0, actions.length - history * skip + 1) }, (_, first) => [n, first] as const));
  if (starts.length === 0) throw new JepaError("bad-input", `No trajectory has the ${history * skip} actions of a window.`);
  return {
    length: starts.length,
    scale,
    get(index) {
      const [n, first] = starts[index]!;
      const { frames, states } = trajectories[n]!;
      return {
        frames: Array.from({ length: history + 1 }, (_, i) => frames[first + i * skip]!),
        actions: Array.from({ length: history }, (_, i) => blocks[n]!.slice(first + i * skip, first + (i + 1) * skip).flatMap((action) => [...action])),
        ...(states ? { states: Array.from({ length: history + 1 }, (_, i) => states[first + i * skip]!) } : {}),
      };
    },
  };
}

/** Numbers that all are some. */
export function finite(values: Float32Array, name: string): Float32Array {
  const at = values.findIndex((value) => !Number.isFinite(value));
  if (at >= 0) throw new JepaError("bad-input", `${name} has a number that is not finite, at ${at}.`);
  return values;
}

/** The numbers of an action, NaN among them. */
export function sized(action: Vector, size: number, name: string): Float32Array {
  const values = Float32Array.from(valuesOf(action));
  if (values.length !== size) throw new JepaError("bad-input", `${name} has ${values.length} numbers, not ${size}.`);
  const at = values.findIndex((value) => Math.abs(value) === Infinity);
  if (at >= 0) throw new JepaError("bad-input", `${name} has an infinite number, at ${at}.`);
  return values;
}
