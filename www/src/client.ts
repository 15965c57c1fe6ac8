// An engine that lives in a dedicated worker. Same interface as the engine in this thread.

import type { CachedBytes, CustomCache } from "./cache.js";
import { JepaError, messageOf } from "./errors.js";
import { discard, taintedError, transferables } from "./inputs.js";
import { picturesOf, type CallOptions, type Calls, type Engine, type FromWorker, type PlanRound, type PostedError, type ToWorker } from "./protocol.js";
import { spawn } from "./spawn.js";
import type { Progress } from "./types.js";

interface Call {
  resolve(value: never): void;
  reject(error: JepaError): void;
  onProgress: ((progress: Progress) => void) | undefined;
  onRound: ((round: PlanRound) => void) | undefined;
  cache: CustomCache | undefined;
}

/** How long, in milliseconds, a worker that has started may take for its lock: some are enough, as it does nothing else before. */
const START = 10_000;

export class WorkerEngine implements Engine {
  readonly #worker: Worker;
  readonly #calls = new Map<number, Call>();
  #nextNumber = 0;
  #started = false;
  #starting: ReturnType<typeof setTimeout> | undefined;
  lost: JepaError | undefined;
  onLost: Engine["onLost"];

  constructor() {
    this.#worker = startWorker();
    this.#worker.addEventListener("message", (event: MessageEvent<FromWorker>) => this.#receive(event.data));
    this.#worker.addEventListener("error", (event) => {
      event.preventDefault();
      this.#lose(
        this.#started
          ? new JepaError("internal", `The worker crashed: ${event.message}. Please report this.`, { cause: event.error })
          : new JepaError("network", "The worker could not be started: serve worker.js beside the other files of the package, allow it in the content security policy, or use the option worker: false."),
      );
    });
    this.#worker.addEventListener("messageerror", () => this.#lose(new JepaError("internal", "A message of the worker could not be read.")));
  }

  async call<K extends keyof Calls>(name: K, request: Calls[K]["request"], { signal, onProgress, onRound, cache }: CallOptions): Promise<Calls[K]["result"]> {
    const number = this.#nextNumber++;
    const pictures = picturesOf(request);
    const onAbort = () => this.#post({ number, type: "abort" }, []);
    try {
      return await new Promise<Calls[K]["result"]>((resolve, reject) => {
        if (this.lost) throw this.lost;
        this.#calls.set(number, { resolve, reject, onProgress, onRound, cache });
        this.#post({ number, type: "call", name, request, cache: cache !== undefined, rounds: onRound !== undefined }, pictures.flatMap(transferables));
        signal?.addEventListener("abort", onAbort);
        if (signal?.aborted) onAbort();
      });
    } catch (error) {
      if (error instanceof JepaError) throw error;
      // Structured cloning refuses pictures of other sites, and nothing else that gets here.
      throw error instanceof DOMException && error.name === "DataCloneError" ? taintedError(error) : new JepaError("internal", messageOf(error), { cause: error });
    } finally {
      this.#calls.delete(number);
      signal?.removeEventListener("abort", onAbort);
      pictures.forEach(discard);
    }
  }

  #post(message: ToWorker, transfer: Transferable[]): void {
    this.#worker.postMessage(message, transfer);
  }

  #receive(message: FromWorker): void {
    this.#started = true;
    if (message.type === "started") {
      this.#starting = setTimeout(() => this.#lose(endedError()), START);
      return;
    }
    if (message.type === "alive") return this.#watch(message.lock);
    if (message.type === "lost") return this.#lose(errorOf(message.error));
    const call = this.#calls.get(message.number);
    if (message.type === "progress") call?.onProgress?.(message.progress);
    else if (message.type === "round") call?.onRound?.(message.round);
    else if (message.type === "cache") void this.#ask(call?.cache, message);
    else if (message.type === "done") call?.resolve(message.value as never);
    else call?.reject(errorOf(message.error));
  }

  /** The lock of the worker is had when the worker is no more. */
  #watch(lock: string | undefined): void {
    clearTimeout(this.#starting);
    if (lock !== undefined) navigator.locks.request(lock, () => this.#lose(endedError())).catch(() => {});
  }

  /** Functions cannot be posted: what the worker wants of a cache is done here. */
  async #ask(cache: CustomCache | undefined, { number, question, ...asked }: Extract<FromWorker, { type: "cache" }>): Promise<void> {
    const answer = { number, type: "cached", question } as const;
    try {
      const value = asked.method === "set" ? void (await cache?.set(asked.key, asked.bytes)) : await cache?.[asked.method](asked.key);
      this.#post({ ...answer, ...(asked.method === "get" ? { value: value as CachedBytes } : {}) }, []);
    } catch (error) {
      this.#post({ ...answer, error: { name: error instanceof Error ? error.name : "Error", message: messageOf(error) } }, []);
    }
  }

  #lose(error: JepaError): void {
    if (this.lost) return;
    this.#fail(error);
    this.onLost?.(error);
  }

  /** Ends the worker; every call in progress rejects with `error`. */
  #fail(error: JepaError): void {
    this.lost ??= error;
    clearTimeout(this.#starting);
    this.#worker.terminate();
    for (const { reject } of this.#calls.values()) reject(error);
  }

  close(): void {
    this.#fail(new JepaError("disposed", "The engine has been closed."));
  }
}

function endedError(): JepaError {
  return new JepaError("internal", "The worker was ended from outside of the library, as by a browser that runs out of memory.");
}

function errorOf({ code, message, details }: PostedError): JepaError {
  const cause = new Error(message);
  cause.stack = details;
  return new JepaError(code, message, { cause });
}

function startWorker(): Worker {
  try {
    return spawn(() => new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "webjepa" }), "worker.js");
  } catch (error) {
    throw startError(error);
  }
}

function startError(cause: unknown): JepaError {
  return new JepaError("unsupported", `A worker cannot be started here: ${messageOf(cause)} Use the option worker: false.`, { cause });
}
