// A file on a web server: one ranged request where one will do, taken up again where a connection breaks.

import { inNode } from "./environment.js";
import { abortable, abortError, JepaError, messageOf } from "./errors.js";
import type { ByteSource } from "./files.js";

/** Attempts in a row that may bring no byte before reading is given up. */
const RETRIES = 4;
const FIRST_DELAY = 200;

/** A status that says "there is no such file". */
const ABSENT = new Set([404, 410]);
/** A status that another attempt can heal. */
const PASSING = new Set([408, 425, 429, 500, 502, 503, 504]);

/** What the caller of a load adds to its requests, in a form that can be posted to a worker. */
export interface RequestOptions {
  headers: [name: string, value: string][];
  credentials?: RequestCredentials;
}

export interface HttpOptions {
  /** Whether the file may be absent. */
  optional?: boolean;
  init: RequestOptions;
  signal: AbortSignal | undefined;
}

/** Undefined when the server says that there is no such file; with `optional` also when it forbids it, or sends a web page instead. */
export async function httpSource(url: string, { optional = false, init, signal }: HttpOptions): Promise<HttpFile | undefined> {
  const file = new HttpFile(url, init);
  const response = await file.request(0, signal);
  const page = response.headers.get("content-type")?.startsWith("text/html") === true;
  // Stores answer 403 for names that do not exist; development servers answer with their start page.
  const absent = ABSENT.has(response.status) || (optional && (response.status === 403 || page));
  if (absent || !response.ok) await response.body?.cancel();
  if (absent) return undefined;
  if (!response.ok && response.status !== 416) throw statusError(url, response.status);
  if (page) {
    await response.body?.cancel();
    throw new JepaError("network", `${url} is a web page, not a model file.`);
  }
  return file;
}

export function statusError(url: string, status: number): JepaError {
  return new JepaError("network", `The server answered ${status} for ${url}.`);
}

/** `fetch` with its failures as JepaErrors. */
export async function fetchFrom(url: string, init: RequestInit, signal: AbortSignal | undefined): Promise<Response> {
  const attempt = () => fetch(url, { ...init, signal: signal ?? null });
  try {
    // Node, unlike browsers, does not ask again by itself when a kept connection turns out to have been closed.
    return await (inNode ? attempt().catch((error) => (isReset(error) ? attempt() : Promise.reject(error))) : attempt());
  } catch (error) {
    if (signal?.aborted) throw abortError(signal);
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    const hint = inNode ? "" : " Check the address, the connection, and whether the server allows this site (CORS).";
    throw new JepaError("network", `${url} could not be fetched: ${messageOf(cause)}.${hint}`, { cause: error });
  }
}

/** Whether a connection ended before any answer. */
function isReset(error: unknown): boolean {
  const cause = error instanceof Error ? error.cause : undefined;
  return cause instanceof Error && "code" in cause && (cause.code === "ECONNRESET" || cause.code === "UND_ERR_SOCKET");
}

/** What tells a version of a file from others. */
export interface FileVersion {
  size?: number | undefined;
  /** Its `ETag`, or else its `Last-Modified`. */
  tag?: string | undefined;
}

/** Whether two versions differ in what is known of both. */
export function isOther(a: FileVersion, b: FileVersion): boolean {
  return (a.size !== undefined && b.size !== undefined && a.size !== b.size) || (a.tag !== undefined && b.tag !== undefined && a.tag !== b.tag);
}

export class HttpFile implements ByteSource {
  readonly label: string;
  readonly #init: RequestOptions;
  #size: number | undefined;
  #tag: string | undefined;
  #changed = false;
  #first: Response | undefined;

  /** With the version to which other bytes of the file belong, where there are any. */
  constructor(url: string, init: RequestOptions, { size, tag }: FileVersion = {}) {
    this.label = url;
    this.#init = init;
    this.#size = size;
    this.#tag = tag;
  }

