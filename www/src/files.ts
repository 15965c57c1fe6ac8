// Files as streams of bytes that can be entered anywhere: over HTTP, from Blobs, from a disk.

import { abortable, JepaError, messageOf, throwIfAborted } from "./errors.js";
import { inNode, macrotask } from "./environment.js";
import type { Verifier } from "./integrity.js";

/** A file that can be read from any position on. */
export interface ByteSource {
  /** What messages call it. */
  readonly label: string;
  /** Its length in bytes; undefined where a server does not tell. */
  size(): number | undefined;
  /** Everything from `start` to the end, in chunks of any size, each valid until the next is asked for. */
  from(start: number, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array, void>;
  /** Whether everything that was read of it came from this library's own cache. */
  readonly fromCache?: boolean;
}

export interface Folder {
  readonly label: string;
  /** The names in it; undefined where they cannot be listed. */
  readonly names?: string[];
  /** The file that was named when a file was opened rather than a folder. */
  readonly file?: string;
  /** Undefined when there is no such file. `optional`: whether that is no failure for a file that models have, either. */
  open(name: string, signal: AbortSignal | undefined, optional?: boolean): Promise<ByteSource | undefined>;
}

export type Location = { kind: "url"; href: string } | { kind: "path"; path: string };

/** Where an address points: relative to the page or worker, and in Node to the working directory. */
export function locate(address: string, what: string): Location {
  // A single letter before the colon is a drive.
  const isUrl = /^[a-z][a-z0-9+.-]+:/i.test(address);
  if (inNode && !isUrl && address !== "") return { kind: "path", path: address };
  try {
    const base = isUrl || inNode ? undefined : typeof document === "object" ? document.baseURI : globalThis.location.href;
    if (address === "") throw new Error("it is empty");
    return { kind: "url", href: new URL(address, base).href };
  } catch (error) {
    throw new JepaError("bad-input", `"${address}" is no address of ${what}: ${messageOf(error)}.`, { cause: error });
  }
}

/** Gaps up to this length are read and dropped; beyond, a new request costs less. */
const SKIP = 4 << 20;
/** Longest chunk that is handed on: bounds what the wasm heap needs beside the weights. */
const MAX_CHUNK = 1 << 20;
/** How long chunks may follow each other without giving the event loop a turn, in milliseconds. */
const PATIENCE = 20;

/**
 * Cuts byte ranges out of a source, with as few streams as their order allows. With a verifier that is one stream through the whole
 * file, which ends with {@link Reader.verify}.
 */
export class Reader {
  readonly #source: ByteSource;
  readonly #signal: AbortSignal | undefined;
  #verifier: Verifier | undefined;
  /** What was read ahead of the verifier. */
  readonly #peeked: { begin: number; bytes: Uint8Array }[] = [];
  #stream: AsyncGenerator<Uint8Array, void> | undefined;
  #position = 0;
  #rest: Uint8Array = new Uint8Array(0);
  #turn = performance.now();

  constructor(source: ByteSource, signal: AbortSignal | undefined, verifier?: Verifier) {
    this.#source = source;
    this.#signal = signal;
    this.#verifier = verifier;
  }

  get label(): string {
    return this.#source.label;
  }

  get size(): number | undefined {
    return this.#source.size();
  }

  get fromCache(): boolean {
    return this.#source.fromCache ?? false;
  }

