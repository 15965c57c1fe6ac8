// Checkpoints that are put together from files of tests/fixtures.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { safetensors } from "../www/bench/models.mjs";
import { root } from "./lib.mjs";

/** The sizes of `vjepa2_ac_tiny`. */
export const AC_CONFIG = /** @type {const} */ ({
  system: "vjepa2",
  imageSize: 32,
  patchSize: 8,
  frames: 8,
  hiddenSize: 64,
  layers: 2,
  heads: 2,
  predictor: { hiddenSize: 64, layers: 2, heads: 2, actions: {} },
});

/**
 * The tensors of a file whose names begin with `from`, under other names.
 * @param {string} file
 * @param {string} from
 * @param {string} to
 * @returns {[name: string, tensor: { shape: number[], data: Float32Array }][]}
 */
function tensors(file, from, to) {
  const bytes = readFileSync(join(root, "tests", "fixtures", file));
  const length = Number(bytes.readBigUInt64LE());
  const header = JSON.parse(bytes.subarray(8, 8 + length).toString());
  return Object.entries(header)
    .filter(([name]) => name.startsWith(from))
    .map(([name, { shape, data_offsets }]) => {
      const [begin, end] = data_offsets.map((at) => 8 + length + at);
      return [to + name.slice(from.length), { shape, data: new Float32Array(Uint8Array.from(bytes.subarray(begin, end)).buffer) }];
    });
}

/** V-JEPA 2-AC under the names of the released file, whose predictor alone is a fixture: the parts of a safetensors file. */
export const acCheckpoint = () =>
  safetensors(
    new Map([
      ...tensors("vjepa2_tiny.safetensors", "encoder.", "target_encoder.module.backbone."),
      ...tensors("vjepa2_tiny.safetensors", "encoder.", "encoder.module.backbone."),
      ...tensors("vjepa2_ac_tiny.safetensors", "ac.", "predictor.module.backbone."),
      ["opt.state.0.exp_avg", { shape: [1], data: Float32Array.of(0) }],
    ]),
  );
