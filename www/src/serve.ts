// The worker's side: an engine that is called by messages.

import { LocalEngine, type Engine } from "./engine.js";
import { toJepaError } from "./errors.js";
import type { FromWorker, PostedError, ToWorker } from "./protocol.js";

/** The part of a DedicatedWorkerGlobalScope that is used. */
export interface Scope {
  postMessage(message: FromWorker, transfer: Transferable[]): void;
  addEventListener(type: "message", listener: (event: MessageEvent<ToWorker>) => void): void;
}

export function serve(scope: Scope, engine: Engine = new LocalEngine()): void {
  const aborts = new Map<number, AbortController>();

  async function answer(message: Exclude<ToWorker, { type: "abort" }>): Promise<void> {
    const { id } = message;
    const abort = new AbortController();
    aborts.set(id, abort);
    try {
      if (message.type === "load") {
        const value = await engine.load(message.request, (progress) => scope.postMessage({ id, type: "progress", progress }, []), abort.signal);
        scope.postMessage({ id, type: "done", value }, []);
      } else {
        const value = await engine.embed(message.request, abort.signal);
        scope.postMessage({ id, type: "done", value }, [value.data.buffer as ArrayBuffer]);
      }
    } catch (error) {
      scope.postMessage({ id, type: "failed", error: post(error), dead: engine.dead }, []);
    } finally {
      aborts.delete(id);
    }
  }

  scope.addEventListener("message", ({ data: message }) => {
    if (message.type === "abort") aborts.get(message.id)?.abort();
    else void answer(message);
  });
}

function post(error: unknown): PostedError {
  const { code, message, stack, cause } = toJepaError(error);
  const details = [stack];
  for (let under = cause; under instanceof Error; under = under.cause) details.push(`caused by ${under.stack}`);
  return { code, message, details: details.join("\n") };
}

