// What is counted in a page: GPU devices and buffers, WebAssembly memories, the JavaScript heap.

import type { Page } from "playwright-core";

declare global {
  var counted: {
    /** The latest last. */
    devices: GPUDevice[];
    /** GPU buffers that were not destroyed and can still be reached, of devices that live. */
    buffers(): GPUBuffer[];
    /** Bytes of the WebAssembly memories that can still be reached. */
    memory(): number;
  };
}

/** Counts from now on; before the library is used. */
export function count(page: Page): Promise<void> {
  return page.evaluate(() => {
    const devices: GPUDevice[] = [];
    // wgpu does not destroy the buffers that it lets go of, so one is gone once it is collected, which a reference from here would prevent.
    const alive = new Map<GPUDevice, Set<WeakRef<GPUBuffer>>>();
    const destroyed = new WeakSet<GPUBuffer>();
    const { requestDevice } = GPUAdapter.prototype;
    GPUAdapter.prototype.requestDevice = async function (descriptor) {
      const device = await requestDevice.call(this, descriptor);
      devices.push(device);
      alive.set(device, new Set());
      void device.lost.then(() => alive.delete(device));
      return device;
    };
    const { createBuffer } = GPUDevice.prototype;
    GPUDevice.prototype.createBuffer = function (descriptor) {
      const buffer = createBuffer.call(this, descriptor);
      alive.get(this)?.add(new WeakRef(buffer));
      return buffer;
    };
    const { destroy } = GPUBuffer.prototype;
    GPUBuffer.prototype.destroy = function () {
      destroyed.add(this);
      return destroy.call(this);
    };
    const memories: WeakRef<WebAssembly.Memory>[] = [];
    const { Instance } = WebAssembly;
    const noted = <I extends WebAssembly.Instance>(instance: I): I => {
      if (instance.exports.memory instanceof WebAssembly.Memory) memories.push(new WeakRef(instance.exports.memory));
      return instance;
    };
    const { instantiateStreaming, instantiate } = WebAssembly;
    WebAssembly.instantiateStreaming = async (...args) => {
      const source = await instantiateStreaming(...args);
      noted(source.instance);
      return source;
    };
    WebAssembly.instantiate = (async (...args: Parameters<typeof instantiate>) => {
      const made: unknown = await instantiate(...args);
      noted(made instanceof Instance ? made : (made as WebAssembly.WebAssemblyInstantiatedSource).instance);
      return made;
    }) as typeof instantiate;
    globalThis.counted = {
      devices,
      buffers() {
        const reached = [...alive.values()].flatMap((buffers) => [...buffers].map((reference) => reference.deref()));
        return reached.filter((buffer) => buffer !== undefined && !destroyed.has(buffer)) as GPUBuffer[];
      },
      memory: () => memories.reduce((sum, memory) => sum + (memory.deref()?.buffer.byteLength ?? 0), 0),
    };
  });
}

export interface Counts {
  buffers: number;
  /** Of the GPU buffers. */
  bytes: number;
  memory: number;
  heap: number;
}

/** Everything that is alive once the garbage is gone. */
export async function measure(page: Page): Promise<Counts> {
  const session = await page.context().newCDPSession(page);
  // Finalizers of the first round free what the second one collects.
  for (let round = 0; round < 3; round++) {
    await session.send("HeapProfiler.collectGarbage");
    await page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 50)));
  }
  const { usedSize } = await session.send("Runtime.getHeapUsage");
  await session.detach();
  const rest = await page.evaluate(() => {
    const buffers = counted.buffers();
    return { buffers: buffers.length, bytes: buffers.reduce((sum, { size }) => sum + size, 0), memory: counted.memory() };
  });
  return { heap: usedSize, ...rest };
}
