// The cache of models in the origin private file system: a folder for each file, with its record and its pieces.

import { coverage, exclusively, parseRecord, type CacheRecord, type CustomCache } from "./cache.js";
import { JepaError, messageOf } from "./errors.js";
import { locate } from "./files.js";
import { fileOf, found, privateRoot, replaceFile, sha256 } from "./opfs.js";

const FOLDER = "webjepa-cache";
const RECORD = "record.json";
const ADVICE = "Models are downloaded at each load, or kept by a cache of your own.";

/** A file that the cache has, whole or in part. */
export interface CacheEntry {
  url: string;
  /** Bytes of the file; undefined where its server did not say, and it was not read to its end. */
  size: number | undefined;
  /** Bytes of it that are kept. */
  bytes: number;
}

/** What `cache: "opfs"` has kept. */
export interface OpfsCache {
  /** The files of which something is kept. */
  entries(): Promise<CacheEntry[]>;
  /** Drops a file, or all files of a folder, by its address; without one everything. Models that are loaded stay as they are. */
  delete(url?: string | URL): Promise<void>;
  /** Bytes that the cache keeps, that the site has stored altogether, and that the browser grants it. */
  estimate(): Promise<{ bytes: number; usage: number; quota: number }>;
}

/**
 * Shows and clears what {@link Jepa.load} has kept with `cache: "opfs"`: on this device, for this site only. The browser may delete it
 * when the device runs out of space, unless `navigator.storage.persist()` was granted.
 *
 * @throws {@link JepaError} from each method: `unsupported` where there is no private file system, as in Node, or while it is in use;
 * `bad-input` for what is no address
 *
 * @example
 * for (const { url, bytes } of await opfsCache().entries()) console.log(url, bytes);
 * await opfsCache().delete("https://example.org/old-model/");
 */
export function opfsCache(): OpfsCache {
  const entries = async (): Promise<CacheEntry[]> => {
    const kept = (await records()).filter(({ absent }) => !absent);
    return kept.map(({ url, size, pieces }) => ({ url, size, bytes: coverage(pieces) })).sort((a, b) => (a.url < b.url ? -1 : 1));
  };
  return {
    entries: () => orderly(entries),
    delete: (url) =>
      orderly(async () => {
        const root = await privateRoot(ADVICE);
        const location = url === undefined ? undefined : locate(String(url), "a model");
        if (location?.kind === "path") throw new JepaError("bad-input", `"${location.path}" is no address of what a cache could have.`);
        // One by one, so that no load is in the middle of writing one.
        for (const record of await records()) if (!location || isWithin(record.url, location.href)) await exclusively(record.url, async () => opfsStorage().delete(record.url));
        // Nor does what a crash left without a record stay.
        if (!location) await found(root.removeEntry(FOLDER, { recursive: true }));
      }),
    estimate: () =>
      orderly(async () => {
        const bytes = (await entries()).reduce((sum, entry) => sum + entry.bytes, 0);
        const { usage = 0, quota = 0 } = await navigator.storage.estimate();
        return { bytes, usage, quota };
      }),
  };
}

async function orderly<T>(task: () => Promise<T>): Promise<T> {
  try {
    return await task();
  } catch (error) {
    if (error instanceof JepaError) throw error;
    throw new JepaError("unsupported", `The cache cannot be used now (${messageOf(error)}): wait until loads in other tabs have ended.`, { cause: error });
  }
}

async function records(): Promise<CacheRecord[]> {
  const folder = await found((await privateRoot(ADVICE)).getDirectoryHandle(FOLDER));
  const records: CacheRecord[] = [];
  if (!folder) return records;
  for await (const entry of folder.values()) {
    const record = entry.kind === "directory" ? await parseRecord(await fileOf(entry as FileSystemDirectoryHandle, RECORD)) : undefined;
    if (record) records.push(record);
  }
  return records;
}

/** Whether `url` is the address itself, or of a file in that folder; a query, as of signed addresses, goes with every file. */
function isWithin(url: string, address: string): boolean {
  const [file, folder] = [new URL(url), new URL(address)];
  if (file.origin !== folder.origin || file.search !== folder.search) return false;
  return file.pathname === folder.pathname || file.pathname.startsWith(folder.pathname.replace(/\/?$/, "/"));
}

/** Keeps what {@link ModelCache} gives it. */
export function opfsStorage(): CustomCache {
  async function placeOf(key: string, create: boolean): Promise<{ files: FileSystemDirectoryHandle; name: string; part: string | undefined } | undefined> {
    const [url, part] = key.split("#") as [string, string?];
    const root = await privateRoot(ADVICE);
    const files = await found(root.getDirectoryHandle(FOLDER, { create }));
    // Addresses are too long for names, and have signs that names must not have.
    return files && { files, name: await sha256(new TextEncoder().encode(url)), part };
  }
  return {
    async get(key) {
      const place = await placeOf(key, false);
      const folder = place && (await found(place.files.getDirectoryHandle(place.name)));
      return folder && fileOf(folder, place.part ?? RECORD);
    },
    async set(key, value) {
      const { files, name, part } = (await placeOf(key, true))!;
      await replaceFile(await files.getDirectoryHandle(name, { create: true }), part ?? RECORD, value);
    },
    async delete(key) {
      const place = await placeOf(key, false);
      if (!place) return;
      // Without its record the pieces of a file are of no use, nor are those that a crash left without one.
      if (place.part === undefined) {
        await found(place.files.removeEntry(place.name, { recursive: true }));
        return;
      }
      const folder = await found(place.files.getDirectoryHandle(place.name));
      if (folder) await found(folder.removeEntry(place.part));
    },
  };
}
