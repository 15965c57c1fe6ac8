/** Chromium's folder dialog, which TypeScript's DOM library does not have yet. */
interface Window {
  showDirectoryPicker?(): Promise<FileSystemDirectoryHandle>;
}
