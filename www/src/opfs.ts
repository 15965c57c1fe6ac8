// The origin private file system: what saves of trainers and the cache of models have in common.

import { JepaError, messageOf } from "./errors.js";

/** Its root; `advice` says what to do where there is none. */
export async function privateRoot(advice: string): Promise<FileSystemDirectoryHandle> {
  try {
    return await navigator.storage.getDirectory();
  } catch (error) {
    throw new JepaError("unsupported", `This page has no private file system (${messageOf(error)}): it needs a secure context, and a window that is not private. ${advice}`, { cause: error });
  }
}

/** Undefined when there is no such file. */
export async function fileOf(folder: FileSystemDirectoryHandle, name: string): Promise<File | undefined> {
  return (await found(folder.getFileHandle(name)))?.getFile();
}

/** Undefined where a handle, or its removal, finds nothing. */
export async function found<T>(handle: Promise<T>): Promise<T | undefined> {
  try {
    return await handle;
  } catch (error) {
    if (error instanceof DOMException && error.name === "NotFoundError") return undefined;
    throw error;
  }
}

/** What is written goes to a copy, which takes the place of the file when it is closed. */
export async function replaceFile(folder: FileSystemDirectoryHandle, name: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
  let stream: FileSystemWritableFileStream | undefined;
  try {
    const handle = await folder.getFileHandle(name, { create: true });
    // Safari has it from version 26 on.
    if (!("createWritable" in handle)) throw new Error("this browser has no createWritable");
    stream = await handle.createWritable();
    await stream.write(bytes);
    await stream.close();
  } catch (error) {
    await stream?.abort().catch(() => {});
    throw error;
  }
}

/** Whether the storage of the site is full. */
export function isQuotaError(error: unknown): boolean {
  return error instanceof Error && error.name === "QuotaExceededError";
}

/** In hexadecimal digits. */
export async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
