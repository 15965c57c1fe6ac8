// How to search for actions: what callers say of it, as the wasm module takes it.

import { JepaError } from "./errors.js";
import type { GluePlanOptions } from "./glue.js";
import { valuesOf, type Vector } from "./math.js";
import { aBoolean, aFunction, anObject, anything, atLeast, between, checkFields, moreThan, whole, type Rule } from "./options.js";

/** What a search may do with one number of an action. What is left out is as published, or as the options of all axes say. */
export interface PlanAxis {
  /** Standard deviation of the first samples. */
  scale?: number | undefined;
  /** Largest absolute value. */
  limit?: number | undefined;
  /** A value that is not searched: at every step, or from a step on, counted from 0. */
  pin?: number | { from: number; value: number } | undefined;
  /** What the plan has of a smaller absolute value becomes 0. */
  deadZone?: number | undefined;
  /** `"cem"`: as the option of all axes. V-JEPA 2-AC's function has a gripper of `[0.15, 0.15]` beside `[0.25, 0.95]` for the others. */
  momentum?: readonly [mean: number, std: number] | undefined;
}

/** Who published settings of planners. */
export type PlanPreset = "lewm" | "vjepa2-ac" | "eb-jepa" | "dino-wm";

/** Defaults are those of the published planner of the model's system: LeWorldModel, or, where they differ, V-JEPA 2-AC. */
export interface PlanOptions {
  /**
   * `"cem"` (default): the cross-entropy method, as both systems plan. `"mppi"`: path integrals, in which every sample counts by its
   * cost. `"gradient"`: gradient descent from several starts, of which the cheapest sequence is the plan.
   */
  planner?: "cem" | "mppi" | "gradient" | undefined;
  /**
   * Whose published settings the defaults are; that of the model's system where it is left out. `"lewm"` and `"vjepa2-ac"` have some of
   * `"cem"`. `"eb-jepa"` (arXiv 2602.03604): horizon 90, 200 samples, 20 elites, 20 rounds, `cost: "sum"`; of `"cem"` a scale of 1.5 and a
   * norm of at most 2.45, of `"mppi"` a scale and `maxStd` of 2 and a temperature of 200, as its code multiplies with 0.005. `"dino-wm"`
   * (arXiv 2411.04983): `"cem"` as LeWorldModel's, `"gradient"` from one start in 1000 rounds.
   */
  preset?: PlanPreset | undefined;
  /** Of the samples. Default 0. */
  seed?: number | undefined;
  /** Action blocks of a plan. Default 5, or 2. */
  horizon?: number | undefined;
  /** Sequences of a round; of `"gradient"` the starts. Default 300, or 400; of `"gradient"` 16. */
  samples?: number | undefined;
  /** Rounds. Default 30, or 10. */
  iterations?: number | undefined;
  /**
   * The cheapest sequences, to whose mean and standard deviation the search moves. `"cem"`: default 30, or 10. `"mppi"`: by default all
   * count, and the standard deviation stays.
   */
  elites?: number | undefined;
  /** `"cem"`: what mean and standard deviation keep of themselves in a round. Default `[0, 0]`, or `[0.15, 0.15]`. */
  momentum?: readonly [mean: number, std: number] | undefined;
  /** `"cem"` and `"mppi"`: whether the first sequence of a round is the mean itself. Default true, as LeWorldModel has it, or false; of `"mppi"` true. */
  centre?: boolean | undefined;
  /** `"mppi"`: the largest standard deviation. Default: none. */
  maxStd?: number | undefined;
  /** `"mppi"`: a sample weighs `exp(−(cost − lowest cost) / temperature)`. Default 1. */
  temperature?: number | undefined;
  /** `"gradient"`: what the gradient is multiplied with in a round. Default 1 / D, which is 1 for the mean over features, as DINO-WM plans; of V-JEPA 2-AC, whose cost is a mean, 1. */
  rate?: number | undefined;
  /**
   * Standard deviation of the first samples of every number that is not pinned. Default 1, as LeWorldModel's actions are z-scored; of
   * V-JEPA 2-AC 0.05 (m) for places and 1 for the gripper, while rotations are pinned to 0.
   */
  scale?: number | undefined;
  /** Largest absolute value of a number of an action that is not pinned. Default: none; of V-JEPA 2-AC 0.05 for places and 0.75 for the gripper. */
  limit?: number | undefined;
  /** Largest Euclidean norm of what is searched of an action; longer ones are shortened. Default: none. */
  maxNorm?: number | undefined;
  /**
   * What a sequence costs: the square distance of its `"last"` prediction to the goal (default, as published), or the `"sum"` over all of its
   * predictions, so that what arrives earlier costs less and horizons may be longer than the way.
   */
  cost?: "last" | "sum" | undefined;
  /** The same and more, number by number. V-JEPA 2-AC's plans have a gripper of 0 where it is below 0.25. */
  axes?: readonly PlanAxis[] | undefined;
  /** Where to begin: a plan, `[horizon, A]`. Default 0. */
  start?: Vector | undefined;
  /** Told after each round what it tried. What it throws does not end the search. */
  onIteration?: ((iteration: PlanIteration) => void) | undefined;
  /** Aborts the call between two rounds; the model stays usable. */
  signal?: AbortSignal | undefined;
}

