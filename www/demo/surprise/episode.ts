// Two episodes of the same actions: one goes as it must, in the other something happens that cannot.

import { twoRooms, type Place } from "webjepa";
import { REPEAT, SIDE, type Agent } from "../shared/agents";
import { EXTENT, freeOf, picturesAt, squareDistance } from "../shared/room";
import { prediction, type KINDS } from "./measure";

/** Actions before and after the one at which the two differ. */
const AROUND = 4;
const SPEED = 0.6;
/** Directions that are tried for an action that can be taken back. */
const TRIED = 16;
/** An action after which the opposite one leads back, up to a quarter of a pixel of what models see. */
const BACK = 1;

type Action = readonly [number, number];

export interface Episode {
  /** One more than there are actions. */
  places: Place[];
  /** For each action, how far what is seen is from what was predicted. */
  surprise: number[];
}

const apart = (a: Place, b: Place) => Math.hypot(a[0] - b[0], a[1] - b[1]);

/** Where an action leads from a place. */
function after(place: Place, action: Action): Place {
  const room = twoRooms({ size: SIDE, repeat: REPEAT });
  room.place(place, place[0] < EXTENT / 2 ? [200, 20] : [20, 20]);
  return [...room.step(action).state] as unknown as Place;
}

/** Directions that follow from a seed, one after the other; the golden angle is never the same twice. */
function* directions(seed: number): Generator<Action> {
  for (let i = seed * TRIED; ; i++) {
    const angle = i * Math.PI * (3 - Math.sqrt(5));
    yield [SPEED * Math.cos(angle), SPEED * Math.sin(angle)];
  }
}

/** How one comes to a place: earlier places, the first one first, and the actions from each. */
function wayTo(place: Place, seed: number): { places: Place[]; actions: Action[] } {
  const [places, actions]: [Place[], Action[]] = [[], []];
  const candidates = directions(seed);
  for (let i = 0; i < AROUND; i++) {
    const at = places[0] ?? place;
    for (let tried = 0; tried < TRIED; tried++) {
      const [x, y] = candidates.next().value!;
      const before = after(at, [-x, -y]);
      if (apart(after(before, [x, y]), at) > BACK || freeOf([before]).length === 0) continue;
      places.unshift(before);
      actions.unshift([x, y]);
      break;
    }
  }
  return { places, actions };
}

export interface Pair {
  possible: Episode;
  impossible: Episode;
  /** The action at which they differ, from 0. */
  at: number;
}

/** Surprise is the square distance of the embedding of what is seen from the predicted one. */
export async function episodes(agent: Agent, { kind, ...options }: (typeof KINDS)[number], seed: number, signal: AbortSignal): Promise<Pair> {
  const { start, action, ...ends } = twoRooms({ size: SIDE, repeat: REPEAT }).violation(kind, { seed, ...options });
  const way = wayTo(start, seed);
  const candidates = directions(seed + 1);
  const later = Array.from({ length: AROUND }, () => candidates.next().value!);
  const actions = [...way.actions, action as unknown as Action, ...later];
  const episode = async (end: Place): Promise<Episode> => {
    const places = [...way.places, start, end];
    for (const next of later) places.push(after(places.at(-1)!, next));
    const { data } = await agent.world.encode(picturesAt(places), { signal });
    const width = data.length / places.length;
    const surprise: number[] = [];
    for (const [i, action] of actions.entries()) {
      const predicted = await prediction(agent, data.subarray(i * width, (i + 1) * width), action, signal);
      surprise.push(squareDistance(data.subarray((i + 1) * width, (i + 2) * width), predicted));
    }
    return { places, surprise };
  };
  return { possible: await episode(ends.possible), impossible: await episode(ends.impossible), at: way.actions.length };
}
