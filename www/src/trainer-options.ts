// What a training run can be told, with the published defaults; and the checks of it that need no module.

import { JepaError } from "./errors.js";
import type { GlueTrainerOptions } from "./glue.js";
import type { LossListeners } from "./host.js";
import { THREADS, type LoadOptions } from "./load-options.js";
import { strategyOf, type MaskStrategy } from "./masks.js";
import { aBoolean, aFunction, anObject, anything, atLeast, between, checkFields, moreThan, numbers, oneOf, orNull, shown, whole, type Rule } from "./options.js";
import type { SaveStore } from "./saves.js";
import type { TrainMetrics } from "./trainer.js";
import type { Backend, ModelConfig, ModelPreset, Progress } from "./types.js";
import type { ModelSource } from "./weights.js";

/** Predict the target encoder's embeddings of masked tokens from those of visible ones (arXiv 2301.08243). */
export interface IJepaObjective {
  kind: "ijepa";
  /** Where the distance of a prediction from its target, squared near 0, becomes linear. Default 1. */
  beta?: number | undefined;
  /** False lets the gradient through to the targets as well, which makes embeddings collapse. Default true. */
  stopGradient?: boolean | undefined;
}

/** Bring the embeddings of several views of a picture together, and keep all of them spread like a Gaussian (arXiv 2511.08544). */
export interface LeJepaObjective {
  kind: "lejepa";
  /** Which of the published sums of the two parts: that of the minimal example, of the paper or of stable-pretraining. Default `"minimal"`. */
  form?: "minimal" | "paper" | "stable-pretraining" | undefined;
  /**
   * Weight of the second part, SIGReg. Default 0.02, which was published for batches of 256: SIGReg grows with the batch, so smaller
   * ones need more, in proportion. `parts.sigreg` is about 1 when all is well, and 0.4 · `batchSize` when everything collapsed.
   */
  lambda?: number | undefined;
  /** Views of each picture. Default 4. */
  views?: number | undefined;
  /** Random directions, drawn anew in every step, along which the spread is tested. Default 256. */
  slices?: number | undefined;
}

/**
 * Predict the target encoder's embeddings of hidden space-time, each kind of mask by itself (arXiv 2404.08471), with models of video of
 * any generation. By default masks are the published two kinds, of short and of long range.
 */
export interface VJepaObjective {
  kind: "vjepa";
  /** Exponent of the distance. Default 1. */
  power?: number | undefined;
  /** V-JEPA 2.1's dense loss, also at the places of what is visible. Default: that of its pretraining, for its models; none for others. */
  contextLoss?:
    | {
        /** Default 0.5. */
        weight?: number | undefined;
        /** The last step without it. Default 15,000. */
        fromStep?: number | undefined;
        /** The first step with its full weight. Default 30,000. */
        fullStep?: number | undefined;
        /** Whether a token counts the less the farther it is from what is hidden. Default true. */
        byDistance?: boolean | undefined;
      }
    | undefined;
}

/**
 * Predict the embedding of the next frame from the last ones and what is done, and keep embeddings spread like a Gaussian at every step, with
 * no target encoder (LeWorldModel, arXiv 2603.19312). The model is of the system `"lewm"`, a batch is one of {@link ActionWindow}s.
 */
export interface LeWmObjective {
  kind: "lewm";
  /** Weight of SIGReg. Default 0.09. */
  weight?: number | undefined;
  /** Random directions, drawn anew in every step, along which the spread is tested. Default 1024. */
  slices?: number | undefined;
  /**
   * Weight of the mean square difference between the embeddings of one frame and the next: distances of embeddings then grow with the way
   * between what they show, which plans follow. Default 0, as published; PLDM (arXiv 2502.14819) has such a term.
   */
  similarity?: number | undefined;
}

