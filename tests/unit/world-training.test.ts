// Training of world models in Node with the real CPU module.

import { describe, expect, it } from "vitest";
import { ActionScale, Trainer, windowsOf, WorldModel, type ActionWindow, type PixelData, type Trajectory, type TrainerOptions, type TrainMetrics } from "../../www/src/index.js";

const SIDE = 16;
const HISTORY = 2;
const OPTIONS: TrainerOptions = {
  model: {
    system: "lewm",
    imageSize: SIDE,
    patchSize: 4,
    hiddenSize: 24,
    layers: 2,
    heads: 2,
    lewm: { actionSize: 4, history: HISTORY, projectorHidden: 48, layers: 2, heads: 2, headDim: 8, mlpHidden: 48 },
  },
  objective: { kind: "lewm", slices: 64 },
  batchSize: 8,
  seed: 5,
  schedule: { steps: 200, lr: 2e-3 },
  backend: "cpu",
  worker: false,
};

/** A bright dot on a dark ground, at places from −1 to 1. */
function frame(x: number, y: number): PixelData {
  const place = (value: number) => (0.5 + 0.4 * value) * SIDE;
  const pixel = (i: number) => 255 * Math.exp(-(((i % SIDE) + 0.5 - place(x)) ** 2 + (Math.floor(i / SIDE) + 0.5 - place(y)) ** 2) / 8);
  return { data: Uint8Array.from({ length: SIDE * SIDE }, (_, i) => pixel(i)), width: SIDE, height: SIDE, channels: 1 };
}

/** A dot that is pushed about, less than half across at once. */
function trajectory(number: number, length: number): Trajectory {
  let state = number * 7919 + 1;
  const uniform = () => ((state = (state * 48271) % 2147483647) / 2147483647) * 2 - 1;
  let [x, y] = [uniform(), uniform()];
  const frames = [frame(x, y)];
  const actions: number[][] = [];
  for (let i = 0; i < length; i++) {
    const [dx, dy] = [Math.max(-1, Math.min(1, x + 0.4 * uniform())) - x, Math.max(-1, Math.min(1, y + 0.4 * uniform())) - y];
    [x, y] = [x + dx, y + dy];
    actions.push([dx, dy]);
    frames.push(frame(x, y));
  }
  return { frames, actions };
}

const episodes = Array.from({ length: 12 }, (_, number) => trajectory(number, 9));
const windows = windowsOf(episodes, { history: HISTORY, skip: 2 });
const failure = (promise: Promise<unknown>) => promise.then(() => expect.unreachable("it should have failed"), (error) => error);

async function run(trainer: Trainer, steps: number): Promise<TrainMetrics[]> {
  const all = [];
  for await (const metrics of trainer.run(windows, { steps })) all.push(metrics);
  return all;
}

describe("windows", () => {
  it("begin at every frame with enough after it", () => {
    const scale = ActionScale.of([[1, 5], [3, 5], [5, 5]]);
    const frames = ["a", "b", "c", "d", "e"];
    const { length, get } = windowsOf([{ frames, actions: [[1, 5], [3, 5], [NaN, NaN], [5, 5]] }, { frames: ["x"], actions: [] }], { history: 1, skip: 2, scale });
    expect(length).toBe(3);
    // Mean 3, deviation 2; the second number never differs.
    expect(get(0)).toEqual({ frames: ["a", "c"], actions: [[-1, 0, 0, 0]] });
    expect(get(2)).toEqual({ frames: ["c", "e"], actions: [[0, 0, 1, 0]] });
    expect([...scale.unscaled([-1, 0, 1, 0])]).toEqual([1, 5, 5, 5]);
    expect(ActionScale.fromJSON(JSON.parse(JSON.stringify(scale))).scaled([5, 5])).toEqual(Float32Array.of(1, 0));
  });

  it("scale actions to mean 0 and deviation 1 unless told otherwise", () => {
    const actions = episodes.flatMap((episode) => episode.actions as number[][]);
    const scaled = actions.map((action) => windows.scale.scaled(action)[0]!);
    const mean = scaled.reduce((sum, value) => sum + value, 0) / scaled.length;
    expect(mean).toBeCloseTo(0, 5);
    expect(scaled.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (scaled.length - 1)).toBeCloseTo(1, 5);
  });

  it.each<[string, () => unknown]>([
    ["1 frames and 1 actions", () => windowsOf([{ frames: ["a"], actions: [[1]] }], { scale: ActionScale.of([[1], [2]]) })],
    ["Action 1 of trajectory 0 has 1 numbers, not 2", () => windowsOf([{ frames: ["a", "b", "c"], actions: [[1, 2], [1]] }], { scale: ActionScale.of([[1, 2], [2, 3]]) })],
    ["No trajectory has the 6 actions", () => windowsOf([trajectory(0, 5)], { history: 3, skip: 2 })],
    ["whole number", () => windowsOf(episodes, { skip: 0 })],
    ["infinite", () => ActionScale.of([[1], [Infinity]])],
    ["two finite values", () => ActionScale.of([[1], [NaN]])],
    ["no action", () => ActionScale.of([])],
    ["no saved scale", () => ActionScale.fromJSON({ mean: [0], std: [-1] })],
    ["not actions of 2", () => ActionScale.of([[1, 2], [2, 3]]).scaled([1, 2, 3])],
  ])("say what is wrong: %s", (said, task) => {
    expect(task).toThrow(expect.objectContaining({ code: "bad-input", message: expect.stringContaining(said) }));
  });
});

