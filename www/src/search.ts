// Searches for actions with models that are not this library's: of costs that JavaScript tells, by the planners of the wasm module.

import { callCore } from "./core.js";
import { macrotask } from "./environment.js";
import type { PlanningModel } from "./environments.js";
import { JepaError, throwIfAborted, told } from "./errors.js";
import type { GluePlanOptions } from "./glue.js";
import { isolated } from "./host.js";
import type { ImageInput } from "./inputs.js";
import { valuesOf, type Vector } from "./math.js";
import { aFunction, anything, checkFields, numbersOf, whole } from "./options.js";
import { planRequest, type Plan, type PlanIteration, type PlanOptions } from "./plan-options.js";
import { finite, sized } from "./trajectories.js";

/** What is searched, and by what. */
export interface Search {
  /** Numbers of an action. */
  actionSize: number;
  /** What each of these sequences costs, `[samples, horizon, A]`: the less the better, infinite where it is forbidden. */
  cost(sequences: PlanIteration["samples"]): Vector | Promise<Vector>;
  /** For the planner `"gradient"`, in place of `cost`: the gradient of each cost, `[samples, horizon, A]`, too. */
  slopes?(sequences: PlanIteration["samples"]): { costs: Vector; gradients: Vector } | Promise<{ costs: Vector; gradients: Vector }>;
}

/** Several of something, row-major; the first number of the shape says how many. */
export interface Rows {
  data: Float32Array;
  shape: number[];
}

/** A model that tells the next embedding from an embedding and an action. */
export interface StepModel {
  /** Numbers of an action. */
  actionSize: number;
  /** Of an embedding. */
  shape: readonly number[];
  /** The embedding of what is seen. */
  encode(observation: ImageInput): Vector | Promise<Vector>;
  /** The embeddings `[N, ...shape]` after one action each, `[N, A]`. */
  step(embeddings: Rows, actions: Rows): Vector | Promise<Vector>;
  /** How far each of `[N, ...shape]` is from the goal, which is an embedding. */
  cost(embeddings: Rows, goal: Float32Array): Vector | Promise<Vector>;
}

/** What the wasm module exports. */
interface GlueSearch {
  readonly horizon: number;
  /** The sequences of the next round, given what those of the last one cost; undefined when there is a plan. */
  proceed(costs: Float32Array | undefined, gradients: Float32Array | undefined): Float32Array | undefined;
  plan(): { actions: Float32Array; costs: number[] };
  free(): void;
}
interface GlueSearches {
  Search: new (options: GluePlanOptions, action: number) => GlueSearch;
}

/**
 * Searches for the actions that cost least, by the planners of {@link WorldModel.plan}, with costs of any origin. What is left out of the
 * options is as LeWorldModel plans.
 *
 * @example
 * // Of all sequences of two actions, the one whose actions are nearest to 0.5.
 * const cost = ({ data, shape }) => Array.from({ length: shape[0] }, (_, n) => data.slice(2 * n, 2 * n + 2).reduce((sum, a) => sum + (a - 0.5) ** 2, 0));
 * const { actions } = await planActions({ actionSize: 1, cost }, { horizon: 2, samples: 100, elites: 10 });
 * @throws {@link JepaError} `bad-config` for a search that cannot be, `bad-input` for costs that are none or are not as many as sequences, and
 * with what `cost` throws as the cause; `unsupported` for the planner `"gradient"` without `slopes`; `aborted`
 */
export async function planActions(search: Search, options: Omit<PlanOptions, "cost"> = {}): Promise<Plan> {
  checkFields("", search, { actionSize: whole(1), cost: aFunction, slopes: aFunction });
  const { actionSize } = search;
  const request = planRequest(options);
  const descends = request.planner === "gradient";
  if (descends && !search.slopes) throw new JepaError("unsupported", 'The planner "gradient" needs the gradients of costs: give slopes, or use "cem" or "mppi".');
  const { signal, onIteration } = options;
  const listener = isolated(onIteration);
  throwIfAborted(signal);
  const glue = callCore((exports: GlueSearches) => new exports.Search(request, actionSize));
  try {
    let [costs, gradients]: [Float32Array | undefined, Float32Array | undefined] = [undefined, undefined];
    for (let iteration = 0; ; iteration++) {
      const data: Float32Array | undefined = callCore(() => glue.proceed(costs, gradients));
      if (!data) break;
      const shape: [number, number, number] = [data.length / glue.horizon / actionSize, glue.horizon, actionSize];
      // The cost function may do with its copy what it likes.
      const sequences = () => ({ data: data.slice(), shape: [...shape] as typeof shape });
      if (descends) {
        const slopes = await told("The function slopes failed", () => search.slopes!(sequences()));
        [costs, gradients] = [numbersIn(slopes?.costs), numbersIn(slopes?.gradients)];
      } else costs = numbersIn(await told("The cost function failed", () => search.cost(sequences())));
      listener({ iteration, samples: sequences(), costs: costs.slice() });
      await macrotask();
      throwIfAborted(signal);
    }
    const { actions, costs: lowest } = callCore(() => glue.plan());
    return { actions: { data: actions, shape: [glue.horizon, actionSize] }, costs: lowest };
  } finally {
    callCore(() => glue.free());
  }
}