  get version(): FileVersion {
    return { size: this.#size, tag: this.#tag };
  }

  /** Whether the server has given another version than before. */
  get changed(): boolean {
    return this.#changed;
  }

  size(): number | undefined {
    return this.#size;
  }

  /** Asks for everything from `start` on; an open end is what lets `Content-Length` give the size where CORS hides `Content-Range`. */
  async request(start: number, signal: AbortSignal | undefined): Promise<Response> {
    const response = await fetchFrom(this.label, { ...this.#init, headers: [...this.#init.headers, ["Range", `bytes=${start}-`]] }, signal);
    if (response.ok) this.#learn(response, start);
    if (response.status === 416 && start === 0) this.#size = 0;
    if (start === 0) this.#first = response;
    return response;
  }

  /** Notes the size of the file, and that it is still the same file. */
  #learn(response: Response, start: number): void {
    const { headers } = response;
    const range = headers.get("content-range")?.match(/^bytes (\d+)-\d+\/(\d+|\*)$/);
    if (range && Number(range[1]) !== start) {
      throw new JepaError("network", `The server of ${this.label} was asked for bytes from ${start} and sent them from ${range[1]}.`);
    }
    const length = headers.get("content-length");
    let size: number | undefined;
    if (range && range[2] !== "*") size = Number(range[2]);
    // A compressed body has another length.
    else if (length !== null && !headers.has("content-encoding")) size = Number(length) + (response.status === 206 ? start : 0);
    // Servers of other sites seldom show their ETag.
    const tag = headers.get("etag") ?? headers.get("last-modified") ?? undefined;
    this.#changed = isOther(this.version, { size, tag });
    if (this.#changed) throw new JepaError("network", `${this.label} changed on the server while it was being read; load it again.`);
    this.#size ??= size;
    this.#tag ??= tag;
  }

  async *from(start: number, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array, void> {
    let position = start;
    let attempts = 0;
    for (;;) {
      let failure: unknown;
      const before = position;
      try {
        for await (const chunk of this.#body(position, signal)) {
          position += chunk.length;
          yield chunk;
        }
      } catch (error) {
        if (signal?.aborted) throw abortError(signal);
        if (error instanceof JepaError) throw error;
        failure = error;
      }
      // Without a length the end of an unbroken body is the end of the file.
      if (!failure) this.#size ??= position;
      if (position >= (this.#size ?? Infinity)) return;
      attempts = position > before ? 1 : attempts + 1;
      if (attempts > RETRIES) {
        const how = failure ? messageOf(failure) : "the connection was closed";
        throw new JepaError("network", `${this.label} broke off after ${position} of ${this.#size ?? "an unknown number of"} bytes, and ${RETRIES} more attempts did not help: ${how}.`, { cause: failure });
      }
      if (position === before) await abortable(new Promise((resolve) => setTimeout(resolve, FIRST_DELAY * 2 ** attempts)), signal);
    }
  }

  /** The body from `start` on as one connection brings it. Throws anything but a JepaError where another attempt may help. */
  async *#body(start: number, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array, void> {
    const first = start === 0 ? this.#first : undefined;
    this.#first = undefined;
    let response = first;
    if (!response) {
      try {
        response = await this.request(start, signal);
        this.#first = undefined;
      } catch (error) {
        throw error instanceof JepaError && error.code === "network" && error.cause ? error.cause : error;
      }
    }
    if (response.status === 416) {
      if (this.#size === undefined || start >= this.#size) return;
      throw new JepaError("network", `${this.label} ends before byte ${start}, although its server gives its length as ${this.#size}.`);
    }
    if (!response.ok) {
      await response.body?.cancel();
      const error = statusError(this.label, response.status);
      throw PASSING.has(response.status) ? new Error(error.message) : error;
    }
    if (!response.body) return;
    // A server without ranges sends the file from its start.
    let skip = response.status === 206 ? 0 : start;
    const reader = response.body.getReader();
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        const dropped = Math.min(skip, value.length);
        skip -= dropped;
        if (dropped < value.length) yield value.subarray(dropped);
      }
    } finally {
      reader.cancel().catch(() => {});
    }
  }
}
