// What the page searches with, and what candidates of a search lead to.

import { planActions, type Environment, type PlanningModel, type PlanOptions, type Place, type TwoRooms } from "webjepa";
import { REPEAT, type Agent } from "../shared/agents";
import { squareDistance } from "../shared/room";
import type { Bundle } from "./drawing";
import { LatentMap, type View } from "./latent";

/** What the model that comes with the site was measured with: docs/world-models.md. */
const SEARCH = { horizon: 10, samples: 100, elites: 10, iterations: 10 } as const;
export const ROUNDS = SEARCH.iterations;
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

/** A round of a search: what the model predicts of all sequences, `[samples · horizon, D]`, and what they cost. */
export interface Round {
  from: Float32Array;
  predictions: Float32Array;
  costs: Float32Array;
}

/** The agent's model, whose searches tell each round while they are made, and wait until it was looked at. Costs are those of all predictions, summed. */
export function watched({ world }: Agent, onRound: (round: Round) => Promise<void>): PlanningModel {
  return {
    actionSize: world.actionSize,
    stateSize: world.stateSize,
    shape: world.shape,
    history: world.history,
    encode: world.encode.bind(world),
    async plan(start, goal, options) {
      const from = Float32Array.from((start as { embeddings: Float32Array }).embeddings);
      const aim = Float32Array.from(goal as Float32Array);
      const cost = async (sequences: { data: Float32Array; shape: [number, number, number] }) => {
        const { data: predictions } = await world.rollout(from, sequences);
        const [count, horizon] = sequences.shape;
        const costs = new Float32Array(count);
        for (let i = 0; i < count * horizon; i++) costs[Math.floor(i / horizon)]! += squareDistance(predictions.subarray(i * aim.length, (i + 1) * aim.length), aim);
        await onRound({ from, predictions, costs });
        return costs;
      };
      return planActions({ actionSize: world.actionSize, cost }, options);
    },
  };
}

/** What the cheapest sequences of a round lead to, as the model predicts it. */
export function bundleOf({ map }: Mapped, { from, predictions, costs }: Round, view: View): Bundle {
  const order = Array.from(costs.keys()).sort((a, b) => costs[a]! - costs[b]!).slice(0, DRAWN);
  const [width, length] = [from.length, predictions.length / costs.length];
  const paths = order.map((sample) => {
    const path = new Float32Array(width + length);
    path.set(from);
    path.set(predictions.subarray(sample * length, (sample + 1) * length), width);
    return path;
  });
  const each = (path: Float32Array) => Array.from({ length: path.length / width }, (_, step) => map.placeOf(path.subarray(step * width, (step + 1) * width)));
  return { cheap: CHEAP, places: paths.map(each), points: paths.map((path) => view.project(path)) };
}

export interface Walk {
  /** Every place so far, the last one included. */
  walked: Place[];
  environment: Environment;
}

/** The room between two places, in which an action is several steps; each decision, before it is carried out, and each step are told. */
export function walk(room: TwoRooms, { start, goal }: { start: Place; goal: Place }, told: { decision(): void; step(): Promise<void> }): Walk {
  const walked: Place[] = [start];
  const environment: Environment = {
    actionSize: 2,
    reset: () => room.place(start, goal),
    step: async (action) => {
      told.decision();
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
