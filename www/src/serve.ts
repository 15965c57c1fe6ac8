// The worker's side: an engine that is called by messages.

import type { CachedBytes, CustomCache } from "./cache.js";
import { LocalEngine } from "./engine.js";
import { toJepaError } from "./errors.js";
import type { CacheQuestion, Engine, FromWorker, PostedError, ToWorker } from "./protocol.js";

/** The part of a DedicatedWorkerGlobalScope that is used. */
export interface Scope {
  postMessage(message: FromWorker, transfer: Transferable[]): void;
  addEventListener(type: "message", listener: (event: MessageEvent<ToWorker>) => void): void;
}

/** Heeds messages from now on, and answers once it is `ready`. */
export function serve(scope: Scope, ready: Promise<void> = Promise.resolve()): void {
  const engine: Engine = new LocalEngine();
  const aborts = new Map<number, AbortController>();
  const questions = new Map<number, (answer: Extract<ToWorker, { type: "cached" }>) => void>();
  let nextQuestion = 0;

  /** The caller's cache, which is on the other side. */
  function cacheOf(number: number): CustomCache {
    async function ask(asked: CacheQuestion, transfer: Transferable[] = []): Promise<CachedBytes | null | undefined> {
      const question = nextQuestion++;
      scope.postMessage({ number, type: "cache", question, ...asked }, transfer);
      const { error, value } = await new Promise<Extract<ToWorker, { type: "cached" }>>((resolve) => questions.set(question, resolve));
      questions.delete(question);
      if (error) throw Object.assign(new Error(error.message), { name: error.name });
      return value;
    }
    return {
      get: (key) => ask({ method: "get", key }),
      set: (key, bytes) => ask({ method: "set", key, bytes }, [bytes.buffer]),
      delete: (key) => ask({ method: "delete", key }),
    };
  }

  async function answer({ number, name, request, cache, rounds }: Extract<ToWorker, { type: "call" }>): Promise<void> {
    const abort = new AbortController();
    aborts.set(number, abort);
    try {
      const value = await engine.call(name, request, {
        signal: abort.signal,
        onProgress: (progress) => scope.postMessage({ number, type: "progress", progress }, []),
        ...(rounds ? { onRound: (round) => scope.postMessage({ number, type: "round", round }, buffersOf(round)) } : {}),
        ...(cache ? { cache: cacheOf(number) } : {}),
      });
      scope.postMessage({ number, type: "done", value }, buffersOf(value));
    } catch (error) {
      scope.postMessage({ number, type: "failed", error: post(error) }, []);
    } finally {
      aborts.delete(number);
    }
  }

  engine.onLost = (error) => scope.postMessage({ type: "lost", error: post(error) }, []);
  scope.addEventListener("message", async ({ data: message }) => {
    await ready;
    if (message.type === "abort") aborts.get(message.number)?.abort();
    else if (message.type === "cached") questions.get(message.question)?.(message);
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
