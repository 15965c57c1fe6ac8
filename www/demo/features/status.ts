import { byId } from "../shared/dom";
import type { State, Store } from "./state";

/** The line that says what the page is doing; announced by screen readers, but no faster than they can speak. */
export function mountStatus(store: Store): void {
  const text = byId("status-text", HTMLElement);
  const lamp = byId("lamp", HTMLElement);
  const progress = byId("progress", HTMLProgressElement);
  const cancel = byId("cancel", HTMLButtonElement);

  cancel.addEventListener("click", () => store.state.activity?.cancel?.());
  store.subscribe((state) => {
    const { activity, model } = state;
    const line = activity?.text ?? summary(state);
    if (text.textContent !== line) text.textContent = line;
    text.setAttribute("aria-live", activity?.fraction === undefined ? "polite" : "off");
    lamp.dataset.state = activity ? "busy" : model ? "ready" : "none";
    progress.hidden = !activity;
    if (activity?.fraction === undefined) progress.removeAttribute("value");
    else progress.value = activity.fraction;
    cancel.hidden = !activity?.cancel;
  });
}

function summary({ model, pictures }: State): string {
  if (!model) return "No model is loaded";
  const ready = pictures.filter((picture) => picture.state === "ready").length;
  const failed = pictures.filter((picture) => picture.state === "failed").length;
  const counts = [`${ready} ${ready === 1 ? "picture" : "pictures"} embedded`];
  if (failed > 0) counts.push(`${failed} not embedded`);
  const where = model.jepa.backend === "webgpu" ? "on WebGPU." : `on the CPU. ${model.jepa.fallbackReason ?? ""}`;
  return `Ready: ${counts.join(", ")}, ${where}`;
}
