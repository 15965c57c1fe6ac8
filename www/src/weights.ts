// Where a model comes from: finding its files in whatever the caller has, and bringing their bytes to the wasm module.

import type { ModelCache } from "./cache.js";
import { inNode } from "./environment.js";
import { JepaError, messageOf } from "./errors.js";
import { blobSource, locate, readText, Reader, type ByteSource, type Folder, type Location } from "./files.js";
import type { Glue, GlueArchive, GlueLoadOptions, GlueModelLoader } from "./glue.js";
import { httpSource, statusError, type HttpOptions, type RequestOptions } from "./http.js";
import { Verifier, type Integrity } from "./integrity.js";

/** One file of a model: its bytes, its text, or where it is. */
export type ModelFile = Blob | ArrayBuffer | Uint8Array | string | URL;

/**
 * Where a model comes from:
 *
 * - the address of a folder, or of a `.safetensors` file, a `.safetensors.index.json` or a PyTorch archive in one (in Node also a path
 *   or `file:` URL);
 * - the files by their names, each as a Blob, bytes, text, or a `URL` to fetch it from;
 * - what `<input type="file" multiple>` or `<input webkitdirectory>` gives, or a `FileSystemDirectoryHandle`.
 *
 * The files are `config.json`, `model.safetensors` (or `model.safetensors.index.json` and its shards, or the only
 * `.safetensors`, `.pt`, `.pth`, `.pth.tar` or `.bin` there is) and, optionally, `preprocessor_config.json` or, of a model of video, `video_preprocessor_config.json`.
 */
export type ModelSource = string | URL | Readonly<Record<string, ModelFile>> | Iterable<File> | ArrayLike<File> | FileSystemDirectoryHandle;

/** A ModelSource in a form that can be posted to a worker, and read any number of times. */
export type Source =
  | Location
  | { kind: "directory"; handle: FileSystemDirectoryHandle }
  | { kind: "files"; files: [name: string, file: Blob | { href: string }][] };

const CONFIG = "config.json";
const PREPROCESSOR = "preprocessor_config.json";
const VIDEO_PREPROCESSOR = "video_preprocessor_config.json";
const WEIGHTS = "model.safetensors";
const INDEX = "model.safetensors.index.json";
const ARCHIVE = /\.(pt|pth|pth\.tar|bin|ckpt)$/;

const CONFIG_LIMIT = 1 << 20;
const INDEX_LIMIT = 64 << 20;

/** Checks the form of a source and makes relative addresses absolute. Does not read anything. */
export function describeSource(source: ModelSource): Source {
  if (typeof source === "string") return locate(source, "a model");
  if (source instanceof URL) return locate(source.href, "a model");
  if (typeof source === "object" && source !== null) {
    if (isDirectoryHandle(source)) return { kind: "directory", handle: source };
    const list = isList(source) ? Array.from(source as ArrayLike<File>) : undefined;
    const entries: [string, unknown][] = list ? list.map((file) => [file?.webkitRelativePath || file?.name, file]) : Object.entries(source);
    if (entries.length > 0) return { kind: "files", files: topmost(entries).map(([name, file]) => [name, describeFile(name, file)]) };
  }
  throw new JepaError("bad-input", "A model is loaded from the address of its folder, from its files by name, or from what a file chooser gives; this is none of them.");
}

const isDirectoryHandle = (value: object): value is FileSystemDirectoryHandle => "kind" in value && value.kind === "directory" && "getFileHandle" in value;

const isList = (value: object): boolean => Symbol.iterator in value || ("length" in value && typeof value.length === "number");

function describeFile(name: string, file: unknown): Blob | { href: string } {
  if (file instanceof Blob) return file;
  if (file instanceof URL) return { href: file.href };
  if (typeof file === "string" || file instanceof ArrayBuffer || file instanceof Uint8Array) return new Blob([file as BlobPart]);
  throw new JepaError("bad-input", `"${name}" is neither a Blob, bytes, text nor a URL.`);
}

