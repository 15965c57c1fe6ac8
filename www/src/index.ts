/**
 * The library: models, training, world models, and what one does with embeddings.
 *
 * @module webjepa
 */

import "./workers.js";

export * from "./in-thread.js";
