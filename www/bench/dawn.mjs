// WebGPU in Node: Dawn (npm `webgpu`) in the place where libraries look for it.
import { create, globals } from "webgpu";

Object.assign(globalThis, globals);
Object.defineProperty(globalThis, "navigator", { value: { gpu: create([]), userAgent: "Node", hardwareConcurrency: 1 }, configurable: true });
