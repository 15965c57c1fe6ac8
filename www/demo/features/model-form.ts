import { probeDevice, type LoadOptions } from "webjepa";
import { byId } from "../shared/dom";
import { problemOf } from "../shared/problems";
import type { Encoder } from "./encoder";
import { BUILT_IN, chooseFolder, fromUrl, trainedHere, type ModelChoice } from "./model-choice";
import type { Store } from "./state";

/** The form that says which model to load, and how. Loads the first one: the model of the page Train where the address asks for it. */
export function mountModelForm(store: Store, encoder: Encoder): void {
  const form = byId("model-form", HTMLFormElement);
  const folderName = byId("folder-name", HTMLElement);
  const folderPart = byId("source-folder", HTMLElement);
  const urlPart = byId("source-url", HTMLElement);
  const url = byId("model-url", HTMLInputElement);
  let folder: ModelChoice | undefined;

  const field = (name: string) => String(new FormData(form).get(name));
  const showSource = () => {
    const source = field("source");
    folderPart.hidden = source !== "folder";
    urlPart.hidden = source !== "url";
    url.required = source === "url";
    url.disabled = source !== "url";
  };
  form.addEventListener("change", showSource);
  showSource();

  const pick = async () => {
    try {
      folder = (await chooseFolder(byId("folder-files", HTMLInputElement))) ?? folder;
    } catch (error) {
      store.change({ problem: problemOf(error) });
    }
    if (folder) folderName.textContent = folder.name;
  };
  byId("choose-folder", HTMLButtonElement).addEventListener("click", pick);

  const choice = async (): Promise<ModelChoice | undefined> => {
    switch (field("source")) {
      case "trained":
        return trainedHere();
      case "folder":
        return folder;
      case "url":
        return fromUrl(url.value);
      default:
        return BUILT_IN;
    }
  };
  const options = () => ({ backend: field("backend"), dtype: field("dtype") }) as Pick<LoadOptions, "backend" | "dtype">;

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (field("source") === "folder" && !folder) await pick();
    const chosen = await choice();
    if (chosen) await encoder.load(chosen, options());
  });

  void showDevice(form);
  void (async () => {
    const trained = await trainedHere();
    byId("source-trained", HTMLElement).hidden = !trained;
    const wanted = trained && new URLSearchParams(location.search).get("model") === "trained";
    if (wanted) form.querySelector<HTMLInputElement>('input[value="trained"]')!.checked = true;
    await encoder.load(wanted ? trained : BUILT_IN, {});
  })();
}

/** What this machine can do, and why not; a backend that cannot work is not offered. */
async function showDevice(form: HTMLFormElement): Promise<void> {
  const note = byId("device-note", HTMLElement);
  const device = await probeDevice();
  if (device.webgpu) {
    note.textContent = `WebGPU is available${device.f16 ? ", with f16 arithmetic" : ", without f16 arithmetic"}.`;
  } else {
    note.textContent = device.reason ?? "WebGPU is not available.";
    form.querySelector<HTMLOptionElement>('option[value="webgpu"]')!.disabled = true;
  }
}