describe("the objective lewm", () => {
  it("learns, resumes bit for bit, and gives its world model", async () => {
    await using trainer = await Trainer.create(OPTIONS);
    expect(trainer.info).toMatchObject({ objective: "lewm", frames: HISTORY + 1 });
    const first = await run(trainer, 5);
    expect(Object.keys(first[0]!.parts).sort()).toEqual(["prediction", "sigreg", "similarity"]);
    const save = await trainer.save();
    const went = await run(trainer, 5);
    {
      await using again = await Trainer.resume(save, { backend: "cpu", worker: false });
      const repeated = await run(again, 5);
      const timeless = ({ ms: _, ...metrics }: TrainMetrics) => metrics;
      expect(repeated.map(timeless)).toEqual(went.map(timeless));
    }
    const rest = await run(trainer, 190);
    const mean = (list: TrainMetrics[]) => list.reduce((sum, { loss }) => sum + loss, 0) / list.length;
    expect(mean(rest.slice(-5))).toBeLessThan(mean(first) / 2);

    await using world = await trainer.world();
    expect(world).toMatchObject({ actionSize: 4, history: HISTORY, backend: "cpu" });
    const files = await trainer.export("original");
    await using loaded = await WorldModel.load(files as never, { backend: "cpu", worker: false });
    const { frames, actions } = windows.get(0);
    const [own, read] = [await world.encode(frames[0]!), await loaded.encode(frames[0]!)];
    expect(own.data).toEqual(read.data);
    expect((await world.rollout(own, actions)).data).toEqual((await loaded.rollout(read, actions)).data);
    const { model: _, ...others } = OPTIONS;
    await using further = await Trainer.create({ ...others, from: files });
    await using same = await further.world();
    expect((await same.rollout(own, actions)).data).toEqual((await world.rollout(own, actions)).data);
    // Later steps do not change it.
    await run(trainer, 1);
    expect((await world.encode(frames[0]!)).data).toEqual(own.data);
  });

  it("takes windows of the caller's, in which an unknown action is the mean", async () => {
    const losses = await Promise.all(
      [NaN, 0].map(async (unknown) => {
        await using trainer = await Trainer.create(OPTIONS);
        const list = Array.from({ length: 8 }, (_, i): ActionWindow => {
          const { frames, actions } = windows.get(i * 5);
          return { frames, actions: [[unknown, unknown, 1, -1], actions[1]!], states: [[1], [2], [3]] };
        });
        return (await trainer.step(list)).loss;
      }),
    );
    expect(losses[0]).toBe(losses[1]);
    expect(losses[0]).toBeGreaterThan(0);
  });

  it.each<[string, (window: ActionWindow) => unknown]>([
    ["Window 3 is no window", ({ frames }) => frames],
    ["Window 3 has 2 frames and 2 action blocks; the model takes 3 and 2", ({ frames, actions }) => ({ frames: frames.slice(1), actions })],
    ["Window 3 has 3 frames and 1 action blocks", ({ frames, actions }) => ({ frames, actions: actions.slice(1) })],
    ["Action block 1 of window 3 has 3 numbers, not 4", ({ frames, actions }) => ({ frames, actions: [actions[0], [1, 2, 3]] })],
    ["Action block 0 of window 3 has an infinite number", ({ frames, actions }) => ({ frames, actions: [[1, 2, -Infinity, 3], actions[1]] })],
  ])("says what is wrong: %s", async (said, damaged) => {
    await using trainer = await Trainer.create(OPTIONS);
    const list = Array.from({ length: 8 }, (_, i) => windows.get(i));
    list[3] = damaged(list[3]!) as ActionWindow;
    expect(await failure(trainer.step(list))).toMatchObject({ code: "bad-input", message: expect.stringContaining(said) });
  });

  it("is for models of the system lewm alone, and world models come of no other", async () => {
    const { objective: _, ...others } = OPTIONS;
    expect(await failure(Trainer.create({ ...others, objective: "ijepa" }))).toMatchObject({ code: "bad-config" });
    await using trainer = await Trainer.create({ ...others, model: { imageSize: SIDE, patchSize: 4, hiddenSize: 24, layers: 1, heads: 2 }, objective: "lejepa" });
    expect(await failure(trainer.world())).toMatchObject({ code: "unsupported" });
  });
});
