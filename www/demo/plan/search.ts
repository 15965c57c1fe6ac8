// What the page searches with, and what candidates of a search lead to.

import type { Environment, PlanIteration, PlanOptions, Place, TwoRooms } from "webjepa";
import { REPEAT, type Agent } from "./agents";
import type { Bundle } from "./drawing";
import { LatentMap } from "./latent";

/** What the model that comes with the site was measured with: docs/world-models.md. */
const SEARCH = { horizon: 10, samples: 100, elites: 10, iterations: 10, cost: "sum" } as const;
/** Decisions in which the goal must be reached. */
export const DECISIONS = 15;
/** Candidates that are drawn, and of those the ones in colour. */
const [DRAWN, CHEAP] = [40, 10];

/** An agent, and where its embeddings are. */
export type Mapped = Agent & { map: LatentMap };

export const mapped = async (agent: Agent): Promise<Mapped> => ({ ...agent, map: await LatentMap.of(agent.world) });

/** No action is larger than the room allows. */
export function searchOf({ scale }: Agent): PlanOptions {
  return { ...SEARCH, axes: scale.toJSON().std.map((deviation) => ({ limit: 1 / deviation })) };
}

/** What the cheapest sequences of a round lead to, as the model predicts it. */
export async function bundleOf({ world, map }: Mapped, from: Float32Array, { samples, costs }: PlanIteration): Promise<Bundle> {
  const order = Array.from(costs.keys()).sort((a, b) => costs[a]! - costs[b]!).slice(0, DRAWN);
  const [, horizon, size] = samples.shape;
  const actions = new Float32Array(order.length * horizon * size);
  order.forEach((sample, i) => actions.set(samples.data.subarray(sample * horizon * size, (sample + 1) * horizon * size), i * horizon * size));
  const { data } = await world.rollout(from, { data: actions, shape: [order.length, horizon, size] });
  const width = from.length;
  const path = (i: number) => [from, ...Array.from({ length: horizon }, (_, step) => data.subarray((i * horizon + step) * width, (i * horizon + step + 1) * width))];
  const paths = order.map((_, i) => path(i));
  return {
    cheap: CHEAP,
    places: paths.map((embeddings) => embeddings.map((embedding) => map.placeOf(embedding))),
    points: paths.map((embeddings) => embeddings.map((embedding): Place => [...map.project(embedding)] as unknown as Place)),
  };
}

export interface Walk {
  /** Every place so far, the last one included. */
  walked: Place[];
  environment: Environment;
}

/** The room between two places, in which an action is several steps; each decision, before it is carried out, and each step are told. */
export function walk(room: TwoRooms, { start, goal }: { start: Place; goal: Place }, told: { decision(): Promise<void>; step(): Promise<void> }): Walk {
  const walked: Place[] = [start];
  const environment: Environment = {
    actionSize: 2,
    reset: () => room.place(start, goal),
    step: async (action) => {
      await told.decision();
      for (let i = 1; ; i++) {
        const step = room.step(action);
        walked.push([...step.state] as unknown as Place);
        await told.step();
        if (step.terminated || i === REPEAT) return step;
      }
    },
  };
  return { walked, environment };
}
