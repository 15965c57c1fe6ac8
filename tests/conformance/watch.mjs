// Makes WebGPU's silent errors loud: everything a device reports goes to console.error, which fails the run.

export function watchWebGpu() {
  const adapter = GPUAdapter.prototype;
  const request = adapter.requestDevice;
  adapter.requestDevice = async function (descriptor) {
    const device = await request.call(this, descriptor);
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
}
