import type { Jepa } from "webjepa";
import type { Problem } from "../shared/problems";
import type { Store as SharedStore } from "../shared/store";

/** What the encoder says about one picture: a vector for each patch in raster order, and their mean. */
export interface Embedding {
  tokens: Float32Array;
  mean: Float32Array;
  dim: number;
  rows: number;
  columns: number;
  ms: number;
}

export interface Picture {
  readonly id: number;
  readonly name: string;
  readonly credit?: string;
  /** What the library gets: the file as it is, so that decoding and resizing are the library's own. */
  readonly blob: Blob;
  /** What the page shows. */
  readonly bitmap: ImageBitmap;
  state: "waiting" | "embedding" | "ready" | "failed";
  /** Kept while the picture is embedded again at another resolution. */
  embedding?: Embedding;
  problem?: Problem;
}

export interface LoadedModel {
  readonly jepa: Jepa;
  readonly name: string;
  readonly loadMs: number;
}

export interface Activity {
  text: string;
  /** 0 to 1; absent while the length of the work is unknown. */
  fraction?: number;
  cancel?: () => void;
}

export interface State {
  pictures: Picture[];
  selected?: Picture;
  /** The chosen patch as a place in the picture (0 to 1), which stays put when the grid changes. */
  probe: { u: number; v: number };
  opacity: number;
  joint: boolean;
  smooth: boolean;
  /** Side of the encoder's input in pixels; absent: the model's own. */
  imageSize?: number;
  model?: LoadedModel;
  activity?: Activity;
  problem?: Problem;
}

export type Store = SharedStore<State>;

/** The patch under the chosen place in a picture's own grid. */
export function probeCell(state: State, { rows, columns }: { rows: number; columns: number }): { row: number; column: number } {
  return {
    row: Math.min(rows - 1, Math.floor(state.probe.v * rows)),
    column: Math.min(columns - 1, Math.floor(state.probe.u * columns)),
  };
}
