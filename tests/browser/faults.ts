// Faults in the workers of a page: the GPU device is destroyed, the worker ends without a word, or its WebAssembly memory cannot grow any more.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { DIST, type Lab } from "./harness.js";

export type Fault = "device" | "worker" | "memory";

declare global {
  /** GPU devices of this thread, the latest last. */
  var devices: GPUDevice[];
  var faults: {
    /** The names of the workers that were started, the latest last. */
    workers: string[];
    /** Causes a fault in a worker that has started; of a device or a memory that is not there yet, as soon as it is. */
    cause(worker: string, fault: Fault): void;
  };
}

/** In a worker, after the library and before it is asked for anything. */
const IN_WORKER = `
const wanted = new Set();
const devices = [];
const use = (memory) => memory.grow(65536 - memory.buffer.byteLength / 65536);
const { requestDevice } = GPUAdapter.prototype;
GPUAdapter.prototype.requestDevice = async function (descriptor) {
  const device = await requestDevice.call(this, descriptor);
  devices.push(device);
  if (wanted.has("device")) device.destroy();
  return device;
};
const memories = [];
const { instantiateStreaming } = WebAssembly;
WebAssembly.instantiateStreaming = async (...args) => {
  const source = await instantiateStreaming(...args);
  memories.push(source.instance.exports.memory);
  if (wanted.has("memory")) use(memories.at(-1));
  return source;
};
new BroadcastChannel(name).onmessage = ({ data: fault }) => {
  wanted.add(fault);
  if (fault === "worker") close();
  else if (fault === "device") devices.at(-1)?.destroy();
  else memories.forEach(use);
};
`;

/** Keeps the devices that the page's own thread asks for from now on. */
export function keepDevices(page: Page): Promise<void> {
  return page.evaluate(() => {
    globalThis.devices = [];
    const { requestDevice } = GPUAdapter.prototype;
    GPUAdapter.prototype.requestDevice = async function (descriptor) {
      const device = await requestDevice.call(this, descriptor);
      devices.push(device);
      return device;
    };
  });
}

/** Lets faults be caused from now on, in workers that are started from now on. */
export async function armFaults(lab: Lab, page: Page): Promise<void> {
  lab.server.files.set("dist/worker.js", readFileSync(join(DIST, "worker.js"), "utf8") + IN_WORKER);
  await page.evaluate(() => {
    const { Worker } = globalThis;
    const workers: string[] = [];
    globalThis.Worker = class extends Worker {
      constructor(url: string | URL, options?: WorkerOptions) {
        const name = `worker ${workers.length}`;
        super(url, { ...options, name });
        workers.push(name);
      }
    };
    globalThis.faults = {
      workers,
      cause(worker, fault) {
        const channel = new BroadcastChannel(worker);
        channel.postMessage(fault);
        channel.close();
      },
    };
  });
}
