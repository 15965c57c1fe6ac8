// The wasm instance of this thread: started once per backend, shared by the models in it, replaced when it dies.

import { captureDevice } from "./device.js";
import { codeOf, crashError, JepaError, toJepaError } from "./errors.js";
import { hasRelaxedSimd, loadGlue, type Glue } from "./glue.js";
import type { Backend } from "./types.js";
import { claimUncaught } from "./uncaught.js";

/** Told when the instance dies while it is in use. */
type User = (error: JepaError) => void;

/** How an instance comes to threads, see threads.ts. */
export interface Threading {
  load(): Promise<Glue>;
  recruit(glue: Glue, memory: WebAssembly.Memory, threads: number): Promise<() => void>;
}

/** Absent but in workers of this library, which nobody minds being blocked. */
let threading: Threading | undefined;

/** From now on instances on the CPU can have threads. */
export function useThreads(means: Threading): void {
  threading = means;
}

/** Most threads that are taken where nobody says how many. */
const AUTO_THREADS = 8;

/** How many threads an instance on the CPU of this thread can have, of those wanted. */
export function threadsFor(wanted: number | "auto"): number {
  if (!threading || !globalThis.crossOriginIsolated || !hasRelaxedSimd()) return 1;
  // Two of the logical processors are mostly one core, which matrix products fill.
  return wanted === "auto" ? Math.min(AUTO_THREADS, Math.ceil(navigator.hardwareConcurrency / 2)) : wanted;
}

/** A build of the module. */
type Build = Backend | "cpu-threads";

const instances = new Map<Build, Promise<Instance>>();
const glues = new Map<Build, Promise<Glue>>();

/** How long, in milliseconds, a failure on the GPU waits for the notice of what caused it: module and page hear of a lost device in any order. */
const NOTICE = 200;
/** With less left than this, in pages of 64 KiB, a crash is taken for want of memory: 256 MiB. */
const HEADROOM = 4096;
/** How long callbacks of an ended instance can still come in, in milliseconds. */
const AFTERMATH = 5000;

export class Instance {
  readonly #build: Build;
  /** That compute; more than 1 on the CPU only. */
  readonly threads: number;
  #dismiss: (() => void) | undefined;
  readonly glue: Glue;
  readonly #memory: WebAssembly.Memory;
  #device: GPUDevice | undefined;
  readonly #users = new Set<User>();
  #lost: JepaError | undefined;
  /** Rejects what is waited for when the instance dies. */
  readonly #mourners = new Set<User>();

  /**
   * The instance of this thread for `backend`, started if there is none. Each open needs its `release`, by the same user.
   *
   * @param threads - that compute, itself one of them; of an instance that is there already it has as many as it was started with
   */
  static async open(backend: Backend, user: User, threads = 1): Promise<Instance> {
    const build = threads > 1 ? "cpu-threads" : backend;
    let opening = instances.get(build);
    if (!opening) {
      opening = Instance.#make(build, threads);
      instances.set(build, opening);
    }
    const instance = await opening.catch((error) => {
      if (instances.get(build) === opening) instances.delete(build);
      throw toJepaError(error);
    });
    if (instance.#lost) throw instance.#lost;
    instance.#users.add(user);
    return instance;
  }

  static async #make(build: Build, threads: number): Promise<Instance> {
    let loading = glues.get(build);
    if (!loading) {
      loading = build === "cpu-threads" ? threading!.load() : loadGlue(build);
      glues.set(build, loading);
      loading.catch(() => glues.delete(build));
    }
    const glue = await loading;
    const { memory } = await glue.default();
    const instance = new Instance(build, threads, glue, memory);
    await instance.#start();
    return instance;
  }

  private constructor(build: Build, threads: number, glue: Glue, memory: WebAssembly.Memory) {
    this.#build = build;
    this.threads = threads;
    this.glue = glue;
    this.#memory = memory;
  }

  async #start(): Promise<void> {
    try {
      if (this.#build === "webgpu") {
        const device = await captureDevice(() => this.run(() => this.glue.initDevice()));
        if (device.features.has("subgroups")) this.glue.useSubgroups!();
        this.#watch(device);
      } else await this.run(() => this.glue.initDevice());
      if (this.threads > 1) this.#dismiss = await threading!.recruit(this.glue, this.#memory, this.threads);
      if (this.#lost) this.#dismiss?.();
    } catch (error) {
      // Also after an orderly refusal: the device is set once per instance, so another try needs another instance.
      this.#kill(toJepaError(error));
      throw error;
    }
  }

