import config from "../../../tests/fixtures/ijepa_ti16/config.json?url&no-inline";
import preprocessor from "../../../tests/fixtures/ijepa_ti16/preprocessor_config.json?url&no-inline";
import weights from "../../../tests/fixtures/ijepa_ti16/model.safetensors?url";
import type { ModelSource } from "webjepa";

export type ModelChoice =
  | { kind: "built-in" }
  | { kind: "folder"; name: string; files: Record<string, File> }
  | { kind: "url"; url: string };

/** What the library loads. The built-in model is the test fixture, which the bundler copies into the site. */
export function filesOf(choice: ModelChoice): ModelSource {
  switch (choice.kind) {
    case "built-in":
      return { "config.json": config, "preprocessor_config.json": preprocessor, "model.safetensors": weights };
    case "folder":
      return choice.files;
    case "url":
      return choice.url;
  }
}

export function nameOf(choice: ModelChoice): string {
  switch (choice.kind) {
    case "built-in":
      return "Built-in ViT-Ti/16, untrained";
    case "folder":
      return choice.name;
    case "url":
      return new URL(choice.url).pathname.split("/").filter(Boolean).at(-1) ?? choice.url;
  }
}

/** Asks for a folder; undefined when the dialog was closed. Where the browser has no folder dialog of its own, `input` serves. */
export async function chooseFolder(input: HTMLInputElement): Promise<ModelChoice | undefined> {
  if (window.showDirectoryPicker) {
    try {
      const folder = await window.showDirectoryPicker();
      const files: Record<string, File> = {};
      for await (const entry of folder.values()) if (entry.kind === "file") files[entry.name] = await entry.getFile();
      return { kind: "folder", name: folder.name, files };
    } catch (error) {
      if (error instanceof DOMException && error.name === "AbortError") return undefined;
      throw error;
    }
  }
  return new Promise((resolve) => {
    input.addEventListener("cancel", () => resolve(undefined), { once: true });
    input.addEventListener("change", () => resolve(fromInput(input)), { once: true });
    input.click();
  });
}

/** Only the files of the chosen folder itself: a checkpoint's subfolders hold other formats. */
function fromInput(input: HTMLInputElement): ModelChoice | undefined {
  const chosen = [...(input.files ?? [])].map((file) => ({ file, path: file.webkitRelativePath.split("/") }));
  input.value = "";
  const name = chosen[0]?.path[0];
  if (name === undefined) return undefined;
  return { kind: "folder", name, files: Object.fromEntries(chosen.filter(({ path }) => path.length === 2).map(({ file }) => [file.name, file])) };
}
