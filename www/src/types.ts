/** Where the numbers are computed. */
export type Backend = "webgpu" | "cpu";

/** How weights are kept in memory: as 32-bit or 16-bit floats, or as 8-bit integers with scales. */
export type Dtype = "f32" | "f16" | "q8";

/** A published geometry by its name. */
export type ModelPreset = "vit-tiny" | "vit-small" | "vit-base" | "vit-large" | "vit-huge" | "vit-giant";

/** The geometry of a model. All but the first five have the published defaults. */
export interface ModelConfig {
  /** Height and width of the native input in pixels; one number for a square. */
  imageSize: number | [height: number, width: number];
  /** Side of a patch in pixels. */
  patchSize: number;
  /** Width of a token. */
  hiddenSize: number;
  /** Number of transformer blocks. */
  layers: number;
  /** Number of attention heads. */
  heads: number;
  /** Colour channels of the input. Default 3. */
  channels?: number;
  /** Frames of the native clip; 1 for pictures. */
  frames?: number;
  /** Frames in a token. */
  tubelet?: number;
  /** Hidden width of the MLPs as a multiple of `hiddenSize`. */
  mlpRatio?: number;
  /** How positions enter. */
  positions?: "sincos" | "rope" | "learned";
  /** Geometry of the predictor, where the model has one. */
  predictor?: { hiddenSize: number; layers: number; heads: number };
}

/** Patches along time, height and width. */
export type Grid = [t: number, h: number, w: number];

/** What {@link Jepa.embed} gives. */
export interface Embedding {
  /** Row-major. */
  data: Float32Array;
  /** `[D]` for one pooled picture, `[N, D]` unpooled, with a leading `B` when an array of pictures was given. */
  shape: number[];
  /** Patches along time, height and width; N = t·h·w, in raster order. */
  grid: Grid;
}

/** How far a load has come. */
export interface Progress {
  /** `download`: reading the checkpoint; `compile`: the wasm module; `upload`: weights to the device; `warmup`: first run. */
  phase: "download" | "compile" | "upload" | "warmup";
  /** The file that is being read; empty when the phase is about no file. */
  file: string;
  /** Bytes of `file` that have been read. */
  loaded: number;
  /** Bytes of `file` that will be read; 0 when unknown. */
  total: number;
  /** Whether the bytes come from this library's own cache. */
  fromCache: boolean;
  /** All phases together, 0 to 1, never falling. */
  overall: number;
}
