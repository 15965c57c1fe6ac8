import { balanced, HELD_OUT_PER_CLASS, SAMPLES, type Drawable, type PictureSet } from "./picture-sets";

/** A picture and the class that its folder stands for. */
export interface OwnPicture {
  blob: Blob;
  /** The name of the folder inside of the one that was chosen; undefined for a picture that lies in none. */
  label?: string | undefined;
}

/** Shorter side of the copies that are kept decoded: above every model's input, so that crops stay sharp. */
const SIDE = 128;
/** So that the copies stay below 300 MB. */
export const MOST_PICTURES = 4000;

/** A set of the visitor's own pictures. Those that the browser cannot decode are left out. */
export async function ownPictures(name: string, found: readonly OwnPicture[], onProgress: (done: number, of: number) => void): Promise<PictureSet> {
  const decoded: { picture: ImageBitmap; label: string | undefined }[] = [];
  const taken = found.slice(0, MOST_PICTURES);
  for (const [i, { blob, label }] of taken.entries()) {
    onProgress(i, taken.length);
    try {
      decoded.push({ picture: await reduced(blob), label });
    } catch {
      // Not a picture, whatever its name says.
    }
  }
  const classes = [...new Set(decoded.flatMap(({ label }) => label ?? []))].sort();
  const labels = decoded.map(({ label }) => (label === undefined ? -1 : classes.indexOf(label)));
  // At most a fifth is held out: there must be something to train on.
  const each = Math.min(HELD_OUT_PER_CLASS, Math.floor(decoded.length / 5 / Math.max(1, classes.length)));
  const held = classes.length > 1 && each > 1 ? balanced(labels, classes.length, each) : [];
  const trained = [...decoded.keys()].filter((i) => !held.includes(i)).map((i) => decoded[i]!.picture);
  const pictures: Drawable[] = held.map((i) => decoded[i]!.picture);
  return {
    name,
    length: trained.length,
    get: (i) => trained[i]!,
    labelled: held.length > 0 ? { pictures, labels: held.map((i) => labels[i]!), classes } : undefined,
    samples: (held.length > 0 ? pictures : trained).slice(0, SAMPLES),
  };
}

async function reduced(blob: Blob): Promise<ImageBitmap> {
  const full = await createImageBitmap(blob);
  const scale = SIDE / Math.min(full.width, full.height);
  if (scale >= 1) return full;
  try {
    return await createImageBitmap(full, { resizeWidth: Math.round(full.width * scale), resizeHeight: Math.round(full.height * scale), resizeQuality: "high" });
  } finally {
    full.close();
  }
}

/** The pictures in what a folder dialog gave. */
export function picturesOfFiles(files: Iterable<File>): OwnPicture[] {
  return [...files].filter(isPicture).map((file) => ({ blob: file, label: labelOf(file.webkitRelativePath.split("/").slice(1)) }));
}

/** The pictures in what was dropped: files, and folders with all that is in them. */
export async function picturesOfDrop(transfer: DataTransfer): Promise<OwnPicture[]> {
  // All at once: the list is empty after the first await.
  const entries = [...transfer.items].flatMap((item) => item.webkitGetAsEntry() ?? []);
  // One folder is the set, several are its classes.
  const root = entries.length === 1 && entries[0]!.isDirectory ? 1 : 0;
  const found: OwnPicture[] = [];
  const visit = async (entry: FileSystemEntry, path: string[]): Promise<void> => {
    if (entry.isFile) {
      const file = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject));
      if (isPicture(file)) found.push({ blob: file, label: labelOf([...path, file.name].slice(root)) });
      return;
    }
    const reader = (entry as FileSystemDirectoryEntry).createReader();
    for (;;) {
      const some = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
      if (some.length === 0) break;
      for (const each of some) await visit(each, [...path, entry.name]);
    }
  };
  for (const entry of entries) await visit(entry, []);
  return found;
}

const isPicture = ({ type }: File) => type.startsWith("image/");
const labelOf = (path: string[]) => (path.length > 1 ? path[0] : undefined);
