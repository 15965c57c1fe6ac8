import type { ModelSource } from "webjepa";
import { trainedModel } from "../shared/trained-model";
import config from "../../../tests/fixtures/ijepa_ti16/config.json?raw";
import weights from "../../../tests/fixtures/ijepa_ti16/model.safetensors?url";
import preprocessor from "../../../tests/fixtures/ijepa_ti16/preprocessor_config.json?raw";

export interface ModelChoice {
  name: string;
  source: ModelSource;
  trained: boolean;
}

const texts = import.meta.glob<string>("../models/clothing-vit/*.json", { query: "?raw", import: "default", eager: true });
const [trainedWeights] = Object.values(import.meta.glob<string>("../models/clothing-vit/*.safetensors", { query: "?url", import: "default", eager: true }));

/** The model that comes with the site, trained on pictures of clothes; else the test fixture with the geometry of a ViT-Ti/16. */
export const BUILT_IN: ModelChoice = trainedWeights
  ? {
      name: "Built-in ViT, trained on clothes",
      source: { ...Object.fromEntries(Object.entries(texts).map(([path, text]) => [path.split("/").at(-1)!, text])), "model.safetensors": new URL(trainedWeights, document.baseURI) },
      trained: true,
    }
  : {
      name: "Built-in ViT-Ti/16, untrained",
      source: { "config.json": config, "preprocessor_config.json": preprocessor, "model.safetensors": new URL(weights, document.baseURI) },
      trained: false,
    };

/** The model that the page Train handed over last. */
export async function trainedHere(): Promise<ModelChoice | undefined> {
  const source = await trainedModel();
  return source && { name: "Trained in this browser", source, trained: true };
}

export function fromUrl(url: string): ModelChoice {
  return { name: new URL(url).pathname.split("/").findLast(Boolean) ?? url, source: url, trained: true };
}

/** Asks for a folder; undefined when the dialog was closed. Where the browser has no folder dialog of its own, `input` serves. */
export async function chooseFolder(input: HTMLInputElement): Promise<ModelChoice | undefined> {
  if (window.showDirectoryPicker) {
    try {
      const folder = await window.showDirectoryPicker();
      return { name: folder.name, source: folder, trained: true };
    } catch (error) {
      if (error instanceof DOMException && error.name === "AbortError") return undefined;
      throw error;
    }
  }
  return new Promise((resolve) => {
    input.onchange = () => {
      const files = [...(input.files ?? [])];
      input.value = "";
      resolve(files[0] && { name: files[0].webkitRelativePath.split("/")[0] || files[0].name, source: files, trained: true });
    };
    input.oncancel = () => resolve(undefined);
    input.click();
  });
}
