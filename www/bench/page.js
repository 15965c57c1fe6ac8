// Puts the tasks where the runner's page.evaluate finds them.
import { tasks } from "./tasks.js";

const longTasks = [];
new PerformanceObserver((list) => longTasks.push(...list.getEntries().map(({ duration }) => duration))).observe({ type: "longtask", buffered: true });

const at = (path) => new URL(path, location.origin).href;
window.bench = tasks({
  libraries: {
    webjepa: at("/webjepa/index.js"),
    onnxruntime: at("/onnxruntime-web/ort.wasm.bundle.min.mjs"),
    onnxruntimeWebgpu: at("/onnxruntime-web/ort.webgpu.bundle.min.mjs"),
    transformers: at("/transformers/transformers.web.min.js"),
    transformersWasm: at("/transformers-onnxruntime-web/ort-wasm-simd-threaded.asyncify"),
    pytorch: at("/pytorch"),
    jax: at("/jax/index.js"),
    burn: at("/wasm/bench-burn/webjepa.js"),
    tfjs: at("/tfjs/tf.fesm.min.js"),
    tfjsWasm: at("/tfjs-backend-wasm/tf-backend-wasm.fesm.min.js"),
    tfjsWasmFiles: at("/tfjs-backend-wasm/"),
    tfjsWebgpu: at("/tfjs-backend-webgpu/tf-backend-webgpu.fesm.min.js"),
  },
  origin: location.origin,
  say: (text) => console.info(`bench: ${text}`),
  longTasks,
});
document.documentElement.dataset.ready = "";
