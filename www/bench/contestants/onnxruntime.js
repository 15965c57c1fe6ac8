// onnxruntime-web at its documented settings: operators fused as its own optimizer fuses them, static shapes,
// and on WebGPU optionally graph capture with input and output buffers that stay on the GPU.
import { inputShape } from "../models.mjs";

/** What onnxruntime asks of an adapter itself, but for subgroups: its flash attention is wrong where they are narrow (4 lanes on SwiftShader). */
export async function deviceWithoutSubgroups() {
  const adapter = await navigator.gpu.requestAdapter();
  const limits = [
    "maxBufferSize",
    "maxStorageBufferBindingSize",
    "maxStorageBuffersPerShaderStage",
    "maxComputeWorkgroupStorageSize",
    "maxComputeInvocationsPerWorkgroup",
    "maxComputeWorkgroupSizeX",
    "maxComputeWorkgroupSizeY",
    "maxComputeWorkgroupSizeZ",
    "maxComputeWorkgroupsPerDimension",
  ];
  return adapter.requestDevice({
    requiredFeatures: ["shader-f16"].filter((feature) => adapter.features.has(feature)),
    requiredLimits: Object.fromEntries(limits.map((name) => [name, adapter.limits[name]])),
  });
}

export async function open({ libraries, model, batch, device, threads, base, form = "fused", tubelets = "conv3d", subgroups = true, capture = false }) {
  const webgpu = device === "webgpu";
  const ort = await import(webgpu ? libraries.onnxruntimeWebgpu : libraries.onnxruntime);
  ort.env.wasm.numThreads = threads;
  ort.env.logLevel = "error";
  const own = webgpu && !subgroups ? await deviceWithoutSubgroups() : undefined;
  const file = await fetch(`${base}/${form}-${tubelets}.onnx`);
  const session = await ort.InferenceSession.create(new Uint8Array(await file.arrayBuffer()), {
    executionProviders: [webgpu ? { name: "webgpu", device: own } : "wasm"],
    freeDimensionOverrides: { batch },
    graphOptimizationLevel: "all",
    enableGraphCapture: capture,
  });
  const dims = [batch, ...inputShape(model)];
  const opened = {
    name: "onnxruntime-web",
    setting: [`${form} graph`, model.frames > 1 && (tubelets === "frames" ? "tubelets frame by frame" : "tubelets by one Conv"), subgroups || "no subgroups", capture && "graph capture"].filter((part) => typeof part === "string").join(", "),
    close: () => session.release(),
  };

  if (!capture) {
    return {
      ...opened,
      async run({ planar }) {
        const { tokens } = await session.run({ pixels: new ort.Tensor("float32", planar, dims) });
        const data = await tokens.getData();
        tokens.dispose();
        return data;
      },
    };
  }

  const gpu = own ?? (await ort.env.webgpu.device);
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  const input = gpu.createBuffer({ size: 4 * dims.reduce((a, b) => a * b), usage });
  const outputDims = [batch, model.tokens, model.hiddenSize];
  const output = gpu.createBuffer({ size: 4 * outputDims.reduce((a, b) => a * b), usage });
  const feeds = { pixels: ort.Tensor.fromGpuBuffer(input, { dataType: "float32", dims }) };
  const fetches = { tokens: ort.Tensor.fromGpuBuffer(output, { dataType: "float32", dims: outputDims }) };
  const read = async () => {
    const staging = gpu.createBuffer({ size: output.size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
    const encoder = gpu.createCommandEncoder();
    encoder.copyBufferToBuffer(output, 0, staging, 0, output.size);
    gpu.queue.submit([encoder.finish()]);
    await staging.mapAsync(GPUMapMode.READ);
    const data = new Float32Array(staging.getMappedRange().slice(0));
    staging.destroy();
    return data;
  };
  return {
    ...opened,
    async run({ planar }) {
      gpu.queue.writeBuffer(input, 0, planar);
      await session.run(feeds, fetches);
      return read();
    },
  };
}