/**
 * Predict the patches of the next frame, as an encoder that stays as it is gives them, from the last frames, what is done and the state of the
 * robot (V-JEPA 2-AC, arXiv 2506.09985). The model is of the system `"vjepa2"` with `predictor.actions`, mostly with the encoder of a
 * checkpoint; a batch is one of {@link ActionWindow}s with states.
 */
export interface VJepa2AcObjective {
  kind: "vjepa2-ac";
  /** Exponent of the distance. Default 1. */
  power?: number | undefined;
  /** Frames of a window. Default 8. */
  frames?: number | undefined;
  /** Frames that are predicted one after the other from predictions, for the second part of the loss. Default 2. */
  autoSteps?: number | undefined;
}

export type Objective =
  | "ijepa"
  | "vjepa"
  | "lejepa"
  | "lewm"
  | "vjepa2-ac"
  | IJepaObjective
  | VJepaObjective
  | LeJepaObjective
  | LeWmObjective
  | VJepa2AcObjective;

/**
 * How learning rate, weight decay and momentum of the target encoder change from step to step. The defaults below are those of I-JEPA's
 * released configurations, and were chosen for batches of 2048 pictures. LeJEPA's minimal example has a learning rate of 2e-3 and a
 * constant weight decay of 0.05. `"lewm"` and `"vjepa2-ac"` have the schedules of their systems, and `"vjepa"` those of the model's:
 *
 * | | V-JEPA 1 | V-JEPA 2 | V-JEPA 2.1 |
 * |---|---|---|---|
 * | `startLr`, `lr`, `finalLr` | 2e-4, 6.25e-4, 1e-6 | 1e-4, 5.25e-4, constant | 1e-4, 6e-4, constant |
 * | `warmupSteps` | 40/300 of all | 40/800 | 40/1000 |
 * | `weightDecay`, `finalWeightDecay` | 0.04, 0.4 | 0.04, constant | 0.04, constant |
 * | `ema`, `finalEma` | 0.998, 1 | 0.99925, constant | 0.99925, constant |
 * | `ipeScale` | 1.25 | 1 | 1 |
 *
 * What is constant stays so where another first value is given without a final one.
 */
export interface TrainSchedule {
  /** Steps of the whole run, to which the curves are stretched. Default 1000. */
  steps?: number | undefined;
  /** Learning rate after the warm-up, from where it falls in half a cosine. Default 1e-3. */
  lr?: number | undefined;
  /** Learning rate that the warm-up starts from. Default 2e-4. */
  startLr?: number | undefined;
  /** Learning rate at the end. Default 1e-6. */
  finalLr?: number | undefined;
  /** Steps of the warm-up. Default 40/300 of all. */
  warmupSteps?: number | undefined;
  /**
   * Steps in which the learning rate falls straight to its end, having been constant since the warm-up, as in V-JEPA 2-AC. Default: it
   * falls in half a cosine from the warm-up on.
   */
  annealSteps?: number | undefined;
  /** Weight decay at the start. Default 0.04. */
  weightDecay?: number | undefined;
  /** Weight decay at the end; the way there is half a cosine. Default 0.4. */
  finalWeightDecay?: number | undefined;
  /** Momentum of the target encoder at the start: 0 copies the online encoder, 1 never changes. Default 0.996. */
  ema?: number | undefined;
  /** The same at the end; the way there is straight. Default 1. */
  finalEma?: number | undefined;
  /** By how much the curves are longer than the run, so that their ends are not reached. Default 1. */
  ipeScale?: number | undefined;
}

/** AdamW. */
export interface TrainOptimizer {
  /** Decay of the mean of gradients. Default 0.9. */
  beta1?: number | undefined;
  /** Decay of the mean of their squares. Default 0.999. */
  beta2?: number | undefined;
  /** Added to the root of the latter. Default 1e-8. */
  eps?: number | undefined;
  /** Longest gradient, to which longer ones are scaled; null for any length. Default: 10 for V-JEPA 1, 1 for LeWorldModel, null for others. */
  clip?: number | null | undefined;
  /** Whether `clip` is for the gradient of each network by itself. Default true for V-JEPA 1, else false: of all together. */
  clipEach?: boolean | undefined;
  /** Whether gradients are clipped after the warm-up only. Default true for V-JEPA 1, else false. */
  clipAfterWarmup?: boolean | undefined;
}

