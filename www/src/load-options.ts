// How a checkpoint is loaded, whatever is made of it.

import type { CustomCache } from "./cache.js";
import { JepaError, messageOf, throwIfAborted } from "./errors.js";
import { Resident, type Advice, type LossListeners, type Make } from "./host.js";
import type { RequestOptions } from "./http.js";
import { parseIntegrity } from "./integrity.js";
import { anything, checkFields, oneOf, whole, type Rule } from "./options.js";
import type { Calls, Loaded, LoadRequest } from "./protocol.js";
import type { Backend, Dtype, ModelConfig, ModelPreset, Progress } from "./types.js";
import { describeSource, type ModelSource } from "./weights.js";

export interface LoadOptions extends LossListeners {
  /** Default `"auto"`: WebGPU where {@link probeDevice} finds it usable, else the CPU. */
  backend?: Backend | "auto" | undefined;
  /** How weights are kept. Default `"auto"`: `"f32"`, which is exact; `"f16"` halves and `"q8"` quarters the memory. */
  dtype?: Dtype | "auto" | undefined;
  /** Compute in a dedicated worker, where the runtime has them and the library comes from `webjepa`, not `webjepa/core`. Default true; false computes in this thread. */
  worker?: boolean | undefined;
  /**
   * Threads that compute where the CPU does, 1 to 64. More than 1 takes a cross-origin isolated page (`Cross-Origin-Opener-Policy: same-origin`
   * and `Cross-Origin-Embedder-Policy: require-corp`), `worker`, and an engine with relaxed SIMD; elsewhere, and where they cannot be
   * started, one computes. The numbers are the same, bit for bit. Default `"auto"`: half of the logical processors, 8 at most.
   */
  threads?: number | "auto" | undefined;
  /** The geometry of a checkpoint that has no `config.json`: a published one by its name, or in numbers. */
  config?: ModelPreset | ModelConfig | undefined;
  /** Which encoder of a training checkpoint, which has two. Default `"auto"`: the target encoder where there is one. */
  encoder?: "auto" | "context" | "target" | undefined;
  /**
   * Default `"auto"`: the predictor is loaded where the checkpoint has one, and with it both encoders where there are two, so that
   * {@link Jepa.predict} works; false saves their memory.
   */
  predictor?: "auto" | false | undefined;
  /**
   * Default `"auto"`: the attentive probe is loaded where the checkpoint has one, as Hugging Face's V-JEPA 2 classifiers do, so that
   * {@link Jepa.classify} works; false saves its memory.
   */
  classifier?: "auto" | false | undefined;
  /** Run the model once while loading, so that the first `embed` is as fast as the others. Default false. */
  warmup?: boolean | undefined;
  /** Told how far the load has come, about twenty times a second. */
  onProgress?: ((progress: Progress) => void) | undefined;
  /** Aborts the load. */
  signal?: AbortSignal | undefined;
  /**
   * Where files that come over HTTP(S) are kept, so that the next load needs no network. `"opfs"`: the origin private file system of the
   * page; see {@link opfsCache}. Or a place of your own. Default `"none"`: the browser's HTTP cache is all the cache there is.
   *
   * What is kept is not compared with the server again, except where a part is missing. A download that broke off is taken up where it
   * ended. Where a cache cannot be used, as OPFS in Node, the load goes on without it, and {@link Jepa.cacheFailure} says why.
   */
  cache?: "opfs" | "none" | CustomCache | undefined;
  /**
   * What files must be, by their names without folders: hashes as in W3C Subresource Integrity, such as
   * `{ "model.safetensors": "sha256-…" }` with the digest in base64. Also `sha384` and `sha512`; of several, separated by spaces, the
   * strongest kind counts. Such a file is read whole, from wherever it comes, and there is no model before it has been checked.
   */
  integrity?: Readonly<Record<string, string>> | undefined;
  /**
   * What requests over HTTP(S) are made with, as `fetch` takes it: headers of your own, such as `{ Authorization: "Bearer …" }`, and whether
   * cookies go along. It goes with every file of the model, to whatever server the source names, which must allow the headers by CORS
   * where it is another than the page's. Default: no headers, and cookies to the page's own server only.
   */
  requestInit?: { headers?: HeadersInit | undefined; credentials?: RequestCredentials | undefined } | undefined;
}

