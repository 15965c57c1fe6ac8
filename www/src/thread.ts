// The module that a helping thread runs; threads.ts is the other side.

import { help } from "./team.js";
import type { Recruit } from "./threads.js";
import * as module from "./wasm/cpu-threads/webjepa.js";

const glue = module as unknown as {
  initSync(options: { module: WebAssembly.Module; memory: WebAssembly.Memory }): void;
  doPart(part: number, thread: number): void;
};

globalThis.addEventListener("message", ({ data }: MessageEvent<Recruit>) => {
  glue.initSync(data);
  globalThis.postMessage("ready");
  help(data.block, (part) => glue.doPart(part, data.thread));
}, { once: true });
