// Feature maps: the principal components of patches as colours.

import { JepaError } from "../errors.js";
import type { Grid } from "../types.js";
import type { Pca } from "../math.js";
import { emptyImage } from "./canvas.js";

export interface FeatureMapOptions {
  /** Of a clip, which time step is shown. Default 0. */
  step?: number | undefined;
}

/**
 * The usual picture of what an encoder sees: a pixel for each patch, red, green and blue for its first three components. Patches of
 * like colour are alike to the encoder.
 *
 * @param components - of an embedding with `pool: "none"`: what `pca` gives
 * @throws JepaError `bad-input` when the components are not those of a grid of patches
 *
 * @example
 * const tokens = await jepa.embed(image, { pool: "none" });
 * drawOverlay(canvas, image, featureMap(pca(tokens)), { opacity: 0.8 });
 */
export function featureMap(components: Pick<Pca, "toRGB"> & { readonly grid?: Readonly<Grid> }, { step = 0 }: FeatureMapOptions = {}): ImageData {
  const { grid } = components;
  if (!grid) throw new JepaError("bad-input", 'These are no components of a grid of patches: embed with pool: "none".');
  const [steps, rows, columns] = grid;
  if (!Number.isInteger(step) || step < 0 || step >= steps) throw new JepaError("bad-input", `There are time steps 0 to ${steps - 1}, no ${step}.`);
  const image = emptyImage(columns, rows);
  const pixels = image.data.length;
  image.data.set(components.toRGB().subarray(step * pixels, (step + 1) * pixels));
  return image;
}