  /** The bytes from `begin` to `end` in chunks of at most 1 MiB, each valid until the next is asked for. */
  async *range(begin: number, end: number): AsyncGenerator<Uint8Array, void> {
    if (this.#verifier) {
      // Read again, they could be other bytes than those that were hashed.
      if (begin < this.#position) throw new JepaError("unsupported", `${this.label} has tensors that share bytes, so its hash cannot be checked while it is read. Convert it to safetensors.`);
    } else if (begin < this.#position || begin > this.#position + this.#rest.length + SKIP) {
      this.close();
      this.#position = begin;
    }
    while (this.#position < end) {
      if (!(await this.#more())) throw new JepaError("bad-checkpoint", `${this.label} ends after ${this.#position} bytes, but ${end} are needed: the file is truncated.`);
      const start = Math.min(Math.max(begin - this.#position, 0), this.#rest.length);
      const chunk = this.#take(Math.min(end - this.#position, this.#rest.length, start + MAX_CHUNK)).subarray(start);
      if (chunk.length > 0) yield chunk;
    }
  }

  /** Makes sure that there are bytes to take; false at the end of the file. */
  async #more(): Promise<boolean> {
    if (performance.now() - this.#turn > PATIENCE) {
      await macrotask();
      this.#turn = performance.now();
    }
    throwIfAborted(this.#signal);
    if (this.#rest.length > 0) return true;
    this.#stream ??= this.#source.from(this.#position, this.#signal);
    const { done, value } = await abortable(this.#stream.next(), this.#signal);
    if (!done) this.#rest = value;
    return !done;
  }

  #take(length: number): Uint8Array {
    const taken = this.#rest.subarray(0, length);
    this.#verifier?.update(taken);
    for (const { begin, bytes } of this.#peeked) {
      const from = Math.max(begin, this.#position);
      const to = Math.min(begin + bytes.length, this.#position + length);
      for (let at = from; at < to; at++) {
        if (taken[at - this.#position] !== bytes[at - begin]) throw new JepaError("integrity", `${this.label} had other bytes when they were read again; load it again.`);
      }
    }
    this.#rest = this.#rest.subarray(length);
    this.#position += length;
    return taken;
  }

  /** Reads what is left, and throws `integrity` when the file is not the one that was expected. Without a verifier it does nothing. */
  async verify(): Promise<void> {
    const verifier = this.#verifier;
    if (!verifier) return;
    while (await this.#more()) this.#take(Math.min(this.#rest.length, MAX_CHUNK));
    this.#verifier = undefined;
    verifier.check(this.label);
  }

  /** The same as {@link Reader.bytes}, in any order also where the file is verified. */
  async peek(begin: number, end: number): Promise<Uint8Array<ArrayBuffer>> {
    if (!this.#verifier) return this.bytes(begin, end);
    const ahead = new Reader(this.#source, this.#signal);
    try {
      const bytes = await ahead.bytes(begin, end);
      this.#peeked.push({ begin, bytes: bytes.slice() });
      return bytes;
    } finally {
      ahead.close();
    }
  }

  /** The bytes from `begin` to `end` in one piece. */
  async bytes(begin: number, end: number): Promise<Uint8Array<ArrayBuffer>> {
    const parts: Uint8Array<ArrayBuffer>[] = [];
    for await (const chunk of this.range(begin, end)) parts.push(chunk.slice());
    return join(parts);
  }

  /** Ends the stream, if one is open; the next range opens another. */
  close(): void {
    const stream = this.#stream;
    this.#stream = undefined;
    this.#rest = new Uint8Array(0);
    // Not awaited: a generator ends only after its pending read, which after an abort may be never.
    stream?.return().catch(() => {});
  }
}

/** The whole of a small text file. */
export async function readText(source: ByteSource, limit: number, signal: AbortSignal | undefined, verifier?: Verifier): Promise<string> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let length = 0;
  for await (const chunk of source.from(0, signal)) {
    throwIfAborted(signal);
    length += chunk.length;
    if (length > limit) throw new JepaError("bad-config", `${source.label} is longer than ${limit} bytes, which no such file is.`);
    parts.push(chunk.slice());
  }
  const bytes = join(parts);
  verifier?.update(bytes);
  verifier?.check(source.label);
  return new TextDecoder().decode(bytes);
}

/** One after the other. */
export function join(parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

export function blobSource(label: string, blob: Blob): ByteSource {
  return {
    label,
    size: () => blob.size,
    async *from(start) {
      const reader = blob.slice(start).stream().getReader();
      try {
        for (;;) {
          const { done, value } = await reader.read();
          if (done) return;
          yield value;
        }
      } catch (error) {
        throw new JepaError("bad-input", `${label} cannot be read any more: ${messageOf(error)} Choose the file again.`, { cause: error });
      } finally {
        reader.cancel().catch(() => {});
      }
    },
  };
}
