// Models and trainers as their owners see them: calls one at a time, in order, until they are disposed of.

import { LocalEngine } from "./engine.js";
import { inNode } from "./environment.js";
import { abortable, JepaError, throwIfAborted } from "./errors.js";
import { discard } from "./inputs.js";
import { picturesOf, type CallOptions, type Engine, type Loaded } from "./protocol.js";

declare global {
  interface SymbolConstructor {
    readonly asyncDispose: unique symbol;
  }
}

/** Where the runtime has no such symbol yet, the one that its polyfills use. */
export const asyncDispose: typeof Symbol.asyncDispose = Symbol.asyncDispose ?? (Symbol.for("Symbol.asyncDispose") as typeof Symbol.asyncDispose);

/** Absent in bundles that leave out workers. */
let newWorkerEngine: (() => Engine) | undefined;

/** From now on the option `worker` is heeded. */
export function useWorkers(start: () => Engine): void {
  newWorkerEngine = start;
}

/** What a page is told about losses of what computes. */
export interface LossListeners {
  /**
   * Told when what computes is lost: the GPU device, the worker, or the wasm instance by a crash or the end of memory; at once, also while no
   * call is in progress. The calls in progress reject with the same code, but for {@link Trainer.run} with `autosave`, which goes on. A load
   * that fails is not told of: it rejects.
   */
  onLost?: ((error: JepaError) => void) | undefined;
  /** Told after a loss when everything is back: the next call, whichever it is, loads the model again. */
  onRecovered?: (() => void) | undefined;
}

/** An engine, and the queue of those that live in it. */
class Host {
  readonly #start: () => Engine;
  readonly #onLost: (error: JepaError) => void;
  readonly #onRecovered: () => void;
  #engine: Engine;
  #queue: Promise<unknown> = Promise.resolve();
  #residents = 0;
  /** Whether the page has been told of a loss, and not yet of the recovery. */
  #down = false;

  constructor(worker: boolean, { onLost, onRecovered }: LossListeners) {
    // Node's own workers are another interface, and its module is started from a file.
    this.#start = worker && newWorkerEngine && !inNode && typeof Worker === "function" ? newWorkerEngine : () => new LocalEngine();
    this.#onLost = isolated(onLost);
    this.#onRecovered = isolated(onRecovered);
    this.#engine = this.#spawn();
  }

  #spawn(): Engine {
    const engine = this.#start();
    engine.onLost = (error) => void (engine === this.#engine && this.#tell(error));
    return engine;
  }

  #tell(error: JepaError): void {
    if (this.#residents === 0 || this.#down) return;
    this.#down = true;
    this.#onLost(error);
  }

  get engine(): Engine {
    return this.#engine;
  }

  renew(): void {
    this.#engine.close();
    this.#engine = this.#spawn();
  }

