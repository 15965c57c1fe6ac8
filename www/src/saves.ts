// Where the saves of a trainer are kept.

import { JepaError, messageOf } from "./errors.js";
import { fileOf, isQuotaError, privateRoot, replaceFile, sha256 } from "./opfs.js";

/**
 * A place for the save of one trainer. {@link opfsStore} and {@link memoryStore} are two; write another for a database or a server.
 */
export interface SaveStore {
  /** Puts a save in the place of the one before. While that is being done, and where it fails, `read` still gives the one before. */
  write(save: Uint8Array<ArrayBuffer>): Promise<void>;
  /** The last complete save; undefined where there is none. */
  read(): Promise<Uint8Array | ArrayBuffer | Blob | undefined>;
}

/** Keeps the save until the page is closed. */
export function memoryStore(): SaveStore {
  let kept: Uint8Array<ArrayBuffer> | undefined;
  return {
    async write(save) {
      kept = save.slice();
    },
    read: async () => kept?.slice(),
  };
}

/**
 * Keeps the save in the origin private file system: across visits, on this device, for this site only. The browser may delete it when
 * the device runs out of space, unless `navigator.storage.persist()` was granted.
 *
 * The last two saves are kept side by side, and a new one takes the place of the older. So neither a crash nor a full disk, at any
 * moment, costs more than the save that was being written.
 *
 * @param name - of the run; one trainer at a time may write to a name
 * @throws {@link JepaError} from `write`: `out-of-memory` when the site's storage is full, `unsupported` where files cannot be
 * written; from `read`: `bad-checkpoint` when both saves are damaged
 *
 * @example
 * const store = opfsStore("flowers");
 * const trainer = (await store.read()) ? await Trainer.resumeFrom(store, { autosave: { every: 100, store } }) : await Trainer.create({ model: "vit-tiny", autosave: { every: 100, store } });
 */
export function opfsStore(name: string): SaveStore {
  return folderStore(async () => {
    const root = await privateRoot("Use another store.");
    try {
      return await (await root.getDirectoryHandle("webjepa-saves", { create: true })).getDirectoryHandle(name, { create: true });
    } catch (error) {
      throw new JepaError("bad-input", `"${name}" cannot be the name of a store: ${messageOf(error)}`, { cause: error });
    }
  });
}

const SLOTS = ["a", "b"] as const;

/** Says what a slot holds. It is written after the slot, and so makes the new save the current one. */
interface Label {
  slot: (typeof SLOTS)[number];
  /** Grows with each save. */
  serial: number;
  bytes: number;
  sha256: string;
}

/** @internal */
export function folderStore(open: () => Promise<FileSystemDirectoryHandle>): SaveStore {
  let last: Promise<unknown> = Promise.resolve();
  /** The hash of a save that has been written or read here, and so need not be read again before the next is written. */
  let sound: string | undefined;

  async function write(save: Uint8Array<ArrayBuffer>): Promise<void> {
    const folder = await open();
    const labels = await labelsOf(folder);
    // The newest save that is whole must not be touched.
    let kept: Label | undefined;
    for (const label of labels) if (!kept && (label.sha256 === sound || (await contentsOf(folder, label)))) kept = label;
    const slot = kept?.slot === "a" ? "b" : "a";
    const label: Label = { slot, serial: (labels[0]?.serial ?? 0) + 1, bytes: save.length, sha256: await sha256(save) };
    await writeFile(folder, weightsOf(slot), save);
    await writeFile(folder, labelOf(slot), new TextEncoder().encode(JSON.stringify(label)));
    sound = label.sha256;
  }

  return {
    write(save) {
      const turn = last.then(() => write(save));
      last = turn.catch(() => {});
      return turn;
    },
    async read() {
      const folder = await open();
      const labels = await labelsOf(folder);
      for (const label of labels) {
        const save = await contentsOf(folder, label);
        if (!save) continue;
        sound = label.sha256;
        return save;
      }
      if (labels.length > 0) throw new JepaError("bad-checkpoint", `The saves in ${folder.name} are damaged; begin a new run.`);
      return undefined;
    },
  };
}

const weightsOf = (slot: string) => `${slot}.safetensors`;
const labelOf = (slot: string) => `${slot}.json`;

/** What there are, the newest first. */
async function labelsOf(folder: FileSystemDirectoryHandle): Promise<Label[]> {
  const labels: Label[] = [];
  for (const slot of SLOTS) {
    const text = await (await readFile(folder, labelOf(slot)))?.text();
    try {
      if (text !== undefined) labels.push({ ...(JSON.parse(text) as Label), slot });
    } catch {
      // A label that was cut off while it was written makes no save current.
    }
  }
  return labels.sort((a, b) => b.serial - a.serial);
}

/** The save that a label is about; undefined where it is damaged. */
async function contentsOf(folder: FileSystemDirectoryHandle, { slot, bytes, sha256: expected }: Label): Promise<Uint8Array<ArrayBuffer> | undefined> {
  const file = await readFile(folder, weightsOf(slot));
  if (file?.size !== bytes) return undefined;
  const save = new Uint8Array(await file.arrayBuffer());
  return (await sha256(save)) === expected ? save : undefined;
}

async function readFile(folder: FileSystemDirectoryHandle, name: string): Promise<File | undefined> {
  try {
    return await fileOf(folder, name);
  } catch (error) {
    throw new JepaError("unsupported", `The save ${folder.name}/${name} cannot be read: ${messageOf(error)}`, { cause: error });
  }
}

async function writeFile(folder: FileSystemDirectoryHandle, name: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
  try {
    await replaceFile(folder, name, bytes);
  } catch (error) {
    const [code, why] = isQuotaError(error)
      ? (["out-of-memory", `A save of ${(bytes.length / 1e6).toFixed(1)} MB does not fit into the storage that the browser grants this site; free some of it`] as const)
      : (["unsupported", `The save ${folder.name}/${name} cannot be written (${messageOf(error)}); use another store`] as const);
    throw new JepaError(code, `${why}. The save before it is intact.`, { cause: error });
  }
}
