export { Jepa, type EmbedOptions, type LoadOptions } from "./jepa.js";
export { probeDevice, type DeviceReport } from "./device.js";
export { cosineSimilarity, pca, type Matrix, type Pca, type PcaOptions, type Vector } from "./math.js";
export { JepaError, type JepaErrorCode } from "./errors.js";
export type { ImageInput, PixelData } from "./inputs.js";
export type { ModelFile, ModelSource } from "./weights.js";
export type { Backend, Dtype, Embedding, Grid, ModelConfig, ModelPreset, Progress } from "./types.js";
