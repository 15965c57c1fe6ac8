// PyTorch, native, in a process of the bench's server (www/bench/pytorch.py): what the same machine does outside of the browser. Its times are its own, without
// the way there and back.
import { ElsewhereTimed } from "../measure.js";
import { inputShape, readSafetensors, safetensors } from "../models.mjs";

async function ask(address, tensors, request) {
  const response = await fetch(address, { method: "POST", body: new Blob(safetensors(tensors, { request: JSON.stringify(request) })) });
  if (!response.ok) throw new Error(await response.text());
  const bytes = await response.arrayBuffer();
  const length = new Uint32Array(bytes, 0, 1)[0];
  const { error, ...told } = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, length)));
  if (error) throw new Error(error);
  return { values: new Float32Array(bytes, 4 + length), ...told };
}

/** A side of these weights, of a model's geometry or a training task; its `run` takes tensors by name. */
export async function start(address, weights, of, threads) {
  const { version } = await ask(address, weights, { of, threads });
  return {
    setting: `${version}, eager, ${threads} thread${threads > 1 ? "s" : ""}`,
    async run(inputs) {
      const { values, ms } = await ask(address, new Map(Object.entries(inputs)), {});
      return new ElsewhereTimed(values, ms);
    },
  };
}

export async function open({ libraries, model, batch, threads, base }) {
  const weights = await readSafetensors(`${base}/${model.frames > 1 ? "separate" : "model"}.safetensors`);
  const { setting, run } = await start(libraries.pytorch, weights, model, threads);
  return { setting, close() {}, run: ({ planar }) => run({ pixels: { shape: [batch, ...inputShape(model)], data: planar } }) };
}
