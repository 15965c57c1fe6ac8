// An engine that lives in a dedicated worker. Same interface as the engine in this thread.

import type { EmbedRequest, Engine, Loaded, LoadRequest } from "./engine.js";
import { JepaError, messageOf } from "./errors.js";
import { discard, taintedError, transferables } from "./inputs.js";
import type { FromWorker, ToWorker } from "./protocol.js";
import type { Embedding, Progress } from "./types.js";

interface Call {
  resolve(value: never): void;
  reject(error: JepaError): void;
  onProgress?: (progress: Progress) => void;
}

export class WorkerEngine implements Engine {
  readonly #worker: Worker;
  readonly #calls = new Map<number, Call>();
  #nextId = 0;
  #answered = false;
  dead = false;

  constructor() {
    this.#worker = startWorker();
    this.#worker.addEventListener("message", (event: MessageEvent<FromWorker>) => this.#receive(event.data));
    this.#worker.addEventListener("error", (event) => {
      event.preventDefault();
      this.#fail(
        this.#answered
          ? new JepaError("internal", `The worker crashed: ${event.message}. The next call starts a new one; please report this.`, { cause: event.error })
          : new JepaError("network", "The worker could not be started: serve worker.js beside the other files of the package, allow it in the content security policy, or use the option worker: false."),
      );
    });
    this.#worker.addEventListener("messageerror", () => this.#fail(new JepaError("internal", "A message of the worker could not be read.")));
  }

  load(request: LoadRequest, onProgress: (progress: Progress) => void, signal: AbortSignal | undefined): Promise<Loaded> {
    return this.#call<Loaded>({ type: "load", request }, [], signal, onProgress);
  }

  async embed(request: EmbedRequest, signal: AbortSignal | undefined): Promise<Embedding> {
    try {
      return await this.#call<Embedding>({ type: "embed", request }, request.pictures.flatMap(transferables), signal);
    } finally {
      request.pictures.forEach(discard);
    }
  }

  #call<T>(
    message: { type: "load"; request: LoadRequest } | { type: "embed"; request: EmbedRequest },
    transfer: Transferable[],
    signal: AbortSignal | undefined,
    onProgress?: (progress: Progress) => void,
  ): Promise<T> {
    const id = this.#nextId++;
    const onAbort = () => this.#post({ id, type: "abort" }, []);
    return new Promise<T>((resolve, reject) => {
      this.#calls.set(id, { resolve, reject, ...(onProgress ? { onProgress } : {}) });
      try {
        this.#post({ ...message, id }, transfer);
      } catch (error) {
        // Structured cloning refuses pictures of other sites, and nothing else that gets here.
        reject(error instanceof DOMException && error.name === "DataCloneError" ? taintedError(error) : new JepaError("internal", messageOf(error), { cause: error }));
        return;
      }
      signal?.addEventListener("abort", onAbort);
      if (signal?.aborted) onAbort();
    }).finally(() => {
      this.#calls.delete(id);
      signal?.removeEventListener("abort", onAbort);
    });
  }

  #post(message: ToWorker, transfer: Transferable[]): void {
    this.#worker.postMessage(message, transfer);
  }

  #receive(message: FromWorker): void {
    this.#answered = true;
    const call = this.#calls.get(message.id);
    if (message.type === "progress") call?.onProgress?.(message.progress);
    else if (message.type === "done") call?.resolve(message.value as never);
    else {
      const { code, message: text, details } = message.error;
      const cause = new Error(text);
      cause.stack = details;
      const error = new JepaError(code, text, { cause });
      if (message.dead) this.#fail(error);
      else call?.reject(error);
    }
  }

  /** Ends the worker; every call in progress rejects with `error`. */
  #fail(error: JepaError): void {
    this.dead = true;
    this.#worker.terminate();
    for (const { reject } of this.#calls.values()) reject(error);
  }

  close(): void {
    this.#fail(new JepaError("disposed", "The model has been disposed of."));
  }
}

function startWorker(): Worker {
  try {
    // This very expression is what bundlers look for.
    return new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "webjepa" });
  } catch (error) {
    if (!(error instanceof DOMException && error.name === "SecurityError")) throw startError(error);
  }
  // A worker's script must come from the page's own site, but may import from others, as when the package comes from a CDN.
  const script = new Blob([`import ${JSON.stringify(new URL("./worker.js", import.meta.url).href)};`], { type: "text/javascript" });
  const url = URL.createObjectURL(script);
  try {
    return new Worker(url, { type: "module", name: "webjepa" });
  } catch (error) {
    throw startError(error);
  }
}

function startError(cause: unknown): JepaError {
  return new JepaError("unsupported", `A worker cannot be started here: ${messageOf(cause)} Use the option worker: false.`, { cause });
}
