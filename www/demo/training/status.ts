import { byId } from "../shared/dom";
import type { State, Store } from "./state";

/** The line that says what the page is doing; steps are not announced, or a screen reader would never be silent. */
export function mountStatus(store: Store): void {
  const text = byId("status-text", HTMLElement);
  const lamp = byId("lamp", HTMLElement);
  const progress = byId("progress", HTMLProgressElement);
  store.subscribe((state) => {
    const { phase, activity, info, last } = state;
    const line = lineOf(state);
    text.setAttribute("aria-live", phase === "running" ? "off" : "polite");
    if (text.textContent !== line) text.textContent = line;
    const busy = activity !== undefined || phase === "running" || phase === "pausing" || phase === "preparing";
    lamp.dataset.state = busy ? "busy" : info ? "ready" : "idle";
    progress.hidden = !busy;
    const step = last?.step ?? info?.step;
    if (step !== undefined && info) progress.value = step / info.steps;
    else progress.removeAttribute("value");
  });
}

function lineOf({ phase, activity, info, last }: State): string {
  const step = last?.step ?? info?.step ?? 0;
  const place = info ? `step ${step} of ${info.steps}` : "";
  if (activity) return info ? `${activity}, ${place}` : activity;
  switch (phase) {
    case "idle":
      return "Ready to train";
    case "preparing":
      return "Preparing";
    case "running":
      return `Training on ${info?.backend === "webgpu" ? "WebGPU" : "the CPU"}, ${place}${last ? `, ${last.ms.toFixed(0)} ms a step` : ""}`;
    case "pausing":
      return `Pausing after the step that is under way, ${place}`;
    case "paused":
      return `Paused and saved, ${place}`;
    case "done":
      return `Done: ${place}. The model can be looked at in the feature maps.`;
  }
}