/** The files of the folder nearest to the root that has any of a model's, by their names in it. */
function topmost(entries: [string, unknown][]): [string, unknown][] {
  const split = entries.map(([path, file]) => {
    const parts = path.split("/");
    return { folder: parts.slice(0, -1).join("/"), depth: parts.length, name: parts.at(-1)!, file };
  });
  const models = split.filter(({ name }) => name === CONFIG || name.endsWith(".safetensors") || ARCHIVE.test(name));
  const { folder } = (models.length > 0 ? models : split).reduce((a, b) => (b.depth < a.depth ? b : a));
  return split.filter((entry) => entry.folder === folder).map(({ name, file }) => [name, file]);
}

/** What files pass on their way. */
export interface Passage {
  cache: ModelCache | undefined;
  integrity: Integrity;
  init: RequestOptions;
}

type Fetched = (href: string, options: Omit<HttpOptions, "init">) => Promise<ByteSource | undefined>;

async function openFolder(source: Source, { cache, init }: Passage): Promise<Folder> {
  const fetched: Fetched = (href, options) => (cache ? cache.open(href, { ...options, init }) : httpSource(href, { ...options, init }));
  switch (source.kind) {
    case "path":
      return (await import("./node.js")).openFolder(source.path);
    case "url":
      if (inNode && source.href.startsWith("file:")) {
        const node = await import("./node.js");
        return node.openFolder(node.pathOf(source.href));
      }
      return webFolder(source.href, fetched);
    case "directory":
      return directoryFolder(source.handle);
    case "files": {
      const files = new Map(source.files);
      return {
        label: "the given files",
        names: [...files.keys()],
        async open(name, signal) {
          const file = files.get(name);
          if (!file || file instanceof Blob) return file && blobSource(name, file);
          return (await fetched(file.href, { signal })) ?? missing(file.href);
        },
      };
    }
  }
}

/** A folder on a web server, which cannot be listed. A query, as in signed addresses, goes with every file. */
function webFolder(href: string, fetched: Fetched): Folder {
  const { pathname } = new URL(href);
  const file = /[^/]+\.(safetensors(\.index\.json)?|pt|pth|pth\.tar|bin|ckpt)$/.exec(pathname)?.[0];
  const folder = file ? pathname.slice(0, -file.length) : pathname.replace(/\/?$/, "/");
  return {
    label: href,
    ...(file ? { file: decodeURIComponent(file) } : {}),
    open(name, signal, optional) {
      const url = new URL(href);
      url.pathname = folder + name.split("/").map(encodeURIComponent).join("/");
      return fetched(url.href, { optional: optional || (name !== WEIGHTS && name !== CONFIG), signal });
    },
  };
}

async function directoryFolder(handle: FileSystemDirectoryHandle): Promise<Folder> {
  try {
    const files = new Map<string, FileSystemFileHandle>();
    for await (const [name, entry] of handle.entries()) if (entry.kind === "file") files.set(name, entry as FileSystemFileHandle);
    return {
      label: `the folder ${handle.name}`,
      names: [...files.keys()],
      async open(name) {
        const file = await files.get(name)?.getFile();
        return file && blobSource(name, file);
      },
    };
  } catch (error) {
    throw new JepaError("bad-input", `The folder ${handle.name} cannot be read: ${messageOf(error)}`, { cause: error });
  }
}

function missing(url: string): never {
  throw statusError(url, 404);
}

/** The opened files of a model. */
export interface Checkpoint {
  config: string | undefined;
  preprocessor: string | undefined;
  weights: Weights[];
}

/** A safetensors file; opened only when its turn comes, because an open download occupies one of the few connections to its server. */
interface Weights {
  name: string;
  open(): Promise<ByteSource>;
  /** Of what the file must be, where that was said. */
  verifier: Verifier | undefined;
}

/**
 * Finds the files of a model and reads the small ones.
 *
 * @param options - with `preset`, the configuration that the caller brings, none is looked for; for a `probe` alone there need be none
 */
