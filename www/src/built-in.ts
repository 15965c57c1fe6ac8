// The environments that come with the library: they are drawn and moved by the crate, seeded as in the terminal.

import { callCore } from "./core.js";
import type { Environment, EnvironmentStep, Observation } from "./environments.js";
import type { PixelData } from "./inputs.js";
import { valuesOf, type Vector } from "./math.js";
import { checkFields, moreThan, oneOf, whole } from "./options.js";

export interface BuiltInOptions {
  /** Pixels on a side of what is seen. Default 56. */
  size?: number | undefined;
  /** How often each action is carried out: one decision for so many steps. Default 1. */
  repeat?: number | undefined;
}

export interface TwoRoomsOptions extends BuiltInOptions {
  /** Steps after which an episode is truncated. Default 150, more than twice those of the longest way through the door. */
  steps?: number | undefined;
}

export interface MazeOptions extends BuiltInOptions {
  /** Cells along a side, 2 to 8. Default 4. */
  cells?: number | undefined;
}

/** `[x, y]`, from the upper left corner. */
export type Place = readonly [x: number, y: number];

/** What {@link TwoRooms.violation} draws: an action, what comes of it, and what cannot. */
export interface Violation {
  start: Place;
  action: Float32Array;
  possible: Place;
  impossible: Place;
}

/** What an environment of the crate shows. */
export interface BuiltInObservation extends Observation {
  /** RGB of `[size, size]`. */
  observation: PixelData;
  state: Float32Array;
}

/** What the wasm module exports. */
interface GlueBuiltIn {
  actionSize(): number;
  reset(seed: number): void;
  /** `[reward, terminated, truncated]`. */
  step(action: Float32Array): Float64Array;
  observe(side: number, goal: boolean): Uint8Array<ArrayBuffer>;
  state(): Float64Array;
  expert(): Float64Array;
  goal(): Float64Array;
  place(x: number, y: number, goalX: number, goalY: number): void;
  breach(wall: boolean, distance: number, seed: number): Float64Array;
}

interface GlueEnvironments {
  BuiltIn: new (name: string, repeat: number, longest: number, cells: number) => GlueBuiltIn;
}

/** An environment of the crate. Numbers of an action go from −1 to 1, and are clipped to that. */
export class BuiltInEnvironment implements Environment {
  /** @internal */
  protected readonly inner: GlueBuiltIn;
  readonly #size: number;
  /** Numbers of an action. */
  readonly actionSize: number;

  /** @internal */
  constructor(name: string, { size = 56, repeat = 1 }: BuiltInOptions, { longest = 1, cells = 2 }: { longest?: number; cells?: number } = {}) {
    this.#size = size;
    this.inner = callCore((glue: GlueEnvironments) => new glue.BuiltIn(name, repeat, longest, cells));
    this.actionSize = callCore(() => this.inner.actionSize());
    // A picture of such a size is refused now, not in the first episode.
    this.#picture(false);
  }

  /** Begins the episode of a seed, the same as in the crate. */
  reset({ seed }: { seed: number }): BuiltInObservation {
    checkFields("", { seed }, { seed: whole(0) });
    callCore(() => this.inner.reset(seed));
    return this.observe();
  }

  /**
   * Carries out an action, `repeat` times, rewards added, until the episode is over.
   *
   * @throws {@link JepaError} `bad-input` for another number of values, and for those that are not finite
   */
  step(action: Vector): BuiltInObservation & EnvironmentStep {
    const [reward, terminated, truncated] = callCore(() => this.inner.step(Float32Array.from(valuesOf(action))));
    return { ...this.observe(), reward: reward!, terminated: terminated === 1, truncated: truncated === 1 };
  }

  /** What is seen now, and the state that it shows. */
  observe(): BuiltInObservation {
    return { observation: this.#picture(false), state: Float32Array.from(callCore(() => this.inner.state())) };
  }

  /** What would be seen at the goal of this episode. */
  observeGoal(): PixelData {
    return this.#picture(true);
  }

  /** The action of who knows the way to the goal. */
  expert(): Float32Array {
    return Float32Array.from(callCore(() => this.inner.expert()));
  }

  #picture(goal: boolean): PixelData {
    const size = this.#size;
    return { data: callCore(() => this.inner.observe(size, goal)), width: size, height: size, channels: 3 };
  }
}

/** See {@link twoRooms}. */
export class TwoRooms extends BuiltInEnvironment {
  /** Where the dot should be. */
  get goal(): Place {
    return [...callCore(() => this.inner.goal())] as unknown as Place;
  }

  /**
   * Begins an episode at a place, with a goal.
   *
   * @throws {@link JepaError} `bad-input` for a place in a wall or outside of the rooms
   */
  place(start: Place, goal: Place): BuiltInObservation {
    callCore(() => this.inner.place(start[0], start[1], goal[0], goal[1]));
    return this.observe();
  }

  /**
   * Draws a start and an action that is carried out `repeat` times, with the outcome that it has and one that cannot be: the wall in the middle
   * is passed through as if it were not there, or the dot appears `distance` (of 224) from where it would be.
   *
   * @throws {@link JepaError} `bad-input` for a distance that fits nowhere, and for actions that are too short to reach through the wall
   */
  violation(kind: "wall" | "teleport", { seed, distance = 40 }: { seed: number; distance?: number | undefined }): Violation {
    oneOf("kind", kind, ["wall", "teleport"]);
    checkFields("", { seed, distance }, { seed: whole(0), distance: moreThan(0) });
    const numbers = callCore(() => this.inner.breach(kind === "wall", distance, seed));
    const pair = (at: number): Place => [numbers[at]!, numbers[at + 1]!];
    return { start: pair(0), action: Float32Array.from(pair(2)), possible: pair(4), impossible: pair(6) };
  }
}

const COMMON = { size: whole(1), repeat: whole(1) };

/**
 * Two Rooms: a red dot, a wall, a door, and a goal in the other room; the geometry of stable-worldmodel, 224 × 224, in which a step goes at most
 * 5 along each axis and a goal is reached nearer than 16. The state is `[x, y]`.
 *
 * @example
 * const rooms = twoRooms({ repeat: 10 });
 * const episodes = await collectEpisodes(rooms, uniformPolicy([-1, -1], [1, 1], { longest: 3 }), { episodes: 800, steps: 30 });
 * @throws {@link JepaError} `bad-input` for sizes that cannot be
 */
export function twoRooms(options: TwoRoomsOptions = {}): TwoRooms {
  checkFields("", options, { ...COMMON, steps: whole(1) });
  return new TwoRooms("two-rooms", options, { longest: options.steps ?? 150 });
}

/**
 * A red dot in a maze whose walls each episode has anew, 224 × 224, with one way between any two cells; the goal is the middle of a cell. The
 * state is `[x, y]`.
 *
 * @throws {@link JepaError} `bad-input` for sizes that cannot be
 */
export function maze(options: MazeOptions = {}): BuiltInEnvironment {
  checkFields("", options, { ...COMMON, cells: whole(2) });
  return new BuiltInEnvironment("maze", options, { cells: options.cells ?? 4 });
}

/**
 * A pendulum that is to be swung up: equations, constants and reward of Gymnasium's Pendulum-v1; an action of 1 is a torque of 2 N·m. The
 * state is `[cos, sin, rad/s]`.
 *
 * @throws {@link JepaError} `bad-input` for sizes that cannot be
 */
export function pendulum(options: BuiltInOptions = {}): BuiltInEnvironment {
  checkFields("", options, COMMON);
  return new BuiltInEnvironment("pendulum", options);
}
