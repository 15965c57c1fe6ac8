// Everything that the library exports, and no worker: bundles of it have no code of one, and no file. For pages with a worker of their own.

export { Jepa, type ClassifyOptions, type EmbedOptions, type EmbedStreamOptions, type PredictOptions, type WindowEmbedding } from "./jepa.js";
export type { LoadOptions } from "./load-options.js";
export type { LossListeners } from "./host.js";
export { Trainer, type HuggingFaceFiles, type RunOptions, type StepOptions, type TrainDataset, type TrainSample, type TrainerInfo, type TrainMetrics } from "./trainer.js";
export type {
  Autosave,
  IJepaObjective,
  LeJepaObjective,
  LeWmObjective,
  Objective,
  TrainAugmentation,
  TrainerHost,
  TrainerOptions,
  TrainOptimizer,
  TrainProjector,
  TrainSchedule,
  TrainViews,
  VJepaObjective,
  VJepa2AcObjective,
} from "./trainer-options.js";
export { opfsCache, type CacheEntry, type OpfsCache } from "./opfs-cache.js";
export type { CachedBytes, CustomCache } from "./cache.js";
export { memoryStore, opfsStore, type SaveStore } from "./saves.js";
export { probeDevice, type DeviceReport } from "./device.js";
export {
  sampleMasks,
  type IJepaMultiblock,
  type MaskOptions,
  type Masks,
  type MaskStrategy,
  type RandomMask,
  type Tube,
  type VJepaMaskType,
  type VJepaMultiblock3d,
} from "./masks.js";
export { KnnClassifier, LinearProbe, type Classified, type Embeddings, type Label, type LinearProbeOptions, type NeighbourOptions, type Probed } from "./probes.js";
export { AttentiveProbe, type AttentiveProbeLoadOptions, type AttentiveProbeOptions, type FitProgress, type TokenEmbeddings, type TokenMatrix } from "./attentive.js";
export { cosineSimilarity, pca, type Matrix, type Pca, type PcaOptions, type Vector } from "./math.js";
export { JepaError, type JepaErrorCode } from "./errors.js";
export {
  WorldModel,
  type Actions,
  type ActionSequence,
  type EncodeOptions,
  type Episode,
  type RolloutOptions,
  type States,
  type WorldOptions,
} from "./world.js";
export type { Plan, PlanAxis, PlanIteration, PlanOptions, PlanPreset } from "./plan-options.js";
export { planActions, planningModel, type Rows, type Search, type StepModel } from "./search.js";
export { loadEpisodes, saveEpisodes } from "./episodes.js";
export {
  collectEpisodes,
  runEpisode,
  uniformPolicy,
  type CollectOptions,
  type Environment,
  type EnvironmentStep,
  type EpisodeOptions,
  type EpisodeRecord,
  type Observation,
  type PlannedEpisode,
  type PlanningModel,
  type Policy,
  type UniformOptions,
} from "./environments.js";
export {
  maze,
  pendulum,
  twoRooms,
  type BuiltInEnvironment,
  type BuiltInObservation,
  type BuiltInOptions,
  type MazeOptions,
  type Place,
  type TwoRooms,
  type TwoRoomsOptions,
  type Violation,
} from "./built-in.js";
export { ActionScale, windowsOf, type ActionWindow, type ActionWindows, type Trajectory, type WindowOptions } from "./trajectories.js";
export type { ClipData, ClipInput } from "./clips.js";
export { videoFrames, type DemuxedInput, type DemuxedSample, type DemuxedTrack, type FrameSource, type VideoDemuxer, type VideoFramesOptions } from "./stream.js";
export type { ImageInput, PixelData } from "./inputs.js";
export type { ModelFile, ModelSource } from "./weights.js";
export type { Backend, Dtype, Embedding, Grid, ModelConfig, ModelPreset, Pooling, PredictorConfig, LeWmConfig, Prediction, Progress, System } from "./types.js";