export async function openCheckpoint(source: Source, { preset: given, probe }: Pick<GlueLoadOptions, "preset" | "probe">, passage: Passage, signal: AbortSignal): Promise<Checkpoint> {
  const hasConfig = given !== undefined;
  const { integrity } = passage;
  const folder = await openFolder(source, passage);
  const read = new Set<string>();
  const verifierOf = verifiers(integrity, read);
  const text = async (name: string) => {
    const file = await folder.open(name, signal, probe);
    return file && readText(file, CONFIG_LIMIT, signal, await verifierOf(name));
  };
  // Archives of the original projects have none beside them.
  const config = hasConfig || (probe && ARCHIVE.test(folder.file ?? "")) ? undefined : await text(CONFIG);
  if (!hasConfig && !probe && config === undefined) {
    const where = folder.names ? "" : " (the server answered 404)";
    throw new JepaError(folder.names ? "bad-config" : "network", `There is no ${CONFIG} in ${folder.label}${where}; add it, or describe the model with the option "config".`);
  }
  // Only where it may be, as browsers report every file that is not there.
  const video = /vjepa|"frames"/.test(config ?? JSON.stringify(given) ?? "");
  const preprocessor = probe ? undefined : ((video ? await text(VIDEO_PREPROCESSOR) : undefined) ?? (await text(PREPROCESSOR)));
  const weights = await findWeights(folder, verifierOf, signal);
  const unread = Object.keys(integrity).filter((name) => !read.has(name));
  if (unread.length > 0) {
    throw new JepaError("bad-input", `The option integrity names ${unread.join(" and ")}, but the files of this model that are read are ${[...read].join(", ")}.`);
  }
  return { config, preprocessor, weights };
}

type VerifierOf = (name: string) => Promise<Verifier | undefined>;

/** Notes in `read` which files they were asked for. */
function verifiers(integrity: Integrity, read: Set<string>): VerifierOf {
  return async (name) => {
    read.add(name);
    return Object.hasOwn(integrity, name) ? Verifier.of(integrity[name]!) : undefined;
  };
}

async function findWeights(folder: Folder, verifierOf: VerifierOf, signal: AbortSignal): Promise<Weights[]> {
  const candidates = folder.file ? [folder.file] : folder.names ? [chooseWeights(folder.names, folder.label)] : [WEIGHTS, INDEX];
  for (const name of candidates) {
    const file = await folder.open(name, signal);
    if (!file) continue;
    const verifier = await verifierOf(name);
    return name.endsWith(".json") ? findShards(folder, await readText(file, INDEX_LIMIT, signal, verifier), file.label, verifierOf, signal) : [{ name, open: async () => file, verifier }];
  }
  throw new JepaError("network", `The server answered 404 for ${candidates.join(" and ")} in ${folder.label}.`);
}

function chooseWeights(names: string[], label: string): string {
  if (names.includes(WEIGHTS)) return WEIGHTS;
  if (names.includes(INDEX)) return INDEX;
  for (const ending of [/\.safetensors\.index\.json$/, /\.safetensors$/, ARCHIVE]) {
    const found = names.filter((name) => ending.test(name));
    if (found.length === 1) return found[0]!;
    if (found.length > 1) throw new JepaError("bad-checkpoint", `Which weights? There are ${found.join(", ")} in ${label}; name one of them "${WEIGHTS}", or add "${INDEX}".`);
  }
  throw new JepaError("bad-checkpoint", `There is no ${WEIGHTS} in ${label}, only ${names.slice(0, 8).join(", ") || "nothing"}.`);
}

async function findShards(folder: Folder, index: string, label: string, verifierOf: VerifierOf, signal: AbortSignal): Promise<Weights[]> {
  const shard = async (name: string): Promise<Weights> => ({
    name,
    verifier: await verifierOf(name),
    async open() {
      const file = await folder.open(name, signal);
      if (file) return file;
      throw new JepaError(folder.names ? "bad-checkpoint" : "network", `The shard ${name}, which ${label} lists, is not there.`);
    },
  });
  return Promise.all(shardNames(index, label).map(shard));
}