export const BACKENDS: readonly unknown[] = ["auto", "webgpu", "cpu"];
const DTYPES: readonly unknown[] = ["auto", "f32", "f16", "q8"];
const ENCODERS: readonly unknown[] = ["auto", "context", "target"];
const CACHES: readonly unknown[] = ["opfs", "none"];
const AUTO_OR_NOT: readonly unknown[] = ["auto", false];
export const THREADS: Rule = { what: '"auto" or a whole number from 1 to 64', allows: (value) => value === "auto" || (whole(1).allows(value) && (value as number) <= 64) };
const CREDENTIALS: readonly unknown[] = ["omit", "same-origin", "include"];
const REQUEST: Record<keyof NonNullable<LoadOptions["requestInit"]>, Rule> = { headers: anything, credentials: anything };

/** What calls make of a checkpoint. */
type FromCheckpoint = "load" | "world" | "probe";
type InfoOf<K extends FromCheckpoint> = Calls[K]["result"] extends Loaded<infer Info> ? Info : never;

/**
 * Makes something of a checkpoint in an engine of its own, and again after a loss.
 *
 * @param special - what the call needs to be told beside what its caller may say
 */
export async function settled<K extends FromCheckpoint>(call: K, source: ModelSource, options: LoadOptions, advice: Advice, special: Partial<LoadRequest["options"]> = {}): Promise<Resident<InfoOf<K>>> {
  const { signal, worker = true, onProgress, onLost, onRecovered } = options;
  throwIfAborted(signal);
  const request = loadRequest(source, options);
  Object.assign(request.options, special);
  const cache = customCache(options.cache);
  const make: Make<InfoOf<K>> = (engine, each) => engine.call(call, request, { ...each, cache }) as Promise<Loaded<InfoOf<K>>>;
  return Resident.settle(make, { worker, again: make, advice, signal, onProgress, onLost, onRecovered });
}

/** Checks everything, and brings it into a form that can be posted to a worker. */
export function loadRequest(source: ModelSource, options: LoadOptions): LoadRequest {
  const { backend = "auto", threads = "auto", dtype = "auto", encoder = "auto", predictor = "auto", classifier = "auto", config, cache = "none", integrity = {}, requestInit = {}, warmup = false } = options;
  oneOf("dtype", dtype, DTYPES);
  checkFields("", { threads }, { threads: THREADS });
  return {
    source: describeSource(source),
    backend: oneOf("backend", backend, BACKENDS),
    threads,
    options: {
      dtype: dtype === "auto" ? "f32" : dtype,
      encoder: oneOf("encoder", encoder, ENCODERS),
      predictor: oneOf("predictor", predictor, AUTO_OR_NOT) === "auto",
      classifier: oneOf("classifier", classifier, AUTO_OR_NOT) === "auto",
      ...(config === undefined ? {} : { preset: config }),
    },
    warmup,
    cache: customCache(cache) ? "custom" : oneOf("cache", cache as "opfs" | "none", CACHES),
    integrity: parseIntegrity(integrity),
    init: requestOptions(requestInit),
  };
}

/** The caller's own cache, where the option is one. */
export function customCache(cache: LoadOptions["cache"]): CustomCache | undefined {
  if (typeof cache !== "object" || cache === null) return undefined;
  if ([cache.get, cache.set, cache.delete].every((method: unknown) => typeof method === "function")) return cache;
  throw new JepaError("bad-input", 'The option cache is "opfs", "none", or an object with the methods get, set and delete.');
}

function requestOptions(init: NonNullable<LoadOptions["requestInit"]>): RequestOptions {
  checkFields("requestInit", init, REQUEST);
  const { headers, credentials } = init;
  if (credentials !== undefined) oneOf("requestInit.credentials", credentials, CREDENTIALS);
  return { headers: headersOf(headers), ...(credentials === undefined ? {} : { credentials }) };
}

function headersOf(given: HeadersInit | undefined): [name: string, value: string][] {
  let headers: Headers;
  try {
    headers = new Headers(given);
  } catch (error) {
    throw new JepaError("bad-input", `The option requestInit.headers is none that fetch takes: ${messageOf(error)}`, { cause: error });
  }
  if (headers.has("range")) throw new JepaError("bad-input", "The option requestInit.headers cannot have Range: files are read in ranges of the library's own choice.");
  return [...headers];
}
