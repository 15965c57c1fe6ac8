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
    .filter(([name]) => name !== "__metadata__" && name.startsWith(from))
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

/** V-JEPA 2's encoder with the probe of the fixture, under the names of a Hugging Face classifier: the parts of a safetensors file. */
export function classifierCheckpoint() {
  const all = new Map(tensors("vjepa2_tiny_hf/model.safetensors", "", "vjepa2."));
  for (const [original, { shape: [rows, ...rest], data }] of tensors("vjepa2_tiny_probe.safetensors", "probe.", "")) {
    const name = original
      .replace("linear", "classifier")
      .replace("pooler.blocks", "pooler.self_attention_layers")
      .replace("cross_attention_block", "cross_attention_layer")
      .replace(/norm([12])/, "layer_norm$1")
      .replace("attn.proj", "self_attn.out_proj");
    /** @param {string} from @param {string} to @param {string[]} parts */
    const split = (from, to, parts) =>
      parts.forEach((part, i) => {
        const length = data.length / parts.length;
        all.set(name.replace(from, `${to}.${part}_proj`), { shape: [rows / parts.length, ...rest], data: data.slice(i * length, (i + 1) * length) });
      });
    if (name.includes("attn.qkv")) split("attn.qkv", "self_attn", ["q", "k", "v"]);
    else if (name.includes("xattn.kv")) split("xattn.kv", "cross_attn", ["k", "v"]);
    else all.set(name.replace("xattn.q", "cross_attn.q_proj"), { shape: [rows, ...rest], data });
  }
  return safetensors(all);
}
