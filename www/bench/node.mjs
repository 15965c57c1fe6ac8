// The other host of the tasks: a Node process with Dawn (npm `webgpu`) on Mesa's software adapter, which has what SwiftShader lacks.
import { fileURLToPath } from "node:url";
import "./dawn.mjs";
import "./iterators.mjs";
import { answering } from "./process.mjs";
import { tasks } from "./tasks.js";

// onnxruntime-web writes from shared wasm memory, which browsers take and Dawn's Node binding refuses.
const { writeBuffer } = GPUQueue.prototype;
GPUQueue.prototype.writeBuffer = function (buffer, offset, data, ...range) {
  return writeBuffer.call(this, buffer, offset, data.buffer instanceof SharedArrayBuffer ? new Uint8Array(data) : data, ...range);
};

const at = (path) => new URL(`../../${path}`, import.meta.url).href;
answering(({ method, request, origin }) => {
  const bench = tasks({
    libraries: {
      webjepa: at("pkg/dist/index.js"),
      onnxruntime: at("node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs"),
      onnxruntimeWebgpu: at("node_modules/onnxruntime-web/dist/ort.webgpu.bundle.min.mjs"),
      jax: at("node_modules/@jax-js/jax/dist/index.js"),
      tfjs: at("node_modules/@tensorflow/tfjs/dist/tf.node.js"),
      tfjsWasm: at("node_modules/@tensorflow/tfjs-backend-wasm/dist/tf-backend-wasm.node.js"),
      tfjsWasmFiles: fileURLToPath(at("node_modules/@tensorflow/tfjs-backend-wasm/dist/")),
      tfjsWebgpu: at("node_modules/@tensorflow/tfjs-backend-webgpu/dist/tf-backend-webgpu.node.js"),
    },
    origin,
    say: (line) => process.send({ line }),
  });
  return bench[method](request);
});
