import { inNode } from "./environment.js";
import { JepaError, messageOf } from "./errors.js";
import type { Backend } from "./types.js";

/** What this machine can do, and why not. */
export interface DeviceReport {
  /** Whether `backend: "webgpu"` will work here. */
  webgpu: boolean;
  /** Why not, as a sentence; only when `webgpu` is false. */
  reason?: string;
  /** Whether shaders can compute in 16-bit floats. */
  f16: boolean;
  /** Whether shaders can exchange values inside a subgroup. */
  subgroups: boolean;
  /** Whether the adapter can measure times, without which the WebGPU backend does not run. */
  timestampQuery: boolean;
  /** The adapter's limits by their WebGPU names; empty without an adapter. */
  limits: Record<string, number>;
}

/**
 * Says what this machine can do. Never throws, and works in pages, in workers and in Node.
 *
 * @example
 * const { webgpu, reason } = await probeDevice();
 * if (!webgpu) console.log(`Running on the CPU: ${reason}`);
 */
export async function probeDevice(): Promise<DeviceReport> {
  const found = await findAdapter();
  if (typeof found === "string") return { webgpu: false, reason: found, f16: false, subgroups: false, timestampQuery: false, limits: {} };
  const { features } = found;
  const timestampQuery = features.has("timestamp-query");
  return {
    webgpu: timestampQuery,
    ...(timestampQuery ? {} : { reason: "The WebGPU adapter has no timestamp-query feature, which the WebGPU backend needs." }),
    f16: features.has("shader-f16"),
    subgroups: features.has("subgroups"),
    timestampQuery,
    limits: limitsOf(found),
  };
}

/** The WebGPU adapter, or the sentence that says why there is none. */
async function findAdapter(): Promise<GPUAdapter | string> {
  const gpu = typeof navigator === "object" ? navigator.gpu : undefined;
  if (!gpu) {
    if (inNode) return "Node has no WebGPU of its own; the CPU backend works here.";
    if (globalThis.isSecureContext === false) return "WebGPU needs a secure context: serve the page over HTTPS, or from localhost.";
    return "This browser has no WebGPU.";
  }
  try {
    const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
    return adapter ?? "WebGPU is there, but no adapter: the GPU or its driver is blocked or unsupported.";
  } catch (error) {
    return `WebGPU is there, but asking for an adapter failed: ${messageOf(error)}`;
  }
}

function limitsOf(adapter: GPUAdapter): Record<string, number> {
  const limits: Record<string, number> = {};
  // The names are getters on the prototype, so that Object.entries would find none.
  for (const name in adapter.limits) {
    const value: unknown = adapter.limits[name as keyof GPUSupportedLimits];
    if (typeof value === "number") limits[name] = value;
  }
  return limits;
}

/**
 * Which backend serves a request for `backend`; with the reason when "auto" has to do without WebGPU.
 *
 * @internal
 */
export async function chooseBackend(backend: Backend | "auto"): Promise<{ backend: Backend; reason?: string }> {
  if (backend === "cpu") return { backend };
  const { webgpu, reason } = await probeDevice();
  if (webgpu) return { backend: "webgpu" };
  if (backend === "webgpu") throw new JepaError("no-webgpu", `${reason} Use backend "auto" or "cpu".`);
  return { backend: "cpu", reason: reason! };
}

/**
 * Runs `init`, in which the wasm module makes its GPU device, and returns that device.
 *
 * While it runs, requestDevice also asks for the "subgroups" feature where the adapter has it: cubecl writes shaders that
 * enable it whenever subgroups exist, and wgpu's web backend cannot ask for it. Without, those shaders do not compile. Kernels of our own use it, too.
 *
 * @internal
 */
export async function captureDevice(init: () => Promise<void>): Promise<GPUDevice> {
  const adapter = await findAdapter();
  if (typeof adapter === "string") throw new JepaError("no-webgpu", `${adapter} Use backend "auto" or "cpu".`);
  const prototype = Object.getPrototypeOf(adapter) as GPUAdapter;
  const { requestDevice } = prototype;
  let device: GPUDevice | undefined;
  prototype.requestDevice = async function (this: GPUAdapter, descriptor: GPUDeviceDescriptor = {}) {
    const features = new Set<GPUFeatureName>(descriptor.requiredFeatures);
    if (this.features.has("subgroups")) features.add("subgroups");
    device = await requestDevice.call(this, { ...descriptor, requiredFeatures: [...features] });
    return device;
  };
  const restoreGlobals = inNode ? lendBrowserGlobals() : undefined;
  try {
    await init();
  } finally {
    prototype.requestDevice = requestDevice;
    restoreGlobals?.();
  }
  if (!device) throw new JepaError("internal", "The WebGPU build made no device.");
  return device;
}

/** wgpu looks for `navigator` on a Window; in Node, where a WebGPU implementation was put on `navigator.gpu`, it has to be shown one. */
function lendBrowserGlobals(): () => void {
  const scope = globalThis as Record<string, unknown>;
  const lent: Record<string, unknown> = {
    window: globalThis,
    Window: class {
      static [Symbol.hasInstance](value: unknown) {
        return value === globalThis;
      }
    },
  };
  const names = Object.keys(lent).filter((name) => !(name in scope));
  for (const name of names) scope[name] = lent[name];
  return () => {
    for (const name of names) delete scope[name];
  };
}
