import { afterEach, describe, expect, it, vi } from "vitest";
import { captureDevice, chooseBackend } from "../../www/src/device.js";
import { probeDevice } from "../../www/src/index.js";

class Adapter {
  features = new Set<string>();
  limits = Object.create({ maxBufferSize: 1024, get maxBindGroups() { return 4; } });
  asked: (GPUDeviceDescriptor | undefined)[] = [];
  async requestDevice(descriptor?: GPUDeviceDescriptor) {
    this.asked.push(descriptor);
    return { made: true };
  }
}

const withAdapter = (adapter: unknown) => vi.stubGlobal("navigator", { gpu: { requestAdapter: async () => adapter } });
const adapterWith = (...features: string[]) => Object.assign(new Adapter(), { features: new Set(features) });

afterEach(() => void vi.unstubAllGlobals());

describe("probeDevice", () => {
  it("says why there is no WebGPU", async () => {
    vi.stubGlobal("navigator", {});
    expect(await probeDevice()).toEqual({ webgpu: false, reason: expect.stringContaining("Node"), f16: false, subgroups: false, timestampQuery: false, limits: {} });
    withAdapter(null);
    expect((await probeDevice()).reason).toMatch(/no adapter/);
    vi.stubGlobal("navigator", { gpu: { requestAdapter: () => Promise.reject(new Error("driver")) } });
    expect((await probeDevice()).reason).toMatch(/driver/);
  });

  it("does not count an adapter that the backend cannot use", async () => {
    withAdapter(adapterWith("shader-f16"));
    expect(await probeDevice()).toMatchObject({ webgpu: false, reason: expect.stringContaining("timestamp-query"), f16: true, timestampQuery: false });
  });

  it("lists what the adapter has", async () => {
    withAdapter(adapterWith("timestamp-query", "subgroups"));
    expect(await probeDevice()).toEqual({ webgpu: true, f16: false, subgroups: true, timestampQuery: true, limits: { maxBufferSize: 1024, maxBindGroups: 4 } });
  });
});

describe("chooseBackend", () => {
  it("prefers WebGPU, and says why not", async () => {
    withAdapter(adapterWith("timestamp-query"));
    expect(await chooseBackend("auto")).toEqual({ backend: "webgpu" });
    expect(await chooseBackend("cpu")).toEqual({ backend: "cpu" });
    withAdapter(adapterWith());
    expect(await chooseBackend("auto")).toEqual({ backend: "cpu", reason: expect.stringContaining("timestamp-query") });
    await expect(chooseBackend("webgpu")).rejects.toMatchObject({ code: "no-webgpu", message: expect.stringContaining("timestamp-query") });
  });
});

describe("captureDevice", () => {
  const original = Adapter.prototype.requestDevice;

  it("adds subgroups where the adapter has them, and leaves everything as it was", async () => {
    const adapter = adapterWith("subgroups");
    withAdapter(adapter);
    const windowBefore = "window" in globalThis;
    const device = await captureDevice(async () => {
      expect(globalThis).toBeInstanceOf((globalThis as unknown as { Window: typeof Object }).Window);
      await adapter.requestDevice({ label: "mine", requiredFeatures: ["timestamp-query"] });
    });
    expect(device).toEqual({ made: true });
    expect(adapter.asked).toEqual([{ label: "mine", requiredFeatures: ["timestamp-query", "subgroups"] }]);
    expect(Adapter.prototype.requestDevice).toBe(original);
    expect("window" in globalThis).toBe(windowBefore);
  });

  it("asks for nothing that the adapter does not have", async () => {
    const adapter = adapterWith();
    withAdapter(adapter);
    await captureDevice(async () => void (await adapter.requestDevice()));
    expect(adapter.asked).toEqual([{ requiredFeatures: [] }]);
  });

  it("leaves everything as it was after a failure, too", async () => {
    withAdapter(adapterWith());
    await expect(captureDevice(() => Promise.reject(new Error("no")))).rejects.toThrow("no");
    expect(Adapter.prototype.requestDevice).toBe(original);
  });
});
