import { JepaError, type JepaErrorCode } from "webjepa";
import { h } from "./dom";
import type { Store } from "./store";

export interface Problem {
  title: string;
  detail: string;
  code?: JepaErrorCode;
}

const TITLES: Record<JepaErrorCode, string> = {
  "bad-config": "The model's configuration cannot be used",
  "bad-checkpoint": "The model file is damaged or is not a safetensors file",
  "missing-tensor": "The model file does not hold all the weights",
  "shape-mismatch": "The weights do not fit the configuration",
  unsupported: "This is not supported",
  "bad-input": "The picture cannot be read",
  "bad-mask": "The masks cannot be used",
  "no-webgpu": "WebGPU is not available here",
  "device-lost": "The GPU was lost",
  "out-of-memory": "There is not enough memory",
  network: "The download failed",
  integrity: "The download is not the file that was expected",
  aborted: "Stopped",
  disposed: "The model was already unloaded",
  internal: "Something went wrong inside of webjepa",
};

export function problemOf(error: unknown): Problem {
  if (error instanceof JepaError) return { title: TITLES[error.code], detail: error.message, code: error.code };
  return { title: "Something went wrong", detail: error instanceof Error ? error.message : String(error) };
}

/** Shows the state's problem in an alert, until it is dismissed or replaced. */
export function mountProblem<S extends { problem?: Problem | undefined }>(root: HTMLElement, store: Store<S>): void {
  let shown: Problem | undefined;
  store.subscribe(({ problem }) => {
    if (problem === shown) return;
    shown = problem;
    root.replaceChildren();
    if (!problem) return;
    const dismiss = h("button", { type: "button", class: "quiet" }, "Dismiss");
    dismiss.addEventListener("click", () => store.change({ problem: undefined } as Partial<S>));
    const text = h("p", {}, h("strong", {}, `${problem.title}. `), problem.detail);
    if (problem.code) text.append(" ", h("code", {}, problem.code));
    root.append(h("div", { class: "problem" }, text, dismiss));
  });
}
