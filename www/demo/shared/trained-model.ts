// The model that the page Train hands to the page with the feature maps: a folder in the origin private file system.

const FOLDERS = ["webjepa-demo", "trained-model"];

/** Keeps a model's files in the place of those of the one before. */
export async function keepTrainedModel(files: Record<string, string | Uint8Array<ArrayBuffer>>): Promise<void> {
  const [site, name] = FOLDERS as [string, string];
  const parent = await (await navigator.storage.getDirectory()).getDirectoryHandle(site, { create: true });
  await parent.removeEntry(name, { recursive: true }).catch(() => {});
  const folder = await parent.getDirectoryHandle(name, { create: true });
  for (const [file, contents] of Object.entries(files)) {
    const stream = await (await folder.getFileHandle(file, { create: true })).createWritable();
    await stream.write(contents);
    await stream.close();
  }
}

/** The folder of the model that was kept; undefined where there is none, or no such file system. */
export async function trainedModel(): Promise<FileSystemDirectoryHandle | undefined> {
  try {
    let folder = await navigator.storage.getDirectory();
    for (const name of FOLDERS) folder = await folder.getDirectoryHandle(name);
    return folder;
  } catch {
    return undefined;
  }
}
