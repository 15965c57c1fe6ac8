/**
 * Pictures of what models see, on canvases of pages and of workers. Knows no model: it takes what the library gives.
 *
 * @module webjepa/viz
 */

export { heatMap, INFERNO_CSS, writeInferno, type HeatOptions } from "./heat.js";
export { featureMap, type FeatureMapOptions } from "./features.js";
export { predictionErrors, type PatchErrors } from "./errors.js";
export { drawMasks, TARGET_COLOURS, type DrawnMasks } from "./masks.js";
export { drawOverlay, type OverlayOptions } from "./overlay.js";
export { drawClip, type ClipMasks, type ClipOptions } from "./clip.js";
export { drawScatter, type ScatterOptions } from "./scatter.js";
export type { Canvas, Drawable } from "./canvas.js";
