// transformers.js's IJepaModel: a release of onnxruntime-web of its own, with the way that it reads a model's folder and gives tensors.
import { inputShape } from "../models.mjs";
import { deviceWithoutSubgroups } from "./onnxruntime.js";

export async function open({ libraries, model, batch, device, threads, base, form = "fused", subgroups = true }) {
  const { env, IJepaModel, Tensor } = await import(libraries.transformers);
  const { wasm } = env.backends.onnx;
  wasm.wasmPaths = { mjs: `${libraries.transformersWasm}.mjs`, wasm: `${libraries.transformersWasm}.wasm` };
  wasm.numThreads = threads;
  const [, folder, name] = /^(.*\/)([^/]+)$/.exec(base);
  Object.assign(env, { allowLocalModels: true, allowRemoteModels: false, localModelPath: folder, useBrowserCache: false, useWasmCache: false });
  const webgpu = device === "webgpu";
  const own = webgpu && !subgroups ? await deviceWithoutSubgroups() : undefined;
  const encoder = await IJepaModel.from_pretrained(name, {
    device: webgpu ? "webgpu" : "wasm",
    dtype: "fp32",
    model_file_name: form,
    session_options: { freeDimensionOverrides: { batch }, graphOptimizationLevel: "all", ...(own && { executionProviders: [{ name: "webgpu", device: own }] }) },
  });
  return {
    setting: [`${form} graph`, subgroups || "no subgroups"].filter((part) => typeof part === "string").join(", "),
    close: () => encoder.dispose(),
    async run({ planar }) {
      const { last_hidden_state } = await encoder({ pixel_values: new Tensor("float32", planar, [batch, ...inputShape(model)]) });
      return last_hidden_state.data;
    },
  };
}
