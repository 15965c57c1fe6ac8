import type { Grid, TrainerInfo, TrainMetrics } from "webjepa";
import type { DrawnMasks } from "webjepa/viz";
import type { Problem } from "../shared/problems";
import type { Store as SharedStore } from "../shared/store";
import type { FeatureMap } from "./examination";
import type { PictureSet } from "./picture-sets";
import type { RunRecord } from "./run-record";

/** What the charts show: equally long columns, a row for each step. */
export interface History {
  step: number[];
  loss: number[];
  std: number[];
  rank: number[];
  gradient: number[];
  ms: number[];
}

/** How often the nearest neighbours of a labelled picture have its class, 0 to 1, after so many steps. */
export interface Accuracies {
  step: number[];
  accuracy: number[];
}

export interface State {
  phase: "idle" | "preparing" | "running" | "pausing" | "paused" | "done";
  /** What the page is busy with besides. */
  activity?: string | undefined;
  set?: PictureSet | undefined;
  info?: (TrainerInfo & { fallbackReason?: string | undefined; grid: Grid }) | undefined;
  history: History;
  accuracies: Accuracies;
  /** The same for the pixels themselves, without any model. */
  pixels?: number | undefined;
  last?: TrainMetrics | undefined;
  masks?: DrawnMasks | undefined;
  maps?: FeatureMap[] | undefined;
  /** The run that an earlier visit left. */
  saved?: RunRecord | undefined;
  problem?: Problem | undefined;
}

export type Store = SharedStore<State>;

export const emptyHistory = (): History => ({ step: [], loss: [], std: [], rank: [], gradient: [], ms: [] });