/** Random changes to a picture, made in this order. What is left out is torchvision's default for a crop, and nothing for the rest. */
export interface TrainAugmentation {
  /** Of the view, in pixels: multiples of the patch size. */
  size: [height: number, width: number];
  /** Least and greatest share of the picture's area that is cropped. Default [0.08, 1]. */
  scale?: [least: number, most: number] | undefined;
  /** Least and greatest width over height of the crop. Default [3/4, 4/3]. */
  aspect?: [least: number, most: number] | undefined;
  /** How the crop is resized. Default `"bilinear"`. */
  filter?: "bilinear" | "bicubic" | undefined;
  /** Whether the filter is widened when reducing. Default true. */
  antialias?: boolean | undefined;
  /** Probability of exchanging left and right. Default 0. */
  flip?: number | undefined;
  /** Random colours; `probability` is that of changing anything, `hue` at most 0.5. */
  jitter?: { probability: number; brightness: number; contrast: number; saturation: number; hue: number } | undefined;
  /** Probability of losing colour. Default 0. */
  grey?: number | undefined;
  /** Random softness; the side of the kernel, in pixels of the view, is odd. */
  blur?: { probability: number; kernel: number; sigma: [least: number, most: number] } | undefined;
  /** Inverted highlights, from the sample `threshold` of 0 to 255 on. */
  solarise?: { probability: number; threshold: number } | undefined;
}

/** Views of a picture that are made alike. */
export interface TrainViews {
  /** How many of each picture. */
  count: number;
  augmentation: TrainAugmentation;
}

/** The network between embeddings and loss of LeJEPA: two hidden layers, used in training only. */
export interface TrainProjector {
  /** Width of the hidden layers. Default 2048. */
  hiddenSize?: number | undefined;
  /** Width of the output, in which the loss is computed. Default 16. */
  size?: number | undefined;
}

/** Saves that are made without being asked for. */
export interface Autosave {
  /** Steps between two saves. The last step of the schedule is followed by one as well. */
  every: number;
  /** Where they are kept. */
  store: SaveStore;
  /**
   * Told when a save could not be kept; training goes on. Without it the `step` that the save belongs to rejects, though it has been
   * taken.
   */
  onError?: ((error: JepaError) => void) | undefined;
}

/** Where and beside what a trainer runs: what a save does not hold. */
export interface TrainerHost extends LossListeners {
  /** Default `"auto"`: WebGPU where {@link probeDevice} finds it usable, else the CPU, which is repeatable bit for bit. */
  backend?: Backend | "auto" | undefined;
  /** Threads that compute where the CPU does; see {@link LoadOptions.threads}. */
  threads?: number | "auto" | undefined;
  /** Compute in a dedicated worker, where the runtime has them and the library comes from `webjepa`, not `webjepa/core`. Default true; false computes in this thread, one step at a time. */
  worker?: boolean | undefined;
  /** Save while training, and go on by itself from the last save, or from where the trainer began if there is none yet, when what computes is lost. */
  autosave?: Autosave | undefined;
  /** Told when a step finds signs that training goes wrong, such as embeddings that become all alike. */
  onWarning?: ((warning: string, metrics: TrainMetrics) => void) | undefined;
  /** Told how far making the trainer has come. */
  onProgress?: ((progress: Progress) => void) | undefined;
  /** Aborts making the trainer. */
  signal?: AbortSignal | undefined;
}

