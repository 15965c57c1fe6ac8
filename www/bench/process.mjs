// Processes with one request and one answer. Small on purpose: a process begins with the peak of its parent's memory.
import { fork } from "node:child_process";
import { tmpdir } from "node:os";
import { fileURLToPath } from "node:url";
import { LAVAPIPE } from "../../scripts/hosts.mjs";
import { say } from "../../scripts/lib.mjs";

/** What a new Node process of the module at `url`, with lavapipe as its WebGPU adapter, answers to a request: `{ result }` or `{ error }`, after any number of `{ line }`. */
export function inProcess(url, request) {
  const child = fork(fileURLToPath(url), {
    env: { ...process.env, VK_ICD_FILENAMES: LAVAPIPE, XDG_RUNTIME_DIR: tmpdir() },
    stdio: ["ignore", "ignore", "inherit", "ipc"],
  });
  return new Promise((resolve, reject) => {
    child.on("message", ({ line, result, error }) => (line ? say(line) : error ? reject(new Error(error)) : resolve(result)));
    child.on("exit", (code) => reject(new Error(`the Node host ended with ${code}`)));
    child.send(request);
  });
}

/**
 * The other side: answers the one request of this process with what `work` makes of it, and ends. Dawn keeps a process alive, and tearing it down is not what is
 * measured. The listener stays, as without one nothing may be left that Node waits for, and before it ends Node waits for V8 to compile all of a
 * library's WebAssembly, which takes minutes.
 */
export function answering(work) {
  process.on("message", async (request) => {
    const answer = await work(request).then((result) => ({ result }), (error) => ({ error: String(error?.stack ?? error) }));
    process.send(answer, () => process.exit(0));
  });
}
