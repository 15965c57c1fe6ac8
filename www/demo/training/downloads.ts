import { zipSync } from "fflate";
import type { Trainer } from "webjepa";
import { byId } from "../shared/dom";
import { problemOf } from "../shared/problems";
import { keepTrainedModel } from "../shared/trained-model";
import type { Run } from "./run";
import type { Store } from "./state";

/** What can be taken from a run: its save, its model, and the way to the other page. */
export function mountDownloads(store: Store, run: Run): void {
  const buttons = ["download-save", "download-hf", "download-original", "open-features"].map((id) => byId(id, HTMLButtonElement));
  store.subscribe(({ phase }) => {
    for (const button of buttons) button.disabled = phase === "idle" || phase === "preparing";
  });
  const offer = (id: string, take: (trainer: Trainer) => Promise<void>) =>
    byId(id, HTMLButtonElement).addEventListener("click", async () => {
      if (!run.current) return;
      try {
        await take(run.current);
      } catch (error) {
        store.change({ problem: problemOf(error) });
      }
    });
  const name = (trainer: Trainer) => `webjepa-${trainer.info.objective}-step-${trainer.info.step}`;
  offer("download-save", async (trainer) => download(`${name(trainer)}.safetensors`, await trainer.save()));
  offer("download-hf", async (trainer) => download(`${name(trainer)}.zip`, zipped(await trainer.export("hf"))));
  offer("download-original", async (trainer) => download(`${name(trainer)}-with-predictor.zip`, zipped(await trainer.export("original"))));
  offer("open-features", async (trainer) => {
    await keepTrainedModel(await trainer.export("original"));
    location.href = "../?model=trained";
  });
}

/** Stored, not deflated: weights hardly shrink. */
function zipped(files: Record<string, string | Uint8Array<ArrayBuffer>>): Uint8Array<ArrayBuffer> {
  const text = new TextEncoder();
  return zipSync(Object.fromEntries(Object.entries(files).map(([name, contents]) => [name, typeof contents === "string" ? text.encode(contents) : contents])), { level: 0 });
}

function download(name: string, bytes: Uint8Array<ArrayBuffer>): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([bytes]));
  link.download = name;
  link.click();
  // The browser has its own hold on the bytes once the download has begun.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
