// What can be asked of an engine, here or behind a worker, and what a page and its worker say to each other.

import type { CachedBytes, CustomCache } from "./cache.js";
import type { JepaErrorCode, JepaError } from "./errors.js";
import type { GlueClassified, GlueFitStep, GlueLoadOptions, GlueModelInfo, GluePlanOptions, GluePrediction, GlueProbeInfo, GlueTrainerInfo, GlueTrainerOptions, GlueTrainStep, GlueWorldInfo } from "./glue.js";
import type { RequestOptions } from "./http.js";
import type { Picture } from "./inputs.js";
import type { Integrity } from "./integrity.js";
import type { Masks } from "./masks.js";
import type { Backend, Embedding, Pooling, Progress } from "./types.js";
import type { Source } from "./weights.js";

/** Computes. After a fatal failure `lost` is set, everything in it is gone, and another engine must be made. */
export interface Engine {
  readonly lost: JepaError | undefined;
  /** Told of that failure, whether or not a call is in progress, unless it comes of `close`. */
  onLost: ((error: JepaError) => void) | undefined;
  call<K extends keyof Calls>(name: K, request: Calls[K]["request"], options: CallOptions): Promise<Calls[K]["result"]>;
  /** Gives back everything at once where that can be done, else when the call in progress ends. */
  close(): void;
}

export interface CallOptions {
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: Progress) => void) | undefined;
  /** Told of each round of a plan. */
  onRound?: ((round: PlanRound) => void) | undefined;
  /** The caller's, for a load. */
  cache?: CustomCache | undefined;
}

/** By name: what is asked, and what is answered. An engine numbers the models, probes and trainers in it; `id` is such a number. */
export interface Calls {
  /** A model from a checkpoint. */
  load: { request: LoadRequest; result: Loaded<GlueModelInfo> };
  /** The result has the leading batch axis. */
  embed: { request: EmbedRequest; result: Embedding };
  /** By the attentive probe of the checkpoint. */
  classify: { request: ClassifyRequest; result: GlueClassified };
  /** For one picture or clip. */
  predict: { request: PredictRequest; result: GluePrediction };
  /** A world model from a checkpoint. */
  world: { request: LoadRequest; result: Loaded<GlueWorldInfo> };
  /** `[pictures, ...shape]`. */
  encode: { request: { id: number; pictures: Picture[]; preprocess: boolean }; result: { data: Float32Array } };
  /** `[count, horizon, ...shape]`. */
  rollout: { request: RolloutRequest; result: { data: Float32Array } };
  plan: { request: PlanRequest; result: { actions: Float32Array; costs: number[] } };
  /** An attentive probe from a checkpoint. */
  probe: { request: LoadRequest; result: Loaded<GlueProbeInfo> };
  /** An attentive probe with fresh weights. */
  newProbe: { request: { backend: Backend | "auto"; threads: number | "auto"; options: FreshProbe }; result: Loaded<GlueProbeInfo> };
  /** Which samples the next step of a probe takes. */
  samples: { request: { id: number; length: number; batch: number; seed: number }; result: Uint32Array };
  /** A step of a probe on tokens `[labels.length, n, d]`. */
  fit: { request: { id: number; tokens: Float32Array; labels: Uint32Array; fit: Fit }; result: GlueFitStep };
  /** The classes of tokens `[count, n, d]`. */
  read: { request: { id: number; tokens: Float32Array; count: number }; result: GlueClassified };
  saveProbe: { request: { id: number }; result: { file: Uint8Array<ArrayBuffer> } };
  /** A trainer. */
  train: { request: TrainRequest; result: Loaded<GlueTrainerInfo> };
  /** Which of `length` pictures the next step takes. */
  indices: { request: { id: number; length: number }; result: Uint32Array };
  /** Once the module has begun the step, an abort is not heeded. */
  step: { request: StepRequest; result: TimedStep };
  /** Of the last step. */
  masks: { request: { id: number }; result: Masks };
  save: { request: { id: number }; result: { file: Uint8Array<ArrayBuffer> } };
  export: { request: { id: number; layout: "hf" | "original" }; result: Record<string, Uint8Array<ArrayBuffer>> };
  /** A model on the present weights of a trainer. */
  copy: { request: { id: number }; result: Loaded<GlueModelInfo> };
  /** A world model on the present weights of a trainer. */
  worldCopy: { request: { id: number }; result: Loaded<GlueWorldInfo> };
  /** Forgets a model, probe or trainer. */
  free: { request: { id: number }; result: undefined };
}

/** Everything that loading needs, in a form that can be posted to a worker and used again after a loss. */
export interface LoadRequest {
  source: Source;
  backend: Backend | "auto";
  threads: number | "auto";
  options: Omit<GlueLoadOptions, "config" | "preprocessor">;
  warmup: boolean;
  /** `"custom"`: that of the {@link CallOptions}. */
  cache: "none" | "opfs" | "custom";
  integrity: Integrity;
  init: RequestOptions;
}

