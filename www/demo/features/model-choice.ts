import type { ModelSource } from "webjepa";
import { trainedModel } from "../shared/trained-model";
import config from "../models/clothing-vit/config.json?raw";
import weights from "../models/clothing-vit/model.safetensors?url";
import preprocessor from "../models/clothing-vit/preprocessor_config.json?raw";

export interface ModelChoice {
  name: string;
  source: ModelSource;
}

/** The model that comes with the site, trained on pictures of clothes: see models/clothing-vit/README.md. */
export const BUILT_IN: ModelChoice = {
  name: "Built-in ViT, trained on clothes",
  source: { "config.json": config, "preprocessor_config.json": preprocessor, "model.safetensors": new URL(weights, document.baseURI) },
};

/** The model that the page Train handed over last. */
export async function trainedHere(): Promise<ModelChoice | undefined> {
  const source = await trainedModel();
  return source && { name: "Trained in this browser", source };
}

export function fromUrl(url: string): ModelChoice {
  return { name: new URL(url).pathname.split("/").findLast(Boolean) ?? url, source: url };
}

/** Asks for a folder; undefined when the dialog was closed. Where the browser has no folder dialog of its own, `input` serves. */
export async function chooseFolder(input: HTMLInputElement): Promise<ModelChoice | undefined> {
  if (window.showDirectoryPicker) {
    try {
      const folder = await window.showDirectoryPicker();
      return { name: folder.name, source: folder };
    } catch (error) {
      if (error instanceof DOMException && error.name === "AbortError") return undefined;
      throw error;
    }
  }
  return new Promise((resolve) => {
    input.onchange = () => {
      const files = [...(input.files ?? [])];
      input.value = "";
      resolve(files[0] && { name: files[0].webkitRelativePath.split("/")[0] || files[0].name, source: files });
    };
    input.oncancel = () => resolve(undefined);
    input.click();
  });
}
