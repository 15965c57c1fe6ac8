// A dot that is pushed about, for tests of world models.

import type { Environment, EnvironmentStep, PixelData } from "../../www/src/index.js";

export const SIDE = 16;

/** A bright dot on a dark ground, at places from −1 to 1. */
export function frame(x: number, y: number): PixelData {
  const place = (value: number) => (0.5 + 0.4 * value) * SIDE;
  const pixel = (i: number) => 255 * Math.exp(-(((i % SIDE) + 0.5 - place(x)) ** 2 + (Math.floor(i / SIDE) + 0.5 - place(y)) ** 2) / 8);
  return { data: Uint8Array.from({ length: SIDE * SIDE }, (_, i) => pixel(i)), width: SIDE, height: SIDE, channels: 1 };
}

/** The environment: an action is where the dot is pushed to, relative to where it is; its state is where it is. The task is over near the goal. */
export class Dots implements Environment {
  readonly actionSize = 2;
  place: [number, number] = [0, 0];

  constructor(readonly goal?: readonly [number, number]) {}

  reset({ seed }: { seed: number }) {
    let state = seed * 7919 + 1;
    const uniform = () => ((state = (state * 48271) % 2147483647) / 2147483647) * 2 - 1;
    uniform();
    this.place = [uniform(), uniform()];
    return this.#seen();
  }

  step(action: Float32Array): EnvironmentStep {
    const pushed = (i: 0 | 1) => Math.max(-1, Math.min(1, this.place[i] + action[i]!));
    this.place = [pushed(0), pushed(1)];
    const far = this.goal && Math.hypot(this.place[0] - this.goal[0], this.place[1] - this.goal[1]);
    return { ...this.#seen(), reward: -(far ?? 0), terminated: far !== undefined && far < 0.25, truncated: false };
  }

  #seen() {
    return { observation: frame(...this.place), state: [...this.place] };
  }
}
