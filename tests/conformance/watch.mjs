// Makes WebGPU's silent errors loud: everything a device reports goes to console.error, which fails the run.

/** Resolves to whether devices will have subgroups, which are asked for where the adapter has them, as the package does. */
export async function watchWebGpu() {
  const adapter = GPUAdapter.prototype;
  const request = adapter.requestDevice;
  const subgroups = (await navigator.gpu.requestAdapter()).features.has("subgroups");
  adapter.requestDevice = async function ({ requiredFeatures = [], ...rest } = {}) {
    const device = await request.call(this, { ...rest, requiredFeatures: [...requiredFeatures, ...(subgroups ? ["subgroups"] : [])] });
    device.addEventListener("uncapturederror", ({ error }) => console.error(`WebGPU: ${error.message}`));
    const create = device.createShaderModule.bind(device);
    device.createShaderModule = (descriptor) => {
      const module = create(descriptor);
      module.getCompilationInfo().then(({ messages }) => {
        for (const { type, message } of messages) if (type === "error") console.error(`WGSL: ${message}\n${descriptor.code}`);
      });
      return module;
    };
    return device;
  };
  return subgroups;
}
