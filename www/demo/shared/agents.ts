// The models that plan: the one that comes with the site, the same untrained, and one that is trained in the page.

import { ActionScale, collectEpisodes, Trainer, twoRooms, uniformPolicy, windowsOf, WorldModel, type EpisodeRecord, type TrainerOptions, type TrainMetrics } from "webjepa";
import config from "../models/two-rooms/config.json?raw";
import weights from "../models/two-rooms/model.safetensors?url";
import preprocessor from "../models/two-rooms/preprocessor_config.json?raw";
import about from "../models/two-rooms/world.json?raw";

/** Pixels of what the models see. */
export const SIDE = 56;
/** Steps of the room for each action, as in the training of the model that comes with the site. */
export const REPEAT = 10;
/** Recordings begin with this seed, and tasks end before it, so that no task is in a recording. */
const RECORDED = 2 ** 32;
const ACTIONS = 30;
/** Passes of so small a model are shorter than the way to a GPU and back. */
const BACKEND = "cpu";

export interface Agent {
  world: WorldModel;
  scale: ActionScale;
}

export async function trained(): Promise<Agent> {
  const world = await WorldModel.load({ "config.json": config, "preprocessor_config.json": preprocessor, "model.safetensors": new URL(weights, document.baseURI) }, { backend: BACKEND });
  return { world, scale: ActionScale.fromJSON(JSON.parse(about).actionScale) };
}

/** scripts/recipes/two-rooms.json, but for its length. */
const options = (steps: number): TrainerOptions => ({
  model: JSON.parse(config),
  objective: { kind: "lewm", slices: 256, similarity: 1 },
  batchSize: 128,
  backend: BACKEND,
  schedule: { steps, lr: 1e-3 },
});

export async function untrained(): Promise<Agent> {
  const trainer = await Trainer.create(options(1));
  return { world: await trainer.world(), scale: ActionScale.fromJSON(JSON.parse(about).actionScale) };
}

/** A model in training. */
export interface Learner {
  /** An agent of the weights of this moment. */
  agent(): Promise<Agent>;
  dispose(): Promise<void>;
}

export interface Learning {
  episodes: number;
  steps: number;
  signal: AbortSignal;
  onCollected(episodes: number): void;
  /** Told before the first step. */
  onReady(learner: Learner): void;
  onStep(metrics: TrainMetrics): void;
}

/** Explores, and learns from what was seen. */
export async function learn({ episodes, steps, signal, onCollected, onReady, onStep }: Learning): Promise<void> {
  const room = twoRooms({ size: SIDE, repeat: REPEAT, steps: ACTIONS * REPEAT });
  const policy = uniformPolicy([-1, -1], [1, 1], { longest: 3 });
  const records: EpisodeRecord[] = [];
  for (let i = 0; i < episodes; i++) {
    records.push(...(await collectEpisodes(room, policy, { steps: ACTIONS, seed: RECORDED + i, signal })));
    onCollected(records.length);
    // Environments are drawn in this thread, which has to paint, too.
    if (i % 4 === 3) await new Promise((resolve) => setTimeout(resolve));
  }
  const windows = windowsOf(records, { history: 1 });
  const trainer = await Trainer.create({ ...options(steps), signal });
  onReady({ agent: async () => ({ world: await trainer.world(), scale: windows.scale }), dispose: () => trainer.dispose() });
  for await (const metrics of trainer.run(windows, { signal })) onStep(metrics);
}
