// Keeps downloaded files of models, in pieces and in any order, so that a second load finds what the first one read.
//
// What is kept is not asked for again: as transformers.js and WebLLM do, a kept file is taken for good, because config and weights belong
// together and a fresh one of the first would not fit kept ones of the second. New files come with a new address, with other hashes in
// the option `integrity`, when the files turn out not to be readable, or after `opfsCache().delete(url)`.

import { abortable, JepaError, messageOf } from "./errors.js";
import { join, type ByteSource } from "./files.js";
import { HttpFile, httpSource, isOther, type FileVersion, type HttpOptions } from "./http.js";
import { isQuotaError } from "./opfs.js";

/** What a {@link CustomCache} can give. */
export type CachedBytes = Uint8Array | ArrayBuffer | Blob;

/**
 * A place for downloaded files of models, on this device or elsewhere: bytes by keys. A `Map` is one, and lasts as long as the page.
 *
 * Files are kept in pieces of about 8 MiB. The key of a piece is the address of its file, `#` and the bytes that it has, as in
 * `https://example.org/model.safetensors#0-8388608`; under the address itself is a JSON text that lists the pieces, written after them.
 * A method that throws or rejects, as where there is no space left, costs the cache and not the load; see {@link Jepa.cacheFailure}.
 *
 * @example
 * import { get, set, del } from "idb-keyval";
 * const jepa = await Jepa.load(url, { cache: { get, set, delete: del } });
 */
export interface CustomCache {
  /** What is kept under a key; undefined where there is nothing. */
  get(key: string): CachedBytes | null | undefined | Promise<CachedBytes | null | undefined>;
  /** Keeps a value, which belongs to the cache from now on, in place of the one before, entirely or not at all. */
  set(key: string, value: Uint8Array<ArrayBuffer>): unknown;
  /** Forgets what is kept under a key; without an error where there is nothing. */
  delete(key: string): unknown;
}

/** A piece ends with the chunk that makes it this long: what is lost of a download when a tab is closed, and what memory it takes. */
const PIECE = 8 << 20;

/** The first byte, and the one after the last. */
type Range = [begin: number, end: number];

/** What is kept of a file. */
export interface CacheRecord extends FileVersion {
  url: string;
  /** The server said that there is no such file. */
  absent?: boolean;
  pieces: Range[];
}

export const pieceKey = (url: string, [begin, end]: Range): string => `${url}#${begin}-${end}`;

/** Undefined for what is no record: one that was damaged counts as none. */
export async function parseRecord(bytes: CachedBytes | null | undefined): Promise<CacheRecord | undefined> {
  if (bytes === undefined || bytes === null) return undefined;
  try {
    const record: unknown = JSON.parse(await new Blob([bytes as BlobPart]).text());
    return isRecord(record) ? record : undefined;
  } catch {
    return undefined;
  }
}

function isRecord(value: unknown): value is CacheRecord {
  const { url, size, tag, pieces } = (value ?? {}) as Partial<Record<keyof CacheRecord, unknown>>;
  const isRange = (range: unknown) => Array.isArray(range) && range.length === 2 && range.every(Number.isSafeInteger) && range[0] >= 0 && range[0] < range[1];
  return (
    typeof url === "string" &&
    (size === undefined || Number.isSafeInteger(size)) &&
    (tag === undefined || typeof tag === "string") &&
    Array.isArray(pieces) &&
    pieces.every(isRange)
  );
}

/** How many different bytes ranges have together. */
export function coverage(ranges: readonly Range[]): number {
  let covered = 0;
  let last = 0;
  for (const [begin, end] of [...ranges].sort(([a], [b]) => a - b)) {
    covered += Math.max(0, end - Math.max(begin, last));
    last = Math.max(last, end);
  }
  return covered;
}

const clipped = (ranges: readonly Range[], [begin, end]: Range): Range[] =>
  ranges.map(([from, to]): Range => [Math.max(from, begin), Math.min(to, end)]).filter(([from, to]) => from < to);

/** The turns of this thread, where there are no Web Locks. */
const turns = new Map<string, Promise<unknown>>();

/** Runs `task` while no other tab, worker or load changes what is kept of a file. */
export async function exclusively<T>(url: string, task: () => Promise<T>): Promise<T> {
  const name = `webjepa-cache ${url}`;
  if (typeof navigator === "object" && navigator.locks) return navigator.locks.request(name, task);
  const turn = (turns.get(name) ?? Promise.resolve()).then(task);
  const settled = turn.catch(() => {}).then(() => void (turns.get(name) === settled && turns.delete(name)));
  turns.set(name, settled);
  return turn;
}