export interface Loaded<Info> {
  id: number;
  info: Info;
  /** That compute; absent where that is known of what it was made from. */
  threads?: number;
  /** Why "auto" chose the CPU. */
  fallbackReason?: string;
  /** Why something was not kept in the cache. */
  cacheFailure?: string;
}

export interface EmbedRequest {
  id: number;
  /** The frames of all clips, one after the other. */
  pictures: Picture[];
  /** Frames of each clip; 1 for pictures. */
  frames: number;
  pool: Pooling;
  normalize: boolean;
  imageSize?: [height: number, width: number];
  preprocess: boolean;
}

export type ClassifyRequest = Omit<EmbedRequest, "pool" | "normalize">;

export interface FreshProbe {
  hiddenSize: number;
  depth: number;
  heads: number;
  mlpHidden: number;
  labels: (string | number | boolean)[];
  seed: number;
}

/** How a probe is trained; `clip` is 0 for none. */
export interface Fit {
  steps: number;
  learningRate: number;
  warmup: number;
  weightDecay: number;
  clip: number;
}

export interface PredictRequest {
  id: number;
  /** Frame after frame. */
  pictures: Picture[];
  context: Uint32Array;
  targets: Uint32Array[];
  contextFrom: "visible" | "whole-input";
  maskIndex: number;
  preprocess: boolean;
}

/** The last frames of an episode, and the action blocks between them. */
export interface Episode {
  id: number;
  /** `[frames, ...shape]`, the latest last. */
  embeddings: Float32Array;
  /** `[frames − 1, A]`. */
  past: Float32Array;
  /** `[frames, S]`; empty where the model is told none. */
  states: Float32Array;
}

export interface RolloutRequest extends Episode {
  /** `[count, horizon, A]`. */
  actions: Float32Array;
  /** `[count, horizon, S]`. */
  told?: Float32Array | undefined;
  count: number;
  horizon: number;
}

export interface PlanRequest extends Episode {
  /** `[...shape]`. */
  goal: Float32Array;
  options: GluePlanOptions;
}

/** What a round of a plan tried. */
export interface PlanRound {
  /** `[costs.length, horizon, A]`. */
  samples: Float32Array;
  costs: Float32Array;
}

/** What a trainer begins with: fresh weights, a checkpoint's, or a save. */
export type TrainRequest =
  | { kind: "fresh"; backend: Backend | "auto"; threads: number | "auto"; options: GlueTrainerOptions }
  | { kind: "checkpoint"; load: LoadRequest; options: Omit<GlueTrainerOptions, "model"> }
  | { kind: "save"; backend: Backend | "auto"; threads: number | "auto"; file: Blob };

export interface StepRequest {
  id: number;
  /** The frames of all clips, one after the other. */
  pictures: Picture[];
  /** Frames of each clip; 1 for pictures. */
  frames: number;
  preprocess: boolean;
  /** The caller's own. */
  masks?: Masks | undefined;
  /** Of windows, `[windows, frames − 1, A]`. */
  actions?: Float32Array | undefined;
  /** Of windows, `[windows, frames, S]`; empty where the model is told none. */
  states?: Float32Array | undefined;
  /** What messages call each picture or clip; its place in the list, unless given. */
  numbers?: ArrayLike<number>;
}

export interface TimedStep extends Omit<GlueTrainStep, "warning"> {
  warning?: string;
  /** How long the step took, in milliseconds, pictures included. */
  ms: number;
}

/** The captured pictures of a request: they belong to it, and are used up by it. */
export function picturesOf(request: object): Picture[] {
  return "pictures" in request ? (request.pictures as Picture[]) : [];
}

/** `number` numbers the calls; the answer carries the number of its call. */
export type ToWorker = { number: number } & (
  | { type: "call"; name: keyof Calls; request: Calls[keyof Calls]["request"]; cache: boolean; rounds: boolean }
  | { type: "abort" }
  | { type: "cached"; question: number; value?: CachedBytes | null | undefined; error?: { name: string; message: string } }
);

export type FromWorker =
  /** The first thing that a worker says. */
  | { type: "started" }
  /** The second, before it does anything: `lock` is the name of a Web Lock that it holds as long as it lives, where there are such locks. */
  | { type: "alive"; lock?: string }
  | { type: "lost"; error: PostedError }
  | ({ number: number } & (
      | { type: "progress"; progress: Progress }
      | { type: "round"; round: PlanRound }
      | ({ type: "cache"; question: number } & CacheQuestion)
      | { type: "done"; value: Calls[keyof Calls]["result"] }
      | { type: "failed"; error: PostedError }
    ));

/** What a worker asks of a cache of the caller's. */
export type CacheQuestion = { method: "get" | "delete"; key: string } | { method: "set"; key: string; bytes: Uint8Array<ArrayBuffer> };

/** A JepaError without what cannot be posted. */
export interface PostedError {
  code: JepaErrorCode;
  message: string;
  /** The stack in the worker and of the errors underneath, for the error's own `cause`. */
  details: string;
}