/** `cache`, `integrity` and `requestInit` are for the checkpoint `from`. */
export interface TrainerOptions extends TrainerHost, Pick<LoadOptions, "cache" | "integrity" | "requestInit"> {
  /**
   * The geometry: a published one by its name, or in numbers. With `from`, it stands in place of the checkpoint's `config.json`: where
   * there is none, or to give the sizes of a predictor that the checkpoint lacks and I-JEPA needs.
   */
  model?: ModelPreset | ModelConfig | undefined;
  /** Begin with the weights of a checkpoint; see {@link ModelSource}. What it lacks, such as a predictor, begins afresh. */
  from?: ModelSource | undefined;
  /** What is learnt. Default `"ijepa"`. */
  objective?: Objective | undefined;
  /** Of everything random: weights, order, crops, masks. A whole number. Default 0. */
  seed?: number | undefined;
  /** Pictures that go through the model at once. Default 16. */
  batchSize?: number | undefined;
  /** Batches whose gradients are summed for a step, which so takes `batchSize · accumulate` pictures. Default 1. */
  accumulate?: number | undefined;
  schedule?: TrainSchedule | undefined;
  optimizer?: TrainOptimizer | undefined;
  /** How I-JEPA chooses masks: a strategy of {@link sampleMasks}. Default: the released models' own, `"ijepa-multiblock"`. */
  masks?: MaskStrategy | undefined;
  /**
   * How pictures become views: one way for all views, or several, for LeJEPA the global ones first. Default: the crop of I-JEPA's
   * released configurations, or the four views of LeJEPA's minimal example, at the size of the model.
   */
  augmentation?: TrainAugmentation | TrainViews[] | undefined;
  projector?: TrainProjector | undefined;
  /** Rescale fresh weights by the depth of their block. Default false, as the released models were made. */
  depthRescale?: boolean | undefined;
  /**
   * What is trained of a loaded model, besides the predictor: everything, its last blocks and final norm, or low-rank adapters of the
   * `qkv` and MLP matrices (arXiv 2106.09685), whose product counts `alpha / rank`, once unless `alpha` is given. Exports and models
   * have the adapters merged into the matrices. Default `"full"`.
   */
  train?: "full" | { lastBlocks: number } | { lora: { rank: number; alpha?: number | undefined } } | undefined;
  /**
   * How passes read weight matrices: as they are, or rounded to f16, which halves what large models read. What is trained, its gradients
   * and the optimizer stay f32. Default `"f32"`.
   */
  dtype?: "f32" | "f16" | undefined;
  /**
   * Whether blocks keep only what goes into them, and compute the rest again when its gradient is needed: much less memory for large models,
   * long clips and large batches, for about a third more time. Gradients are the same. LeWorldModel's predictor has no use for it.
   * Default false.
   */
  gradientCheckpointing?: boolean | undefined;
  /** Mean and deviation of each channel, of values from 0 to 1. Default: ImageNet's for three channels, else 0.5 and 0.5. */
  normalization?: { mean: number[]; std: number[] } | undefined;
}

const OBJECTIVES = ["ijepa", "vjepa", "lejepa", "lewm", "vjepa2-ac"];

const SCHEDULE: Record<keyof TrainSchedule, Rule> = {
  steps: whole(1),
  lr: atLeast(0),
  startLr: atLeast(0),
  finalLr: atLeast(0),
  warmupSteps: whole(0),
  annealSteps: whole(0),
  weightDecay: atLeast(0),
  finalWeightDecay: atLeast(0),
  ema: between(0, 1),
  finalEma: between(0, 1),
  ipeScale: atLeast(1),
};

const OPTIMIZER: Record<keyof TrainOptimizer, Rule> = { beta1: between(0, 1), beta2: between(0, 1), eps: moreThan(0), clip: orNull(moreThan(0)), clipEach: aBoolean, clipAfterWarmup: aBoolean };

const HOST: Record<keyof TrainerHost, Rule> = {
  backend: anything,
  threads: THREADS,
  worker: aBoolean,
  autosave: anObject,
  onWarning: aFunction,
  onProgress: aFunction,
  signal: anObject,
  onLost: aFunction,
  onRecovered: aFunction,
};