/** The cache as one load uses it. A cache that fails is done without. */
export class ModelCache {
  readonly #store: CustomCache;
  readonly #urls = new Set<string>();
  readonly #absent = new Set<string>();
  readonly #streams = new Set<Promise<void>>();
  #usable = { read: true, write: true };
  #served = false;
  #outdated = false;
  #failure: string | undefined;

  constructor(store: CustomCache) {
    this.#store = store;
  }

  /** Why something was not kept, or could not be read, as a sentence. */
  get failure(): string | undefined {
    return this.#failure;
  }

  /** Whether the server was found to have another version of a file that is kept in part. */
  get outdated(): boolean {
    return this.#outdated;
  }

  /** The same as {@link httpSource}, which is asked when nothing is kept. */
  async open(address: string, options: HttpOptions): Promise<ByteSource | undefined> {
    if (!/^https?:/.test(address)) return httpSource(address, options);
    const url = address.replace(/#.*/s, "");
    this.#urls.add(url);
    const record = await abortable(exclusively(url, () => this.#record(url)), options.signal);
    if (record) {
      this.#served = true;
      return record.absent ? undefined : new CachedFile(this, url, record.pieces, new HttpFile(url, options.init, record));
    }
    const file = await httpSource(url, options);
    if (file) return new CachedFile(this, url, [], file);
    this.#absent.add(url);
    return undefined;
  }

  async #record(url: string): Promise<CacheRecord | undefined> {
    return parseRecord(await this.#get(url));
  }

  async #get(key: string): Promise<CachedBytes | null | undefined> {
    if (!this.#usable.read) return undefined;
    try {
      return await this.#store.get(key);
    } catch (error) {
      this.#fail(error, "read");
      return undefined;
    }
  }

  /** The bytes of a piece from `position` on; undefined where it is gone or damaged. */
  async piece(url: string, range: Range, position: number): Promise<Uint8Array | undefined> {
    const [begin, end] = range;
    const bytes = await this.#get(pieceKey(url, range));
    if (bytes === undefined || bytes === null) return undefined;
    try {
      if (!(bytes instanceof Blob)) {
        const whole = bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes);
        return whole.length === end - begin ? whole.subarray(position - begin) : undefined;
      }
      return bytes.size === end - begin ? new Uint8Array(await bytes.slice(position - begin).arrayBuffer()) : undefined;
    } catch {
      // Deleted since it was opened.
      return undefined;
    }
  }

  /** Keeps bytes of a version of a file from `begin` on. False when they are not wanted any more. */
  async keep(url: string, version: FileVersion, begin: number, bytes: Uint8Array<ArrayBuffer>): Promise<boolean> {
    if (!this.#usable.write) return false;
    try {
      return await exclusively(url, async () => {
        const before = await this.#record(url);
        const { absent: _, ...kept } = before ?? { url, pieces: [] };
        // Another tab keeps a newer version, or an older one that the next load will find out about.
        if (!this.#usable.write || isOther(kept, version)) return false;
        const range: Range = [begin, begin + bytes.length];
        const isNew = coverage(clipped(kept.pieces, range)) < bytes.length;
        if (isNew) await this.#store.set(pieceKey(url, range), bytes);
        const record: CacheRecord = { ...kept, ...defined(version), pieces: isNew ? [...kept.pieces, range] : kept.pieces };
        // Only now that they are there, so that a crash at any moment leaves no record of bytes that are not.
        if (isNew || before === undefined || record.size !== before.size || record.tag !== before.tag) await this.#write(record);
        return true;
      });
    } catch (error) {
      this.#fail(error, "write");
      return false;
    }
  }

  /** Takes a piece that is gone or damaged off the record, so that it is kept again. */
  async lose(url: string, [begin, end]: Range): Promise<void> {
    if (!this.#usable.write) return;
    try {
      await exclusively(url, async () => {
        const record = await this.#record(url);
        if (record) await this.#write({ ...record, pieces: record.pieces.filter((range) => range[0] !== begin || range[1] !== end) });
      });
    } catch (error) {
      this.#fail(error, "write");
    }
  }

  async #write(record: CacheRecord): Promise<void> {
    await this.#store.set(record.url, new TextEncoder().encode(JSON.stringify(record)));
  }

  /** Notes a stream that may be going to keep what it has read; the result is called when it has. */
  track(): () => void {
    let end!: () => void;
    const ended = new Promise<void>((resolve) => (end = resolve)).finally(() => this.#streams.delete(ended));
    this.#streams.add(ended);
    return end;
  }

  /** When everything that is being written is written. */
  async settled(): Promise<void> {
    while (this.#streams.size > 0) await Promise.all(this.#streams);
  }

  /** A file is kept in part, and its server has another version now. */
  noticeChange(): void {
    this.#outdated = true;
  }

  /** After a load that ended well: keeps what is left to keep. Which files do not exist is only certain now. */
  async finish(): Promise<void> {
    await this.settled();
    if (!this.#usable.write) return;
    try {
      for (const url of this.#absent) await exclusively(url, async () => (await this.#record(url)) ?? (await this.#write({ url, absent: true, pieces: [] })));
    } catch (error) {
      this.#fail(error, "write");
    }
  }

  /** After a load whose files were no good: drops them. Whether any was kept, so that another attempt would have others. */
  async forget(): Promise<boolean> {
    await this.settled();
    const served = this.#served;
    this.#served = false;
    this.#outdated = false;
    try {
      for (const url of this.#urls) await exclusively(url, () => removeRecord(this.#store, url));
    } catch (error) {
      // What could not be dropped must not be read again.
      this.#fail(error, "read");
    }
    this.#urls.clear();
    this.#absent.clear();
    return served;
  }

  /** Who cannot read cannot know what to write. */
  #fail(error: unknown, doing: "read" | "write"): void {
    this.#usable = { read: this.#usable.read && doing === "write", write: false };
    if (isQuotaError(error)) this.#failure ??= "There is no space left in the storage that the browser grants this site: what did not fit is downloaded again by the next load. Delete something, for example with opfsCache().delete().";
    else this.#failure ??= error instanceof JepaError ? error.message : `The cache failed (${messageOf(error)}): the next load downloads again what it did not keep.`;
  }
}

async function removeRecord(store: CustomCache, url: string): Promise<void> {
  const record = await parseRecord(await store.get(url));
  await store.delete(url);
  for (const range of record?.pieces ?? []) await store.delete(pieceKey(url, range));
}

/** Without what is not known. */
function defined({ size, tag }: FileVersion): FileVersion {
  return { ...(size === undefined ? {} : { size }), ...(tag === undefined ? {} : { tag }) };
}

/** A file on a web server, of which some pieces are kept. */
class CachedFile implements ByteSource {
  readonly label: string;
  readonly #cache: ModelCache;
  #pieces: Range[];
  readonly #http: HttpFile;
  #keeping = true;
  fromCache = true;

  constructor(cache: ModelCache, url: string, pieces: Range[], http: HttpFile) {
    this.label = url;
    this.#cache = cache;
    this.#pieces = pieces;
    this.#http = http;
  }

  size(): number | undefined {
    return this.#http.size();
  }

  async *from(start: number, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array, void> {
    const ended = this.#cache.track();
    try {
      for (let position = start; position < (this.size() ?? Infinity); ) {
        const piece = this.#pieces.filter(([begin, end]) => begin <= position && position < end).reduce<Range | undefined>((a, b) => (a && a[1] >= b[1] ? a : b), undefined);
        if (!piece) {
          const next = Math.min(...this.#pieces.map(([begin]) => begin).filter((begin) => begin > position));
          const reached = yield* this.#download(position, next, signal);
          if (reached < next) return;
          position = reached;
          continue;
        }
        const bytes = await abortable(this.#cache.piece(this.label, piece, position), signal);
        if (bytes) {
          yield bytes;
          position = piece[1];
        } else {
          this.#pieces = this.#pieces.filter((other) => other !== piece);
          await this.#cache.lose(this.label, piece);
        }
      }
    } finally {
      ended();
    }
  }

  /** The bytes from `start` to `end`, or to the end of the file; gives the place that was reached. */
  async *#download(start: number, end: number, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array, number> {
    this.fromCache = false;
    let position = start;
    let parts: Uint8Array<ArrayBuffer>[] = [];
    let kept = start;
    const keep = async () => {
      const bytes = join(parts);
      const begin = kept;
      parts = [];
      kept = position;
      this.#keeping &&= await this.#cache.keep(this.label, this.#http.version, begin, bytes);
    };
    try {
      for await (const all of this.#http.from(start, signal)) {
        const chunk = all.subarray(0, Math.min(all.length, end - position));
        position += chunk.length;
        if (this.#keeping) parts.push(chunk.slice());
        if (position - kept >= PIECE) await keep();
        yield chunk;
        if (position >= end) break;
      }
      return position;
    } catch (error) {
      if (this.#http.changed) this.#cache.noticeChange();
      throw error;
    } finally {
      if (position > start && !this.#http.changed) await keep();
    }
  }
}
