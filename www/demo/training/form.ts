import { probeDevice } from "webjepa";
import { byId } from "../shared/dom";
import { mountDrop } from "../shared/drop";
import { problemOf } from "../shared/problems";
import { picturesOfCamera } from "./camera";
import { fashionPictures } from "./fashion";
import { MOST_PICTURES, ownPictures, picturesOfDrop, picturesOfFiles, type OwnPicture } from "./own-pictures";
import type { PictureSet } from "./picture-sets";
import type { Run } from "./run";
import { LEARNING_RATES, type Settings } from "./settings";
import type { Store } from "./state";
import { syntheticPictures } from "./synthetic";

const GO = { idle: "Start", preparing: "Starting…", running: "Pause", pausing: "Pausing…", paused: "Continue", done: "Done" } as const;

/** The form that says what to train on what, and the buttons that do it. */
export function mountForm(store: Store, run: Run): void {
  const form = byId("training-form", HTMLFormElement);
  const fields = byId("fields", HTMLFieldSetElement);
  const go = byId("go", HTMLButtonElement);
  const own = byId("own", HTMLElement);
  const ownNote = byId("own-note", HTMLElement);
  const lr = byId("lr", HTMLInputElement);
  const saved = byId("saved", HTMLElement);
  let ownSet: PictureSet | undefined;
  let lrTouched = false;

  const field = (name: string) => String(new FormData(form).get(name));
  const radio = (name: string, value: string) => form.querySelector<HTMLInputElement>(`input[name="${name}"][value="${value}"]`)!;
  const settings = (): Settings => ({
    set: field("set") as Settings["set"],
    objective: field("objective") as Settings["objective"],
    model: field("model") as Settings["model"],
    batchSize: Number(field("batchSize")),
    steps: Number(field("steps")),
    lr: Number(field("lr")),
    seed: Number(field("seed")),
    backend: field("backend") as Settings["backend"],
  });

  const follow = () => {
    if (!fields.disabled) own.hidden = field("set") !== "own";
    if (!lrTouched && !fields.disabled) lr.value = String(LEARNING_RATES[field("objective") as Settings["objective"]]);
  };
  lr.addEventListener("input", () => (lrTouched = true));
  form.addEventListener("change", follow);
  follow();

  const setOf = async (kind: Settings["set"]): Promise<PictureSet> => {
    if (kind === "synthetic") return syntheticPictures();
    if (kind === "fashion") return fashionPictures();
    if (!ownSet) throw new Error("Choose your pictures first: a folder, or the camera. They are not kept between visits.");
    return ownSet;
  };
  /** Runs what a button asked for, and shows what went wrong. */
  const doing = async (action: () => Promise<void>) => {
    try {
      await action();
    } catch (error) {
      store.change({ phase: "idle", activity: undefined, problem: problemOf(error) });
    }
  };

  const take = async (name: string, found: readonly OwnPicture[]) => {
    if (found.length === 0) throw new Error("There are no pictures in this. PNG, JPEG, WebP, AVIF and GIF files can be used.");
    radio("set", "own").checked = true;
    follow();
    ownSet = await ownPictures(name, found, (done, of) => store.change({ activity: `Reading picture ${done + 1} of ${of}` }));
    store.change({ activity: undefined, problem: undefined });
    const classes = ownSet.labelled ? `${ownSet.labelled.classes.length} classes` : "no classes";
    const limit = found.length > MOST_PICTURES ? ` The first ${MOST_PICTURES.toLocaleString("en")} of ${found.length.toLocaleString("en")} are used.` : "";
    ownNote.textContent = `${name}: ${ownSet.length} pictures to train on, ${ownSet.labelled?.pictures.length ?? 0} held out, ${classes}.${limit}`;
  };
  const folder = byId("own-files", HTMLInputElement);
  byId("choose-folder", HTMLButtonElement).addEventListener("click", () => folder.click());
  folder.addEventListener("change", () => {
    const files = [...(folder.files ?? [])];
    folder.value = "";
    if (files.length > 0) void doing(() => take(files[0]!.webkitRelativePath.split("/")[0] || "Own pictures", picturesOfFiles(files)));
  });
  byId("use-camera", HTMLButtonElement).addEventListener("click", () =>
    doing(async () => {
      const found = await picturesOfCamera();
      if (found.length > 0) await take("Camera", found);
    }),
  );
  mountDrop(byId("drop-veil", HTMLElement), (transfer) => {
    if (store.state.phase === "idle") void doing(async () => take("Dropped pictures", await picturesOfDrop(transfer)));
  });

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const { phase } = store.state;
    if (phase === "running") run.pause();
    else if (phase === "paused") void run.continue();
    else if (phase === "idle") void doing(async () => run.start(settings(), await setOf(settings().set)));
  });
  byId("reset", HTMLButtonElement).addEventListener("click", () => void run.reset());

  const save = byId("save-file", HTMLInputElement);
  byId("load-save", HTMLButtonElement).addEventListener("click", () => save.click());
  save.addEventListener("change", () => {
    const file = save.files?.[0];
    save.value = "";
    if (file) void doing(async () => run.load(file, settings(), await setOf(settings().set)));
  });
  byId("resume-saved", HTMLButtonElement).addEventListener("click", () => {
    const record = store.state.saved;
    if (!record) return;
    void doing(async () => {
      const set = await setOf(record.settings.set);
      for (const [name, value] of Object.entries(record.settings)) fill(form, name, String(value));
      await run.resume(record, set);
    });
  });
  byId("forget-saved", HTMLButtonElement).addEventListener("click", () => {
    run.forget();
    go.focus();
  });

  store.subscribe(({ phase, saved: record, activity }) => {
    go.textContent = GO[phase];
    // Not disabled while it says "Pausing…": a disabled button loses the focus.
    go.setAttribute("aria-disabled", String(phase === "preparing" || phase === "pausing" || phase === "done"));
    fields.disabled = phase !== "idle" || Boolean(activity);
    byId("reset", HTMLButtonElement).disabled = phase === "idle";
    byId("load-save", HTMLButtonElement).disabled = phase !== "idle";
    saved.hidden = phase !== "idle" || !record;
    if (record) {
      const date = new Date(record.date).toLocaleString(undefined, { dateStyle: "long", timeStyle: "short" });
      const { objective, steps } = record.settings;
      byId("saved-text", HTMLElement).textContent = `The run of ${date}: ${objective === "ijepa" ? "I-JEPA" : "LeJEPA"} on ${record.pictures}, ${record.step} of ${steps} steps.`;
      byId("resume-saved", HTMLButtonElement).textContent = `${record.step < steps ? "Resume" : "Open"} the run of ${new Date(record.date).toLocaleDateString(undefined, { dateStyle: "medium" })}`;
    }
  });

  void probeDevice().then(({ webgpu, reason }) => {
    byId("device-note", HTMLElement).textContent = webgpu ? "WebGPU is available." : (reason ?? "WebGPU is not available.");
    if (!webgpu) form.querySelector<HTMLOptionElement>('option[value="webgpu"]')!.disabled = true;
  });
}

/** Puts a value into the field or the radio buttons of a name. */
function fill(form: HTMLFormElement, name: string, value: string): void {
  const control = form.elements.namedItem(name);
  if (control instanceof RadioNodeList || control instanceof HTMLInputElement || control instanceof HTMLSelectElement) control.value = value;
}
