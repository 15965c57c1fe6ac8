// The crate's environments in Node: what follows from their geometry and equations, which the crate's own tests hold its side to.

import { describe, expect, it } from "vitest";
import { collectEpisodes, maze, pendulum, twoRooms, uniformPolicy, type PixelData, type Place } from "../../www/src/index.js";

const failing = (task: () => unknown, message: RegExp) => expect(task).toThrow(expect.objectContaining({ name: "JepaError", code: "bad-input", message: expect.stringMatching(message) }));
const pixel = ({ data, width }: PixelData, x: number, y: number) => [...(data as Uint8Array).subarray(3 * (y * width + x), 3 * (y * width + x) + 3)];

describe("Two Rooms", () => {
  it("are drawn as the geometry says", () => {
    const room = twoRooms({ size: 224 });
    const { observation, state } = room.place([50.5, 150.5], [160.5, 49.5]);
    expect([...state]).toEqual([50.5, 150.5]);
    expect(room.goal).toEqual([160.5, 49.5]);
    expect(pixel(observation, 50, 150)).toEqual([255, 0, 0]);
    // One deviation of 7 pixels away.
    const white = Math.round(255 * (1 - Math.exp(-0.5)));
    expect(pixel(observation, 57, 150)).toEqual([255, white, white]);
    for (const [x, y] of [[0, 0], [13, 100], [210, 100], [107, 34], [116, 63]] as const) expect(pixel(observation, x, y)).toEqual([0, 0, 0]);
    for (const [x, y] of [[14, 14], [107, 35], [116, 62], [209, 209]] as const) expect(pixel(observation, x, y)).toEqual([255, 255, 255]);
    expect(pixel(room.observeGoal(), 160, 49)).toEqual([255, 0, 0]);
  });

  it("move by 5 a step, slide along the wall, and end at the goal", () => {
    const room = twoRooms({ repeat: 4 });
    room.place([50, 150], [200, 49]);
    // Four steps, clipped to −1 and 1.
    expect([...room.step([0.5, -3]).state]).toEqual([60, 130]);
    room.place([104, 100], [200, 49]);
    expect([...room.step([1, 0.5]).state]).toEqual([106.5, 110]);
    room.place([180, 49], [200, 49]);
    // Nearer than 16 after the first of the four: the rest is not carried out.
    expect(room.step([1, 0])).toMatchObject({ reward: 1, terminated: true, truncated: false, state: Float32Array.of(185, 49) });
    const short = twoRooms({ steps: 2 });
    expect([short.step([0, 0]).truncated, short.step([0, 0]).truncated]).toEqual([false, true]);
  });

  it("begin alike for the same seed, on either side of the wall, and who knows the way arrives", () => {
    const room = twoRooms({ repeat: 10 });
    for (let seed = 0; seed < 40; seed++) {
      const { observation, state } = room.reset({ seed });
      expect(twoRooms().reset({ seed })).toEqual({ observation, state });
      const [x] = state;
      expect(x! < 112).toBe(room.goal[0] > 112);
      let step = room.step(room.expert());
      while (!step.terminated && !step.truncated) step = room.step(room.expert());
      expect(step.terminated).toBe(true);
    }
  });

  it("draw what cannot happen beside what does", () => {
    const room = twoRooms({ repeat: 10 });
    const apart = (a: Place, b: Place) => Math.hypot(a[0] - b[0], a[1] - b[1]);
    for (let seed = 0; seed < 30; seed++) {
      const { start, action, possible, impossible } = room.violation("wall", { seed });
      expect([start, possible].map(([x]) => x < 112)).toEqual(Array(2).fill(impossible[0] > 112));
      for (const axis of [0, 1] as const) expect(impossible[axis]).toBeCloseTo(start[axis] + 50 * action[axis]!, 3);
      const jumped = room.violation("teleport", { seed, distance: 25 });
      expect(apart(jumped.possible, jumped.impossible)).toBeCloseTo(25, 6);
      room.place(jumped.start, [200, 200]);
      const { state, terminated } = room.step(jumped.action);
      if (!terminated) jumped.possible.forEach((value, axis) => expect(state[axis]).toBeCloseTo(value, 3));
    }
  });

  it.each<[string, () => unknown, RegExp]>([
    ["a goal in the wall", () => twoRooms().place([50, 50], [112, 100]), /the goal cannot be at \[112/],
    ["a start outside", () => twoRooms().place([5, 50], [150, 100]), /the dot cannot be at/],
    ["an action of another size", () => twoRooms().step([1]), /2 finite numbers/],
    ["an action that is none", () => twoRooms().step([NaN, 0]), /2 finite numbers/],
    ["no pixel", () => twoRooms({ size: 0 }), /size/],
    ["too many pixels", () => twoRooms({ size: 3000 }), /1 to 2048 pixels/],
    ["no repetition", () => maze({ repeat: 0 }), /repeat/],
    ["too many cells", () => maze({ cells: 9 }), /2 to 8 cells/],
    ["a seed that is none", () => pendulum().reset({ seed: -1 }), /seed/],
    ["a jump that fits nowhere", () => twoRooms().violation("teleport", { seed: 0, distance: 500 }), /nothing such/],
    ["a step through the wall", () => twoRooms().violation("wall", { seed: 0 }), /nothing such/],
  ])("say what is wrong: %s", (_, task, message) => failing(task, message));
});

describe("others", () => {
  it("a maze has walls of its own in each episode, and who knows the way arrives", () => {
    const room = maze({ cells: 3 });
    const first = room.reset({ seed: 1 }).observation;
    expect(room.reset({ seed: 2 }).observation).not.toEqual(first);
    expect(room.reset({ seed: 1 }).observation).toEqual(first);
    let step = room.step(room.expert());
    while (!step.terminated && !step.truncated) step = room.step(room.expert());
    expect(step).toMatchObject({ reward: 1, terminated: true });
  });

  it("a pendulum follows Gymnasium's equations", () => {
    const rod = pendulum();
    const [cos, sin, speed] = rod.reset({ seed: 3 }).state;
    const { state, reward } = rod.step([0.25]);
    const angle = Math.atan2(sin!, cos!);
    const next = speed! + (15 * Math.sin(angle) + 3 * 0.5) * 0.05;
    expect(state[2]).toBeCloseTo(next, 5);
    expect(state[0]).toBeCloseTo(Math.cos(angle + 0.05 * next), 5);
    expect(reward).toBeCloseTo(-(angle ** 2 + 0.1 * speed! ** 2 + 0.001 * 0.25), 5);
  });

  it("are recorded with actions that are kept for a while", async () => {
    const episodes = await collectEpisodes(twoRooms({ steps: 1e6 }), uniformPolicy([-1, -1], [1, 1], { longest: 5 }), { episodes: 20, steps: 200, seed: 9 });
    const actions = episodes.flatMap((episode) => episode.actions);
    const drawn = actions.filter((action, i) => i === 0 || action[0] !== actions[i - 1]![0]);
    // Lengths of 1 to 5 have the mean 3 and the deviation √2: five standard errors of some thousand of them.
    const mean = actions.length / drawn.length;
    expect(drawn.length).toBeGreaterThan(300);
    expect(Math.abs(mean - 3)).toBeLessThan((5 * Math.SQRT2) / Math.sqrt(drawn.length));
    expect(episodes[0]!.actions[0]).not.toEqual(episodes[1]!.actions[0]);
  });
});
