// The wasm module that comes with the source and so works at once: what needs no model.

import { codeOf, compileError, toJepaError } from "./errors.js";
import bytes from "./wasm/core/bytes.js";
import * as glue from "./wasm/core/webjepa.js";

let started = false;
let epoch = 0;

/** How often the module has been replaced: what was made in it before is stale. */
export const coreEpoch = () => epoch;

/** Calls into the module, which is started by the first call. */
export function callCore<Exports, T>(body: (exports: Exports) => T): T {
  try {
    if (!started) glue.initSync({ module: Uint8Array.from(atob(bytes), (byte) => byte.charCodeAt(0)) });
    started = true;
    return body(glue as Exports);
  } catch (error) {
    // What is no orderly error has left the instance as it was in the middle of something.
    if (started && !codeOf(error)) {
      glue.__wbg_reset_state();
      epoch++;
    }
    throw toJepaError(compileError(error));
  }
}