function shardNames(text: string, label: string): string[] {
  const bad = (why: string, cause?: unknown) => new JepaError("bad-checkpoint", `${label} is no index of shards: ${why}.`, { cause });
  let index: unknown;
  try {
    index = JSON.parse(text);
  } catch (error) {
    throw bad(messageOf(error), error);
  }
  const map: unknown = typeof index === "object" && index !== null && "weight_map" in index ? index.weight_map : undefined;
  if (typeof map !== "object" || map === null) throw bad('it has no "weight_map"');
  const names = [...new Set<unknown>(Object.values(map))].sort();
  if (names.length === 0) throw bad("it is empty");
  for (const name of names) {
    // An index must not reach outside of its folder.
    if (typeof name !== "string" || !/^[\w.-]+\.safetensors$/.test(name)) throw bad(`${JSON.stringify(name)} is no name of a shard`);
  }
  return names as string[];
}

/** Opens all weights and reads their headers into the loader. The readers are for the caller to close, also after a failure. */
export async function readHeaders(glue: Glue, loader: GlueModelLoader, weights: Weights[], readers: Map<string, Reader>, signal: AbortSignal): Promise<void> {
  for (const { name, open, verifier } of weights) {
    const reader = new Reader(await open(), signal, verifier);
    readers.set(name, reader);
    const prefix = await reader.bytes(0, 8);
    if (glue.isArchive(prefix)) {
      loader.addArchive(name, await readArchive(glue, reader));
      if (weights.length > 1) reader.close();
      continue;
    }
    const length = glue.headerLength(prefix, reader.size ?? Number.MAX_SAFE_INTEGER);
    const header = await reader.bytes(8, 8 + length);
    loader.addFile(name, reader.size ?? 8 + length + dataLength(header), header);
    if (weights.length > 1) reader.close();
  }
}

async function readArchive(glue: Glue, reader: Reader): Promise<GlueArchive> {
  if (reader.size === undefined) throw new JepaError("unsupported", `${reader.label}: the server does not say how long the file is, and a PyTorch archive is read from its end. Save it first, or as safetensors.`);
  const archive = new glue.Archive(reader.size);
  try {
    for (let range = archive.nextRange(); range; range = archive.nextRange()) archive.give(await reader.peek(range[0]!, range[1]!));
    return archive;
  } catch (error) {
    archive.free();
    throw error;
  }
}

/** Where a server does not tell the length of a file: what its own header says. */
function dataLength(header: Uint8Array): number {
  let length = 0;
  try {
    const tensors: Record<string, { data_offsets?: [number, number] }> = JSON.parse(new TextDecoder().decode(header));
    for (const { data_offsets } of Object.values(tensors)) length = Math.max(length, data_offsets?.[1] ?? 0);
  } catch {
    // The module reads the same header next, and says what is wrong with it.
  }
  return length;
}

/**
 * Brings the planned bytes to the loader, and verifies the files.
 *
 * @param onBytes - told after each chunk how much of its file has come, of how much, what part of everything, and whether all of it was
 * in the cache
 */
export async function streamWeights(
  loader: GlueModelLoader,
  readers: Map<string, Reader>,
  onBytes: (file: string, loaded: number, total: number, done: number, fromCache: boolean) => void,
): Promise<void> {
  const plan = loader.plan();
  const totals = new Map<string, number>();
  let everything = 0;
  for (const { file, begin, end } of plan) {
    totals.set(file, (totals.get(file) ?? 0) + end - begin);
    everything += end - begin;
  }
  let file = "";
  let loaded = 0;
  let loadedBefore = 0;
  for (const [index, range] of plan.entries()) {
    if (range.file !== file) {
      await readers.get(file)?.verify();
      readers.get(file)?.close();
      file = range.file;
      loadedBefore += loaded;
      loaded = 0;
    }
    loader.begin(index);
    const reader = readers.get(file)!;
    for await (const chunk of reader.range(range.begin, range.end)) {
      loader.write(chunk);
      loaded += chunk.length;
      onBytes(file, loaded, totals.get(file)!, (loadedBefore + loaded) / everything, reader.fromCache);
    }
  }
  // The last one, and those of which nothing was needed.
  for (const reader of readers.values()) await reader.verify();
}
