/** Where the numbers are computed. */
export type Backend = "webgpu" | "cpu";

/** How weights are kept in memory: as 32-bit or 16-bit floats, or as 8-bit integers with scales. */
export type Dtype = "f32" | "f16" | "q8";

type Size = "tiny" | "small" | "base" | "large" | "huge" | "giant";
type Video = "vjepa" | "vjepa2" | "vjepa2.1";

/**
 * A published geometry by its name, where it is not the usual one with patch and image size: `vit-huge/16@448`. Models of video have
 * their system before it: `vjepa2.1-vit-base`, `vjepa2-vit-giant@384`. The names of published checkpoints are understood, too.
 */
export type ModelPreset =
  | `vit-${Size}`
  | `vit-${Size}/${number}`
  | `vit-${Size}@${number}`
  | `vit-${Size}/${number}@${number}`
  | `${Video}-vit-${Size | "gigantic"}`
  | `${Video}-vit-${Size | "gigantic"}@${number}`
  | (string & {});

/** The published system that a model is of. */
export type System = "ijepa" | "vjepa" | "vjepa2" | "vjepa2.1" | "lewm";

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
  channels?: number | undefined;
  /** Default: `"vjepa2"` with rotary positions, else `"vjepa"` for clips and `"ijepa"` for pictures. */
  system?: System | undefined;
  /** Frames of the native clip; 1 for pictures, default 16 for a system of video. */
  frames?: number | undefined;
  /** Frames in a token. */
  tubelet?: number | undefined;
  /** Hidden width of the MLPs as a multiple of `hiddenSize`. */
  mlpRatio?: number | undefined;
  /** Added to the variance in every LayerNorm of the encoder. */
  layerNormEps?: number | undefined;
  /** Whether the query, key and value projections have a bias. */
  qkvBias?: boolean | undefined;
  /** How positions enter. */
  positions?: "sincos" | "rope" | "learned" | undefined;
  /** V-JEPA 2.1: patches on a side of the grid of its pretraining, to which positions are scaled. Default 16 for patches of 16. */
  ropeGrid?: number | undefined;
  /** Geometry of the predictor, where the model has one. */
  predictor?: PredictorConfig | null | undefined;
  /** Geometry of what LeWorldModel has beside its encoder. */
  lewm?: LeWmConfig | undefined;
}

/** What LeWorldModel has beside its encoder, all of the encoder's width. All but the first have the published defaults. */
export interface LeWmConfig {
  /** Numbers of an action block: those of all actions between two frames. */
  actionSize: number;
  /** Most frames that the predictor sees. Default 3. */
  history?: number | undefined;
  /** Channels of the convolution over actions. Default 10. */
  actionChannels?: number | undefined;
  /** Hidden width of the action encoder. Default four times the encoder's width. */
  actionHidden?: number | undefined;
  /** Hidden width of the projectors. Default 2048. */
  projectorHidden?: number | undefined;
  /** Blocks of the predictor. Default 6. */
  layers?: number | undefined;
  /** Its attention heads. Default 16. */
  heads?: number | undefined;
  /** Width of a head. Default 64. */
  headDim?: number | undefined;
  /** Hidden width of its MLPs. Default 2048. */
  mlpHidden?: number | undefined;
}

/** The geometry of a predictor. */
export interface PredictorConfig {
  /** Width of its tokens. Default 384. */
  hiddenSize?: number | undefined;
  /** Default 12. */
  layers?: number | undefined;
  /** Default: the encoder's in I-JEPA and V-JEPA 1, 12 later. */
  heads?: number | undefined;
  /** Default 4. */
  mlpRatio?: number | undefined;
  /** Default: 1 in I-JEPA, 2, 10 and 8 in V-JEPA 1, 2 and 2.1. */
  maskTokens?: number | undefined;
  /** Levels of the encoder's output that it sees: 4 (default) or 1 in V-JEPA 2.1, 1 elsewhere. */
  levels?: number | undefined;
  /** Width of what it predicts. Default `levels` times the encoder's. */
  outputSize?: number | undefined;
  /** V-JEPA 2-AC: it predicts the next frame, from actions and states of so many numbers each, and no masked tokens. Default 7 and 7. */
  actions?: { actionSize?: number | undefined; stateSize?: number | undefined } | null | undefined;
}

/** Patches along time, height and width. */
export type Grid = [t: number, h: number, w: number];

/** What becomes of tokens in {@link Jepa.embed}, whose option `pool` says what each is. */
export type Pooling = "mean" | "none" | "last4-mean" | "levels";

/** What {@link Jepa.embed} gives. */
export interface Embedding {
  /** Row-major. */
  data: Float32Array;
  /** `[D]` for one pooled picture, `[N, D]` unpooled, `4·D` in place of `D` where there are four layers; with a leading `B` when an array of pictures was given. */
  shape: number[];
  /** Patches along time, height and width; N = t·h·w, in raster order. */
  grid: Grid;
}

/** What {@link Jepa.predict} gives. */
export interface Prediction {
  /** What the predictor says of the masked tokens: row-major, `[blocks, K, D]`; of V-JEPA 2.1 all four levels, `4·D` in place of `D`. */
  predicted: { data: Float32Array; shape: [blocks: number, tokens: number, d: number] };
  /** What the target encoder, which sees the whole picture, makes of them, layer-normed: row-major, `[blocks, K, D]`. */
  target: { data: Float32Array; shape: [blocks: number, tokens: number, d: number] };
  /** The distance of the two for each token, which averaged is the training loss: `[blocks, K]`. */
  error: Float32Array;
  /**
   * Of V-JEPA 2.1 only: what its predictor, which has seen the whole context, says of each token of the context, as its dense loss compares
   * it with the target encoder's view of the token. Row-major, `[blocks, context tokens, D]`.
   */
  contextPredicted?: { data: Float32Array; shape: [blocks: number, tokens: number, d: number] };
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
  /** Whether all bytes of `file` so far came from the cache of the option `cache`. */
  fromCache: boolean;
  /** All phases together, 0 to 1, never falling. */
  overall: number;
}
