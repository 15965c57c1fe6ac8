/** Every code that a {@link JepaError} can have. */
export const ERROR_CODES = [
  "bad-config",
  "bad-checkpoint",
  "missing-tensor",
  "shape-mismatch",
  "unsupported",
  "bad-input",
  "bad-mask",
  "no-webgpu",
  "device-lost",
  "out-of-memory",
  "network",
  "integrity",
  "aborted",
  "disposed",
  "internal",
] as const;

/**
 * What went wrong, as a closed union that programs can switch on:
 *
 * | code | meaning |
 * |---|---|
 * | `bad-config` | a model configuration that is malformed, contradictory or out of bounds |
 * | `bad-checkpoint` | bytes that are not a readable checkpoint, or values that cannot be weights |
 * | `missing-tensor` | a well-formed checkpoint without tensors that the model needs; all their names are in the message |
 * | `shape-mismatch` | a tensor whose shape is not the one that the configuration asks for |
 * | `unsupported` | a valid request that this version or this device cannot serve |
 * | `bad-input` | a picture or an argument that cannot be used |
 * | `bad-mask` | token indices that are out of range, empty or contradictory |
 * | `no-webgpu` | WebGPU was asked for and is not there, or its adapter lacks what is needed |
 * | `device-lost` | the GPU device was lost during the call; a model starts again at the next call, a trainer with `autosave` from its last save |
 * | `out-of-memory` | an allocation that does not fit |
 * | `network` | a file that could not be fetched completely |
 * | `integrity` | a file whose hash is not the expected one; both are in the message |
 * | `aborted` | the caller's `AbortSignal` fired; its reason is the `cause` |
 * | `disposed` | use of a model or trainer after (or during) `dispose()` |
 * | `internal` | a defect of this library or of a layer below it |
 */
export type JepaErrorCode = (typeof ERROR_CODES)[number];

/** The only class of error that this library throws. */
export class JepaError extends Error {
  /** Stable across versions; the message is not. */
  readonly code: JepaErrorCode;

  /**
   * @param code - what kind of failure this is
   * @param message - a sentence that says what to do about it
   * @param options - `cause`: the error underneath, if any
   */
  constructor(code: JepaErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

// On the prototype, as for the built-in errors, so that it is no enumerable property of every error.
Object.defineProperty(JepaError.prototype, "name", { value: "JepaError", configurable: true, writable: true });

/** The code that an error of the wasm module carries; none on a crash or on an error from elsewhere. */
export function codeOf(error: unknown): JepaErrorCode | undefined {
  const code: unknown = error instanceof Error && "code" in error ? error.code : undefined;
  return ERROR_CODES.find((known) => known === code);
}

/** The message of anything that can be thrown. */
export function messageOf(error: unknown): string {
  if (error instanceof Error) return error.message || error.name;
  return String(error);
}

/** `error` itself when it is a JepaError, a JepaError with its code when the wasm module gave it one, else `internal`. */
export function toJepaError(error: unknown): JepaError {
  if (error instanceof JepaError) return error;
  const code = codeOf(error);
  if (code) return new JepaError(code, messageOf(error), { cause: error });
  return crashError(error);
}

/** For an error that no layer below has a code for: the wasm instance trapped, or the browser refused something. */
export function crashError(error: unknown, memoryIsFull = false): JepaError {
  const message = messageOf(error);
  return memoryIsFull || error instanceof RangeError
    ? new JepaError("out-of-memory", `There is not enough memory for this (${message}). Use a smaller model, dtype "f16" or smaller pictures.`, { cause: error })
    : new JepaError("internal", `webjepa failed unexpectedly: ${message}. Please report this.`, { cause: error });
}

/** For what starting a wasm module threw; any other error as it is. */
export function compileError(error: unknown): unknown {
  if (!(error instanceof WebAssembly.CompileError)) return error;
  const hint = "It needs WebAssembly with SIMD, and 'wasm-unsafe-eval' where the page has a content security policy.";
  return new JepaError("unsupported", `The wasm module cannot be compiled here: ${error.message} ${hint}`, { cause: error });
}

/** What others' code gives, whose errors become the library's. */
export async function told<T>(what: string, task: () => T | Promise<T>): Promise<T> {
  try {
    return await task();
  } catch (error) {
    throw error instanceof JepaError ? error : new JepaError("bad-input", `${what}: ${messageOf(error)}`, { cause: error });
  }
}

export function abortError(signal: AbortSignal): JepaError {
  return new JepaError("aborted", "The call was aborted.", { cause: signal.reason });
}

export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw abortError(signal);
}

/** `promise`, or a rejection with code `aborted` as soon as `signal` fires. */
export async function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise;
  let onAbort: () => void;
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(abortError(signal));
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort);
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort!);
  }
}
