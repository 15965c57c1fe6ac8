// Threads that help the worker of a model on the CPU: workers with instances of the same module, on the same memory.

import { messageOf } from "./errors.js";
import { glueModule, wasmFile, type Glue } from "./glue.js";
import { newBlock, share } from "./team.js";
import { spawn } from "./spawn.js";

/** What a thread is told. */
export interface Recruit {
  module: WebAssembly.Module;
  memory: WebAssembly.Memory;
  block: Int32Array<SharedArrayBuffer>;
  /** Its number, from 1 on. */
  thread: number;
}

let module: WebAssembly.Module | undefined;

/** Imports the glue of the build whose memory can be shared, and starts its module; once in a thread. */
export async function loadSharedGlue(): Promise<Glue> {
  const [glue, file] = await Promise.all([glueModule(import("./wasm/cpu-threads/webjepa.js")), wasmFile(new URL("./wasm/cpu-threads/webjepa_bg.wasm", import.meta.url))]);
  module = await WebAssembly.compile(file instanceof Response ? await file.arrayBuffer() : file);
  await glue.default({ module_or_path: module });
  return glue;
}

/**
 * Has the instance on `memory` share its work among `threads`, itself one of them. Nothing may be asked of it meanwhile.
 *
 * @returns what ends them
 */
export async function recruit(glue: Glue, memory: WebAssembly.Memory, threads: number): Promise<() => void> {
  const block = newBlock();
  const helpers: Worker[] = [];
  const dismiss = () => helpers.forEach((helper) => helper.terminate());
  try {
    for (let thread = 1; thread < threads; thread++) helpers.push(startThread());
    // One after the other, as each takes memory from the allocator, which knows of no threads, for its stack.
    for (const [i, helper] of helpers.entries()) await enlisted(helper, { module: module!, memory, block, thread: i + 1 });
  } catch (error) {
    dismiss();
    throw error;
  }
  glue.shareWork!(threads, (parts) => share(block, parts, (part) => glue.doPart!(part, 0)));
  return dismiss;
}

function startThread(): Worker {
  return spawn(() => new Worker(new URL("./thread.js", import.meta.url), { type: "module", name: "webjepa thread" }), "thread.js");
}

function enlisted(helper: Worker, recruit: Recruit): Promise<void> {
  return new Promise((resolve, reject) => {
    helper.addEventListener("message", () => resolve(), { once: true });
    helper.addEventListener("error", (event) => {
      event.preventDefault();
      reject(new Error(`A thread cannot be started: ${messageOf(event.message)}`));
    });
    helper.postMessage(recruit);
  });
}