  #watch(device: GPUDevice): void {
    this.#device = device;
    void device.lost.then(({ reason, message }) => {
      this.#kill(new JepaError("device-lost", `The GPU device was lost (${message || reason}).`));
    });
    device.addEventListener("uncapturederror", ({ error }) => {
      const memory = typeof GPUOutOfMemoryError === "function" && error instanceof GPUOutOfMemoryError;
      // Whatever was computed since then may be wrong without notice.
      this.#kill(
        memory
          ? new JepaError("out-of-memory", `The GPU has not enough memory for this: ${error.message} Use a smaller model or batch.`)
          : new JepaError("internal", `WebGPU reported an error: ${error.message}`),
      );
    });
  }

  /** Why nothing of this instance can be used any more. */
  get lost(): JepaError | undefined {
    return this.#lost;
  }

  /** A synchronous call into the module. What is no orderly error is a crash, and ends the instance. */
  call<T>(body: () => T): T {
    if (this.#lost) throw this.#lost;
    try {
      return body();
    } catch (error) {
      throw this.#failed(error);
    }
  }

  /** An asynchronous call into the module; rejects, too, when the instance dies meanwhile. */
  async run<T>(body: () => Promise<T>): Promise<T> {
    if (this.#lost) throw this.#lost;
    const unclaim = claimUncaught((error) => {
      const trap = error instanceof WebAssembly.RuntimeError;
      if (trap) void this.#explained(error);
      return trap;
    });
    try {
      return await this.#whileAlive(body());
    } catch (error) {
      throw await this.#explained(error);
    } finally {
      unclaim();
    }
  }

  /** A race with one promise that lasts as long as the instance would keep what every call has given. */
  async #whileAlive<T>(promise: Promise<T>): Promise<T> {
    let mourner!: User;
    const death = new Promise<never>((_, reject) => (mourner = reject));
    this.#mourners.add(mourner);
    if (this.#lost) mourner(this.#lost);
    try {
      return await Promise.race([promise, death]);
    } finally {
      this.#mourners.delete(mourner);
    }
  }

  /** What failed; where a GPU is involved, rather its cause than its effect. */
  async #explained(error: unknown): Promise<JepaError> {
    if (this.#device && !this.#lost && isFatal(error)) await this.#whileAlive(new Promise((resolve) => setTimeout(resolve, NOTICE))).catch(() => {});
    return isFatal(error) && this.#lost ? this.#lost : this.#failed(error);
  }

  #failed(error: unknown): JepaError {
    const failure = error instanceof JepaError ? error : codeOf(error) ? toJepaError(error) : crashError(error, this.#isFull());
    if (isFatal(error)) this.#kill(failure);
    return failure;
  }

  /** Whether the memory could not grow any more, which the module only answers with a trap. For an instance that is not used any more. */
  #isFull(): boolean {
    try {
      this.#memory.grow(HEADROOM);
      return false;
    } catch {
      return true;
    }
  }

  /** Called once by each user. The memory of the module is given back with the last one. */
  release(user: User): void {
    this.#users.delete(user);
    if (this.#users.size === 0) this.#kill(new JepaError("disposed", "The wasm instance has been released."));
  }

  #kill(error: JepaError): void {
    if (this.#lost) return;
    this.#lost = error;
    this.#mourners.forEach((mourner) => mourner(error));
    this.#device?.destroy();
    this.#dismiss?.();
    instances.delete(this.#build);
    const unclaim = claimUncaught((uncaught) => uncaught instanceof Error && uncaught.message === STALE);
    const timer: unknown = setTimeout(unclaim, AFTERMATH);
    if (timer instanceof Object && "unref" in timer) (timer as { unref(): void }).unref();
    const restarted = restart(this.glue).then(() => this.glue);
    restarted.catch(() => {});
    glues.set(this.#build, restarted);
    for (const user of this.#users) user(error);
  }
}

/** Orderly errors have a code of the module, or are this library's own; what has not comes from a crash. */
function isFatal(error: unknown): boolean {
  if (error instanceof JepaError) return false;
  const code = codeOf(error);
  return code === undefined || code === "device-lost" || code === "internal";
}

/** What the glue throws where a promise still calls back to the instance before. */
const STALE = "Cannot invoke closure from previous WASM instance";

/** Replaces the instance inside of the glue, which is a module and so exists once in a thread. */
async function restart(glue: Glue): Promise<void> {
  try {
    glue.__wbg_reset_state();
  } catch (error) {
    // Pages may not instantiate large modules synchronously, as the glue does: it gets an instance that was made beforehand.
    if (!(error instanceof RangeError)) throw stuckError(error);
    try {
      const [module, imports] = instanceWanted(glue);
      const instance = await WebAssembly.instantiate(module, imports);
      withInstanceConstructor(() => instance, () => glue.__wbg_reset_state());
    } catch (cause) {
      throw stuckError(cause);
    }
  }
}

function stuckError(cause: unknown): JepaError {
  return new JepaError("internal", "The wasm module cannot be restarted in this thread: reload the page, or use a worker.", { cause });
}

/** What the glue would make an instance of. */
function instanceWanted(glue: Glue): [WebAssembly.Module, WebAssembly.Imports] {
  let wanted: [WebAssembly.Module, WebAssembly.Imports] | undefined;
  const enough = new Error("the arguments are known");
  try {
    withInstanceConstructor(
      (...args) => {
        wanted = args;
        throw enough;
      },
      () => glue.__wbg_reset_state(),
    );
  } catch (error) {
    if (error !== enough) throw error;
  }
  return wanted!;
}

/** Runs `body`, which must be synchronous, with `make` in place of `new WebAssembly.Instance`. */
function withInstanceConstructor(make: (module: WebAssembly.Module, imports: WebAssembly.Imports) => WebAssembly.Instance, body: () => void): void {
  const { Instance } = WebAssembly;
  WebAssembly.Instance = function (module: WebAssembly.Module, imports: WebAssembly.Imports) {
    return make(module, imports);
  } as unknown as typeof Instance;
  try {
    body();
  } finally {
    WebAssembly.Instance = Instance;
  }
}
