// The engine in this thread: models and trainers in the thread's wasm instance.

import { ModelCache } from "./cache.js";
import { chooseBackend } from "./device.js";
import { abortError, JepaError, throwIfAborted, toJepaError } from "./errors.js";
import type { GlueModel, GlueModelInfo, GlueProbe, GlueProbeInfo, GlueTrainer, GlueTrainerInfo, GlueWorld, GlueWorldInfo } from "./glue.js";
import { discard } from "./inputs.js";
import { Instance, threadsFor } from "./instance.js";
import { fromCheckpoint, isOfFiles, progressReporter, type Report } from "./loading.js";
import { LocalModel } from "./local-model.js";
import { LocalProbe } from "./local-probe.js";
import { LocalTrainer } from "./local-trainer.js";
import { LocalWorld } from "./local-world.js";
import { opfsStorage } from "./opfs-cache.js";
import { picturesOf, type CallOptions, type Calls, type Engine, type Loaded, type LoadRequest, type TrainRequest } from "./protocol.js";
import type { Backend } from "./types.js";
import { openCheckpoint, type Passage } from "./weights.js";

/** What is known of an instance that has been opened. */
type Opened = Pick<Loaded<unknown>, "threads" | "fallbackReason">;

type Operations = { [K in keyof Calls]: (request: Calls[K]["request"], options: CallOptions) => Calls[K]["result"] | Promise<Calls[K]["result"]> };

export class LocalEngine implements Engine {
  #instance: Instance | undefined;
  #lost: JepaError | undefined;
  onLost: Engine["onLost"];
  readonly #models = new Map<number, LocalModel>();
  readonly #trainers = new Map<number, LocalTrainer>();
  readonly #worlds = new Map<number, LocalWorld>();
  readonly #probes = new Map<number, LocalProbe>();
  #nextId = 0;
  #busy = 0;
  readonly #closing = new AbortController();