  recovered(): void {
    if (!this.#down) return;
    this.#down = false;
    this.#onRecovered();
  }

  /** Runs `task` after everything that was asked for before. */
  enqueue<T>(task: () => Promise<T>): Promise<T> {
    const turn = this.#queue.then(task);
    this.#queue = turn.catch(() => {});
    return turn;
  }

  enter(): void {
    this.#residents++;
    if (this.#engine.lost) this.#tell(this.#engine.lost);
  }

  /** Leaves `home`, the engine that it lives in or lived in before that was lost. The last one closes the engine. */
  async leave(home: Engine, id: number): Promise<void> {
    if (--this.#residents === 0) this.#engine.close();
    else this.enqueue(async () => home.lost || home.call("free", { id }, {})).catch(() => {});
    await this.#queue;
  }
}

/** What errors say to do about the end of a resident. */
export interface Advice {
  disposed: string;
  /** After the engine was lost. */
  lost: string;
}

export type Make<Info> = (engine: Engine, options: CallOptions) => Promise<Loaded<Info>>;

/** A model or trainer in an engine. */
export class Resident<Info> {
  readonly #host: Host;
  readonly #advice: Advice;
  /** Makes it again in another engine, where that is possible. */
  readonly #remake: Make<Info> | undefined;
  #loaded: Loaded<Info>;
  /** What it was loaded in; another than the host's when that was lost, and made again by another resident. */
  #home: Engine;
  readonly #disposal = new AbortController();
  #left: Promise<void> | undefined;

  /** Makes one in an engine of its own. `again` makes it again when that engine is lost, where that can be done. */
  static async settle<Info>(
    make: Make<Info>,
    { worker, again, advice, signal, onProgress, ...listeners }: { worker: boolean; again?: Make<Info> | undefined; advice: Advice } & CallOptions & LossListeners,
  ): Promise<Resident<Info>> {
    throwIfAborted(signal);
    const host = new Host(worker, listeners);
    return new Resident(host, await makeIn(host.engine, make, { signal, onProgress: isolated(onProgress) }), advice, again);
  }

  private constructor(host: Host, loaded: Loaded<Info>, advice: Advice, remake: Make<Info> | undefined) {
    this.#host = host;
    this.#home = host.engine;
    this.#loaded = loaded;
    this.#advice = advice;
    this.#remake = remake;
    host.enter();
  }

  get info(): Info {
    return this.#loaded.info;
  }

  /** Whether what computes was lost, and this one has not been made again since. */
  get isLost(): boolean {
    return this.#home.lost !== undefined;
  }

  get threads(): number {
    return this.#loaded.threads ?? 1;
  }

  get fallbackReason(): string | undefined {
    return this.#loaded.fallbackReason;
  }

  get cacheFailure(): string | undefined {
    return this.#loaded.cacheFailure;
  }

  /** One turn in the queue, with an engine that works. An abort rejects at once; a task that has begun goes on without its caller. */
  async call<T>(task: (engine: Engine, id: number) => Promise<T>, signal?: AbortSignal): Promise<T> {
    const turn = this.#host.enqueue(async () => {
      this.#throwIfDisposed();
      throwIfAborted(signal);
      if (this.isLost) await this.#revive(signal);
      try {
        return await task(this.#home, this.#loaded.id);
      } catch (error) {
        throw !this.isLost || !(error instanceof JepaError) ? error : this.#lostError(error);
      }
    });
    try {
      return await abortable(abortable(turn, signal), this.#disposal.signal);
    } catch (error) {
      this.#throwIfDisposed();
      throw error;
    }
  }

  /** A call with captured pictures, which are taken even while other calls are waiting. */
  async callWith<Request extends object, T>(
    capturing: Promise<Request>,
    task: (engine: Engine, request: Request & { id: number }) => Promise<T>,
    signal?: AbortSignal,
  ): Promise<T> {
    capturing.catch(() => {});
    try {
      return await this.call(async (engine, id) => task(engine, { ...(await capturing), id }), signal);
    } catch (error) {
      discardLater(capturing);
      throw error;
    }
  }

  /** Another one in the same engine, made by a call to this one. It stays when this one is disposed of, but not when the engine is lost. */
  sibling<Other>(make: (engine: Engine, id: number) => Promise<Loaded<Other>>, advice: Advice): Promise<Resident<Other>> {
    return this.call(async (engine, id) => {
      const loaded = await make(engine, id);
      const resident = new Resident<Other>(this.#host, { ...loaded, threads: this.threads, ...(this.fallbackReason === undefined ? {} : { fallbackReason: this.fallbackReason }) }, advice, undefined);
      // Nobody waits for it any more.
      if (this.#disposal.signal.aborted) void resident.dispose();
      return resident;
    });
  }

  async #revive(signal: AbortSignal | undefined): Promise<void> {
    if (!this.#remake) throw this.#lostError(this.#home.lost!);
    this.#host.renew();
    const { engine } = this.#host;
    // Not to be aborted by the disposal alone: closing the engine ends the load.
    this.#loaded = await makeIn(engine, this.#remake, { signal });
    this.#home = engine;
    this.#host.recovered();
  }

  #lostError({ code, message, cause }: JepaError): JepaError {
    return new JepaError(code, `${message} ${this.#advice.lost}`, { cause });
  }

  #throwIfDisposed(): void {
    if (this.#disposal.signal.aborted) throw new JepaError("disposed", this.#advice.disposed);
  }

  /** Calls in progress reject with `disposed`. May be called twice. */
  dispose(): Promise<void> {
    this.#disposal.abort();
    return (this.#left ??= this.#host.leave(this.#home, this.#loaded.id));
  }
}

/** Gives back the pictures of a request that nobody is going to make, as soon as they are there. */
export function discardLater(capturing: Promise<object>): void {
  capturing.then((request) => picturesOf(request).forEach(discard), () => {});
}

/** Leaves nothing behind when it fails. */
async function makeIn<Info>(engine: Engine, make: Make<Info>, options: CallOptions): Promise<Loaded<Info>> {
  try {
    return await abortable(make(engine, options), options.signal);
  } catch (error) {
    engine.close();
    throw error;
  }
}

/** A listener whose own errors go where uncaught errors go, and not into what it listens to. */
export function isolated<Arguments extends unknown[]>(listener: ((...values: Arguments) => void) | undefined): (...values: Arguments) => void {
  return (...values) => {
    try {
      listener?.(...values);
    } catch (error) {
      setTimeout(() => {
        throw error;
      });
    }
  };
}
