// The library with the real CPU module, which can be watched: npm run build:wasm cpu

import { vi } from "vitest";

/** A copy of the library of its own, and the memories of all instances of its module, the present one last. */
export async function freshLibrary() {
  const memories: WebAssembly.Memory[] = [];
  const note = (exports: WebAssembly.Exports) => {
    // Node itself starts modules, too.
    if ("initDevice" in exports) memories.push(exports.memory as WebAssembly.Memory);
  };
  const { instantiate, Instance } = WebAssembly;
  vi.spyOn(WebAssembly, "instantiate").mockImplementation((async (...args: Parameters<typeof instantiate>) => {
    const result = (await instantiate(...args)) as unknown as { instance?: WebAssembly.Instance } & WebAssembly.Instance;
    note((result.instance ?? result).exports);
    return result;
  }) as never);
  // An instance that crashed is replaced by one that is made in this way.
  vi.spyOn(WebAssembly, "Instance").mockImplementation(function (...args: ConstructorParameters<typeof Instance>) {
    const instance = new Instance(...args);
    note(instance.exports);
    return instance;
  } as never);
  vi.resetModules();
  return { ...(await import("../../www/src/index.js")), memories };
}