  readonly #operations: Operations = {
    load: (request, { signal, ...options }) => this.#linked(signal, (linked) => this.#load(request, options, linked)),
    embed: ({ id, ...request }, { signal }) => this.#models.get(id)!.embed(request, signal),
    classify: ({ id, ...request }, { signal }) => this.#models.get(id)!.classify(request, signal),
    predict: ({ id, ...request }, { signal }) => this.#models.get(id)!.predict(request, signal),
    world: (request, { signal, ...options }) => this.#linked(signal, (linked) => this.#fromSource(request, options, (loader) => loader.finishWorld(), (made) => this.#keepWorld(made), linked)),
    encode: ({ id, ...request }, { signal }) => this.#worlds.get(id)!.encode(request, signal),
    rollout: ({ id, ...request }, { signal }) => this.#worlds.get(id)!.rollout(request, signal),
    plan: ({ id, ...request }, { signal, onRound }) => this.#worlds.get(id)!.plan(request, signal, onRound),
    probe: (request, { signal, ...options }) => this.#linked(signal, (linked) => this.#fromSource(request, options, (loader) => loader.finishProbe(), (made) => this.#keepProbe(made), linked)),
    newProbe: (request, { signal }) => this.#linked(signal, (linked) => this.#newProbe(request, linked)),
    samples: ({ id, ...request }) => this.#probes.get(id)!.samples(request),
    fit: ({ id, ...request }, { signal }) => this.#probes.get(id)!.fit(request, signal),
    read: ({ id, ...request }, { signal }) => this.#probes.get(id)!.read(request, signal),
    saveProbe: ({ id }) => this.#probes.get(id)!.save(),
    train: (request, { signal, ...options }) => this.#linked(signal, (linked) => this.#train(request, options, linked)),
    indices: ({ id, length }) => this.#trainers.get(id)!.indices(length),
    step: ({ id, ...request }, { signal }) => this.#trainers.get(id)!.step(request, signal),
    masks: ({ id }) => this.#trainers.get(id)!.masks(),
    save: ({ id }) => this.#trainers.get(id)!.save(),
    export: ({ id, layout }) => this.#trainers.get(id)!.export(layout),
    copy: async ({ id }) => this.#keepModel(await this.#trainers.get(id)!.copy()),
    worldCopy: async ({ id }) => this.#keepWorld(await this.#trainers.get(id)!.worldCopy()),
    free: ({ id }) => this.#free(id),
  };

  get lost(): JepaError | undefined {
    return this.#lost ?? (this.#closing.signal.aborted ? abortError(this.#closing.signal) : undefined);
  }

  readonly #lose = (error: JepaError): void => {
    this.#lost = error;
    if (!this.#closing.signal.aborted) this.onLost?.(error);
  };

  async call<K extends keyof Calls>(name: K, request: Calls[K]["request"], options: CallOptions): Promise<Calls[K]["result"]> {
    const operation: Operations[K] = this.#operations[name];
    this.#busy++;
    try {
      return await operation(request, options);
    } catch (error) {
      throw toJepaError(error);
    } finally {
      picturesOf(request).forEach(discard);
      this.#busy--;
      this.#releaseIfIdle();
    }
  }

  /** Runs `body` with one signal for everything that is opened on the way, so that a failure anywhere ends all of it. */
  async #linked<T>(signal: AbortSignal | undefined, body: (linked: AbortSignal) => Promise<T>): Promise<T> {
    const failing = new AbortController();
    const onAbort = () => failing.abort(signal!.reason);
    signal?.addEventListener("abort", onAbort);
    const onClose = () => failing.abort(this.#closing.signal.reason);
    this.#closing.signal.addEventListener("abort", onClose);
    if (signal?.aborted) onAbort();
    try {
      throwIfAborted(failing.signal);
      return await body(failing.signal);
    } catch (error) {
      failing.abort(error);
      throw error;
    } finally {
      signal?.removeEventListener("abort", onAbort);
      this.#closing.signal.removeEventListener("abort", onClose);
    }
  }

  async #load(request: LoadRequest, callOptions: CallOptions, signal: AbortSignal): Promise<Loaded<GlueModelInfo>> {
    const { warmup } = request;
    const report = progressReporter(callOptions.onProgress, { compile: 10, download: 70, upload: warmup ? 10 : 20, warmup: warmup ? 10 : 0 });
    const loaded = await this.#fromSource(request, callOptions, (loader) => loader.finish(), (made) => this.#keepModel(made), signal, report);
    if (warmup) {
      await this.#models.get(loaded.id)!.warmup(signal);
      report("warmup", 1);
    }
    return loaded;
  }

  async #newProbe({ backend, threads, options }: Calls["newProbe"]["request"], signal: AbortSignal): Promise<Loaded<GlueProbeInfo>> {
    const reason = await this.#open(backend, threads);
    throwIfAborted(signal);
    const instance = this.#instance!;
    const { hiddenSize, depth, heads, mlpHidden, labels, seed } = options;
    return { ...this.#keepProbe(instance.call(() => instance.glue.Probe.create(hiddenSize, depth, heads, mlpHidden, JSON.stringify(labels), seed))), ...reason };
  }

  async #train(request: TrainRequest, callOptions: CallOptions, signal: AbortSignal): Promise<Loaded<GlueTrainerInfo>> {
    if (request.kind === "checkpoint") return this.#fromSource(request.load, callOptions, (loader) => loader.finishTrainer(request.options), (made) => this.#keepTrainer(made), signal);
    const report = progressReporter(callOptions.onProgress, { compile: 50, upload: 50 });
    const reason = await this.#open(request.backend, request.threads);
    report("compile", 1);
    throwIfAborted(signal);
    const instance = this.#instance!;
    const file = request.kind === "save" ? new Uint8Array(await request.file.arrayBuffer()) : undefined;
    const loaded = this.#keepTrainer(
      await instance.run(() => (request.kind === "save" ? instance.glue.Trainer.resume(file!, {}) : instance.glue.Trainer.create(request.options))),
    );
    throwIfAborted(signal);
    report("upload", 1);
    return { ...loaded, ...reason };
  }

  /** Starts the module while the checkpoint is being found, then makes something of it, and keeps that. */
  async #fromSource<T, Info>(
    request: LoadRequest,
    callOptions: CallOptions,
    finish: Parameters<typeof fromCheckpoint<T>>[3],
    keep: (made: T) => Loaded<Info>,
    signal: AbortSignal,
    report: Report = progressReporter(callOptions.onProgress, { compile: 10, download: 70, upload: 20 }),
  ): Promise<Loaded<Info>> {
    const { made, ...rest } = await this.#made(request, passageOf(request, callOptions), finish, report, signal);
    const loaded = keep(made);
    throwIfAborted(signal);
    report("upload", 1);
    return { ...loaded, ...rest };
  }

  async #made<T>(
    { source, backend, threads, options }: LoadRequest,
    passage: Passage,
    finish: Parameters<typeof fromCheckpoint<T>>[3],
    report: Report,
    signal: AbortSignal,
  ): Promise<{ made: T } & Opened & Pick<Loaded<unknown>, "cacheFailure">> {
    const opening = this.#open(backend, threads);
    const opened = opening.then(() => report("compile", 1));
    const attempt = async (signal: AbortSignal) => {
      const [reason, checkpoint] = await Promise.all([opening, openCheckpoint(source, options, passage, signal), opened]).catch(async (error) => {
        // An instance that comes up after the failure must be known, to be released.
        await opened.catch(() => {});
        throw error;
      });
      throwIfAborted(signal);
      return { made: await fromCheckpoint(this.#instance!, checkpoint, options, finish, report, signal), ...reason };
    };
    const { cache } = passage;
    if (!cache) return attempt(signal);
    const made = await this.#withCache(cache, options, attempt, signal);
    await cache.finish();
    return { ...made, ...(cache.failure === undefined ? {} : { cacheFailure: cache.failure }) };
  }

  /** Files that are no good are not kept; where they had been, others may be on the server by now. */
  async #withCache<T>(cache: ModelCache, { preset, encoder = "auto" }: LoadRequest["options"], attempt: (signal: AbortSignal) => Promise<T>, signal: AbortSignal): Promise<T> {
    // What does not fit a wish of the caller's may be good files.
    const wished = preset !== undefined || encoder !== "auto";
    const blames = (error: unknown) => cache.outdated || (wished ? /^(integrity|bad-checkpoint)$/.test(toJepaError(error).code) : isOfFiles(error));
    try {
      return await this.#linked(signal, attempt);
    } catch (error) {
      await cache.settled();
      if (!blames(error) || !(await cache.forget())) throw error;
      try {
        return await this.#linked(signal, attempt);
      } catch (again) {
        await cache.settled();
        if (blames(again)) await cache.forget();
        // Without a network there are no others.
        throw toJepaError(again).code === "network" ? error : again;
      }
    }
  }

  /** Opens an instance; gives the reason when "auto" had to do without WebGPU. */
  async #open(requested: Backend | "auto", threads: number | "auto"): Promise<Opened> {
    const { backend, reason } = await chooseBackend(requested);
    if (backend === "cpu") return this.#openCpu(threads, reason);
    try {
      this.#instance = await Instance.open(backend, this.#lose);
      return { threads: 1 };
    } catch (error) {
      const { code, message } = toJepaError(error);
      if (requested !== "auto" || code !== "no-webgpu") throw error;
      return this.#openCpu(threads, message);
    }
  }

  /** Where threads cannot be started, as under a policy that forbids workers of workers, one computes. */
  async #openCpu(wanted: number | "auto", fallbackReason: string | undefined): Promise<Opened> {
    const open = (threads: number) => Instance.open("cpu", this.#lose, threads);
    const threads = threadsFor(wanted);
    this.#instance = threads > 1 ? await open(threads).catch(() => open(1)) : await open(1);
    return { threads: this.#instance.threads, ...(fallbackReason === undefined ? {} : { fallbackReason }) };
  }

  readonly #check = (signal: AbortSignal | undefined): void => {
    throwIfAborted(signal);
    throwIfAborted(this.#closing.signal);
  };

  #keepModel(made: GlueModel): Loaded<GlueModelInfo> {
    const model = new LocalModel(this.#instance!, made, this.#check);
    const id = this.#nextId++;
    this.#models.set(id, model);
    return { id, info: model.info };
  }

  #keepWorld(made: GlueWorld): Loaded<GlueWorldInfo> {
    const world = new LocalWorld(this.#instance!, made, this.#check);
    const id = this.#nextId++;
    this.#worlds.set(id, world);
    return { id, info: world.info };
  }

  #keepProbe(made: GlueProbe): Loaded<GlueProbeInfo> {
    const probe = new LocalProbe(this.#instance!, made, this.#check);
    const id = this.#nextId++;
    this.#probes.set(id, probe);
    return { id, info: probe.info };
  }

  #keepTrainer(made: GlueTrainer): Loaded<GlueTrainerInfo> {
    const trainer = new LocalTrainer(this.#instance!, made, this.#check);
    const id = this.#nextId++;
    this.#trainers.set(id, trainer);
    return { id, info: trainer.info };
  }

  #free(id: number): undefined {
    for (const residents of [this.#models, this.#trainers, this.#worlds, this.#probes]) {
      residents.get(id)?.free();
      residents.delete(id);
    }
  }

  close(): void {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort();
    this.#releaseIfIdle();
  }

  #releaseIfIdle(): void {
    if (!this.#closing.signal.aborted || this.#busy > 0 || !this.#instance) return;
    if (!this.#instance.lost) for (const residents of [this.#models, this.#trainers, this.#worlds, this.#probes]) for (const resident of residents.values()) resident.free();
    this.#instance.release(this.#lose);
    this.#instance = undefined;
  }
}

function passageOf({ cache, integrity, init }: LoadRequest, { cache: custom }: CallOptions): Passage {
  const store = cache === "opfs" ? opfsStorage() : custom;
  return { cache: store && new ModelCache(store), integrity, init };
}