/** A round of a search. */
export interface PlanIteration {
  /** Its number, from 0. */
  iteration: number;
  /** The sequences that were tried, row-major, `[samples, horizon, A]`: as {@link WorldModel.rollout} takes them. */
  samples: { data: Float32Array; shape: [samples: number, horizon: number, action: number] };
  /** The cost of each. */
  costs: Float32Array;
}

/** What {@link WorldModel.plan} gives. */
export interface Plan {
  /** Row-major, `[horizon, A]`. */
  actions: { data: Float32Array; shape: [horizon: number, action: number] };
  /**
   * The lowest cost of a sequence in each round: the sum over features of (last prediction − goal)², of V-JEPA 2-AC the mean over patches
   * and features of |last prediction − goal|; or the sum of those of all predictions.
   */
  costs: number[];
}

/**
 * The options as the wasm module takes them.
 *
 * @throws {@link JepaError} `bad-input` for what is none of them, or has values that it cannot have
 */
export function planRequest(options: PlanOptions): GluePlanOptions {
  checkFields("", options, PLAN);
  const { signal: _signal, onIteration: _onIteration, planner = "cem", preset, cost = preset === "eb-jepa" ? "sum" : "last", seed = 0, start, axes, ...rest } = options;
  const request = { planner, preset, cost, seed, ...rest, axes: axes && axesOf(axes), start: start === undefined ? undefined : [...finiteValues("the start", start)] };
  // Without the fields that are undefined.
  return JSON.parse(JSON.stringify(request));
}

/** The numbers of a vector, which all are some. */
export function finiteValues(name: string, vector: Vector): Float32Array {
  const values = Float32Array.from(valuesOf(vector));
  if (!values.every(Number.isFinite)) throw new JepaError("bad-input", `There is a number in ${name} that is not finite.`);
  return values;
}

const among = (...allowed: string[]): Rule => ({ what: `one of ${allowed.map((known) => JSON.stringify(known)).join(", ")}`, allows: (value) => allowed.includes(value as string) });

const MOMENTUM: Rule = { what: "[mean, std], two numbers from 0 to 1", allows: (value) => Array.isArray(value) && value.length === 2 && value.every(between(0, 1).allows) };

const PLAN: Record<keyof PlanOptions, Rule> = {
  planner: among("cem", "mppi", "gradient"),
  preset: among("lewm", "vjepa2-ac", "eb-jepa", "dino-wm"),
  seed: whole(0),
  horizon: whole(1),
  samples: whole(1),
  iterations: whole(1),
  elites: whole(1),
  momentum: MOMENTUM,
  centre: aBoolean,
  maxStd: moreThan(0),
  temperature: moreThan(0),
  rate: moreThan(0),
  scale: atLeast(0),
  limit: moreThan(0),
  maxNorm: moreThan(0),
  cost: among("last", "sum"),
  start: anything,
  onIteration: aFunction,
  signal: anObject,
  axes: { what: "an array of objects, one for each number of an action", allows: Array.isArray },
};

const AXIS: Record<keyof PlanAxis, Rule> = { scale: atLeast(0), limit: atLeast(0), pin: anything, deadZone: atLeast(0), momentum: MOMENTUM };

function axesOf(axes: readonly PlanAxis[]): GluePlanOptions["axes"] {
  return axes.map((axis, i) => {
    checkFields(`axes[${i}]`, axis, AXIS);
    const { pin, ...rest } = axis;
    if (pin === undefined) return rest as object;
    const { from, value } = typeof pin === "object" && pin !== null ? pin : { from: 0, value: pin };
    checkFields(`axes[${i}].pin`, { from, value }, { from: whole(0), value: { what: "a number", allows: Number.isFinite } });
    return { ...(rest as object), pin: [from, value] };
  });
}