/** The costs that somebody gave. */
function numbersIn(vector: Vector | undefined): Float32Array {
  if (typeof vector !== "object" || vector === null) throw new JepaError("bad-input", "A cost function gives an array of numbers, one for each sequence.");
  return Float32Array.from(valuesOf(vector));
}

/**
 * Any model as one that {@link runEpisode} plans with: sequences of actions are followed step by step, all of a round at once.
 *
 * @example
 * const world = planningModel(own); // { actionSize: 2, shape: [64], encode, step, cost }
 * const { terminated } = await runEpisode(world, room, await own.encode(wanted));
 * @throws {@link JepaError} `bad-input` for what is no model; of the model's methods: `bad-input` where it gives other sizes, and those of
 * {@link planActions}
 */
export function planningModel(model: StepModel): PlanningModel {
  const shapeRule = { what: "an array of whole numbers of at least 1", allows: (value: unknown) => Array.isArray(value) && value.every(whole(1).allows) };
  // Methods may be of a class.
  const { actionSize, shape, encode, step, cost } = model ?? {};
  checkFields("", { actionSize, shape, encode, step, cost }, { actionSize: whole(1), shape: shapeRule, encode: aFunction, step: aFunction, cost: aFunction });
  for (const [name, value] of Object.entries({ actionSize, shape, encode, step, cost })) if (value === undefined) throw new JepaError("bad-input", `A model is { actionSize, shape, encode, step, cost }; ${name} is missing.`);
  const size = numbersOf(model.shape);
  const sizedAs = (count: number, name: string, vector: Vector) => finite(sized(vector, count, name), name);
  const encoded = async (observation: ImageInput) => sizedAs(size, "What the model's encode gave", await told("The model failed in encode", () => model.encode(observation)));
  return {
    actionSize: model.actionSize,
    stateSize: 0,
    shape: [...model.shape],
    history: 1,
    async encode(images, options = {}) {
      checkFields("", options, { preprocess: anything, signal: anything });
      const list: readonly ImageInput[] | undefined = Array.isArray(images) ? images : undefined;
      const data = new Float32Array(size * (list?.length ?? 1));
      for (const [i, image] of (list ?? [images as ImageInput]).entries()) {
        throwIfAborted(options.signal);
        data.set(await encoded(image), i * size);
      }
      return { data, shape: list ? [list.length, ...model.shape] : [...model.shape] };
    },
    plan(from, goal, options = {}) {
      const { cost: which = options.preset === "eb-jepa" ? "sum" : "last", ...rest } = options;
      const embedding = typeof from === "object" && from !== null && "embeddings" in from ? from.embeddings : from;
      const [start, wanted] = [sizedAs(size, "The embedding", embedding), sizedAs(size, "The goal", goal)];
      const costOf = async ({ data, shape: [count, horizon, action] }: PlanIteration["samples"]) => {
        const total = new Float32Array(count);
        const at = (values: Float32Array): Rows => ({ data: values, shape: [count, ...model.shape] });
        let embeddings = new Float32Array(count * size);
        for (let i = 0; i < count; i++) embeddings.set(start, i * size);
        for (let step = 0; step < horizon; step++) {
          throwIfAborted(rest.signal);
          const actions = new Float32Array(count * action);
          for (let i = 0; i < count; i++) actions.set(data.subarray((i * horizon + step) * action, (i * horizon + step + 1) * action), i * action);
          const next = await told("The model failed in step", () => model.step(at(embeddings), { data: actions, shape: [count, action] }));
          embeddings = sizedAs(count * size, "What the model's step gave", next) as typeof embeddings;
          if (which === "last" && step + 1 < horizon) continue;
          const costs = numbersIn(await told("The model failed in cost", () => model.cost(at(embeddings.slice()), wanted.slice())));
          if (costs.length !== count) throw new JepaError("bad-input", `What the model's cost gave has ${costs.length} numbers, not ${count}.`);
          costs.forEach((value, i) => (total[i]! += value));
        }
        return total;
      };
      planRequest(options);
      return planActions({ actionSize: model.actionSize, cost: costOf }, rest);
    },
  };
}