const OPTIONS: Record<keyof TrainerOptions, Rule> = {
  ...HOST,
  model: anything,
  from: anything,
  cache: anything,
  integrity: anObject,
  requestInit: anObject,
  objective: anything,
  seed: whole(0),
  batchSize: whole(1),
  accumulate: whole(1),
  schedule: anObject,
  optimizer: anObject,
  masks: anObject,
  augmentation: anObject,
  projector: anObject,
  depthRescale: aBoolean,
  dtype: anything,
  gradientCheckpointing: aBoolean,
  train: anything,
  normalization: anObject,
};

const OF_CHECKPOINT = ["cache", "integrity", "requestInit"] as const;

/** The options that Rust knows, in a form that can be posted to a worker. It checks everything; here is checked what it could only ignore. */
export function trainingOf(options: TrainerOptions): Omit<GlueTrainerOptions, "model"> {
  checkFields("", options, OPTIONS);
  checkAutosave(options);
  const stray = options.from === undefined ? OF_CHECKPOINT.find((name) => options[name] !== undefined) : undefined;
  if (stray) throw new JepaError("bad-input", `The option ${stray} is for the files of a checkpoint: give one in the option from.`);
  const { objective = "ijepa", seed = 0, batchSize = 16, accumulate = 1, schedule, optimizer, masks, augmentation, projector, depthRescale, dtype, gradientCheckpointing, train, normalization } = options;
  if (schedule) checkFields("schedule", schedule, SCHEDULE);
  if (optimizer) checkFields("optimizer", optimizer, OPTIMIZER);
  if (normalization) checkFields("normalization", normalization, { mean: numbers, std: numbers });
  if (dtype !== undefined) oneOf("dtype", dtype, ["f32", "f16"]);
  if (train !== undefined && train !== "full") checkTrain(train);
  oneOf(typeof objective === "string" ? "objective" : "objective.kind", typeof objective === "string" ? objective : objective?.kind, OBJECTIVES);
  const training = { objective, seed, batchSize, accumulate, schedule, optimizer, masks: masks && strategyOf("masks", masks), augmentation, projector, depthRescale, dtype, gradientCheckpointing, train, normalization };
  // Leaves out what is undefined, and keeps later changes of the caller's objects away.
  return JSON.parse(JSON.stringify(training)) as Omit<GlueTrainerOptions, "model">;
}

function checkTrain(train: unknown): void {
  const isObject = typeof train === "object" && train !== null;
  if (!isObject || "lora" in train === "lastBlocks" in train) throw new JepaError("bad-input", `The option train is "full", { lastBlocks } or { lora: { rank, alpha } }, not ${shown(train)}.`);
  if ("lastBlocks" in train) return checkFields("train", train, { lastBlocks: whole(1) });
  checkFields("train", train, { lora: anObject });
  const { lora } = train as { lora: object };
  checkFields("train.lora", lora, { rank: whole(1), alpha: moreThan(0) });
  if (!("rank" in lora)) throw new JepaError("bad-input", "The option train.lora.rank is missing.");
}

const STORE: Rule = {
  what: "a store, as opfsStore and memoryStore make them",
  allows: (value) => typeof value === "object" && value !== null && "write" in value && typeof value.write === "function" && "read" in value && typeof value.read === "function",
};

/** The options of a trainer that goes on from a save. */
export function checkHost(options: TrainerHost): void {
  checkFields("", options, HOST);
  checkAutosave(options);
}

export function checkStore(store: SaveStore): void {
  checkFields("", { store }, { store: STORE });
}

function checkAutosave({ autosave }: TrainerHost): void {
  if (!autosave) return;
  checkFields("autosave", autosave, { every: whole(1), store: STORE, onError: aFunction });
  for (const name of ["every", "store"] as const) if (autosave[name] === undefined) throw new JepaError("bad-input", `The option autosave.${name} is missing.`);
}
