// The worker's side: an engine that is called by messages.

import { LocalEngine } from "./engine.js";
import { toJepaError } from "./errors.js";
import type { Engine, FromWorker, PostedError, ToWorker } from "./protocol.js";

/** The part of a DedicatedWorkerGlobalScope that is used. */
export interface Scope {
  postMessage(message: FromWorker, transfer: Transferable[]): void;
  addEventListener(type: "message", listener: (event: MessageEvent<ToWorker>) => void): void;
}

export function serve(scope: Scope, engine: Engine = new LocalEngine()): void {
  const aborts = new Map<number, AbortController>();

  async function answer({ number, name, request }: Extract<ToWorker, { type: "call" }>): Promise<void> {
    const abort = new AbortController();
    aborts.set(number, abort);
    try {
      const value = await engine.call(name, request, {
        signal: abort.signal,
        onProgress: (progress) => scope.postMessage({ number, type: "progress", progress }, []),
      });
      scope.postMessage({ number, type: "done", value }, buffersOf(value));
    } catch (error) {
      scope.postMessage({ number, type: "failed", error: post(error), lost: engine.lost !== undefined }, []);
    } finally {
      aborts.delete(number);
    }
  }

  scope.addEventListener("message", ({ data: message }) => {
    if (message.type === "abort") aborts.get(message.number)?.abort();
    else void answer(message);
  });
}

/** The large parts of an answer, which are moved rather than copied. */
function buffersOf(value: unknown): Transferable[] {
  const parts: unknown[] = ArrayBuffer.isView(value) ? [value] : Object.values(value ?? {});
  return parts.filter(ArrayBuffer.isView).map(({ buffer }) => buffer as ArrayBuffer);
}

function post(error: unknown): PostedError {
  const { code, message, stack, cause } = toJepaError(error);
  const details = [stack];
  for (let under = cause; under instanceof Error; under = under.cause) details.push(`caused by ${under.stack}`);
  return { code, message, details: details.join("\n") };
}
