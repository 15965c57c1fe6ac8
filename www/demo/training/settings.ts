import type { ModelConfig, TrainerOptions } from "webjepa";

export interface Settings {
  set: "synthetic" | "fashion" | "own";
  objective: "ijepa" | "lejepa";
  model: keyof typeof MODELS;
  batchSize: number;
  steps: number;
  lr: number;
  seed: number;
  backend: "auto" | "webgpu" | "cpu";
}

/** Small enough to learn something on a laptop's processor while one watches. */
export const MODELS = {
  tiny: { imageSize: 64, patchSize: 8, hiddenSize: 96, layers: 4, heads: 3, predictor: { hiddenSize: 48, layers: 2, heads: 3 } },
  small: { imageSize: 64, patchSize: 8, hiddenSize: 192, layers: 6, heads: 3, predictor: { hiddenSize: 96, layers: 3, heads: 3 } },
  fine: { imageSize: 96, patchSize: 8, hiddenSize: 192, layers: 6, heads: 3, predictor: { hiddenSize: 96, layers: 3, heads: 3 } },
} as const satisfies Record<string, ModelConfig>;

/** For batches this small; the published rates are for batches of 2048 pictures. */
export const LEARNING_RATES = { ijepa: 1e-3, lejepa: 2e-3 } as const;

/** The released I-JEPA target encoder moves by 1/250 in a step, in runs of hundreds of thousands; a run of hundreds would see it stand still. */
const EMA = 0.98;

export function trainerOptions({ objective, model, batchSize, steps, lr, seed, backend }: Settings): TrainerOptions {
  const schedule = { steps, lr, startLr: lr / 5, finalLr: lr / 100, warmupSteps: Math.round(steps / 20) };
  const common = { model: MODELS[model], batchSize, seed, backend };
  if (objective === "ijepa") return { ...common, objective, schedule: { ...schedule, ema: EMA, weightDecay: 0.04, finalWeightDecay: 0.1 } };
  return { ...common, objective, schedule: { ...schedule, weightDecay: 0.05, finalWeightDecay: 0.05 }, projector: { hiddenSize: 512 } };
}
