// Violation of expectation: how surprising is what cannot happen, against what does?

import { twoRooms, type Violation } from "webjepa";
import { REPEAT, SIDE, type Agent } from "../shared/agents";
import { picturesAt, squareDistance } from "../shared/room";

/** What cannot happen. */
export const KINDS = [
  { kind: "wall", name: "Through the wall" },
  ...[10, 20, 40, 80].map((distance) => ({ kind: "teleport", distance, name: `Teleported by ${distance} of 224` }) as const),
] as const;

export interface Surprise {
  violation: Violation;
  possible: number;
  impossible: number;
}

export interface Measured {
  name: string;
  auc: number;
  pairs: Surprise[];
}

/** The share of all pairs of one of each in which the first is larger, ties by half: the area under the ROC curve. */
function areaUnderCurve(positives: readonly number[], negatives: readonly number[]): number {
  const won = positives.map((positive) => negatives.reduce((sum, negative) => sum + (positive > negative ? 1 : positive === negative ? 0.5 : 0), 0));
  return won.reduce((sum, value) => sum + value, 0) / (positives.length * negatives.length);
}

/** The embedding that an action of the room leads to. */
export async function prediction({ world, scale }: Agent, from: Float32Array, action: ArrayLike<number>, signal: AbortSignal): Promise<Float32Array> {
  return (await world.rollout(from, [scale.scaled(Float32Array.from(action))], { signal })).data;
}

/** Surprise is the square distance of the embedding of what is seen from the predicted one. */
export async function measure({ world, scale }: Agent, pairs: number, signal: AbortSignal, onKind: (measured: Measured) => void): Promise<void> {
  const room = twoRooms({ size: SIDE, repeat: REPEAT });
  for (const { name, kind, ...options } of KINDS) {
    const violations = Array.from({ length: pairs }, (_, seed) => room.violation(kind, { seed, ...options }));
    const places = violations.flatMap(({ start, possible, impossible }) => [start, possible, impossible]);
    const { data } = await world.encode(picturesAt(places), { signal });
    const width = data.length / places.length;
    const embedding = (i: number) => data.subarray(i * width, (i + 1) * width);
    const surprises: Surprise[] = [];
    for (const [i, violation] of violations.entries()) {
      const predicted = await prediction({ world, scale }, embedding(3 * i), violation.action, signal);
      surprises.push({ violation, possible: squareDistance(embedding(3 * i + 1), predicted), impossible: squareDistance(embedding(3 * i + 2), predicted) });
    }
    onKind({ name, auc: areaUnderCurve(surprises.map(({ impossible }) => impossible), surprises.map(({ possible }) => possible)), pairs: surprises });
  }
}
