// What the page and its worker say to each other.

import type { EmbedRequest, Loaded, LoadRequest } from "./engine.js";
import type { JepaErrorCode } from "./errors.js";
import type { Embedding, Progress } from "./types.js";

/** `id` numbers the calls; the answer carries the number of its call. */
export type ToWorker =
  | { id: number; type: "load"; request: LoadRequest }
  | { id: number; type: "embed"; request: EmbedRequest }
  | { id: number; type: "abort" };

export type FromWorker =
  | { id: number; type: "progress"; progress: Progress }
  | { id: number; type: "done"; value: Loaded | Embedding }
  | { id: number; type: "failed"; error: PostedError; dead: boolean };

/** A JepaError without what cannot be posted. */
export interface PostedError {
  code: JepaErrorCode;
  message: string;
  /** The stack in the worker and of the errors underneath, for the error's own `cause`. */
  details: string;
}
