// The native side: PyTorch in a process of its own, where `python3` has it.
import { execFileSync, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

export function hasPyTorch() {
  try {
    execFileSync("python3", ["-c", "import torch"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

/** A process of pytorch.py: one request at a time, in turn. */
export class PyTorch {
  #child = spawn("python3", [fileURLToPath(new URL("pytorch.py", import.meta.url))], { stdio: ["pipe", "pipe", "inherit"] });
  #chunks = this.#child.stdout[Symbol.asyncIterator]();
  #ahead = Buffer.alloc(0);
  #turn = Promise.resolve();

  constructor() {
    // Where it has ended, reading says so.
    this.#child.stdin.on("error", () => undefined);
  }

  ask(body) {
    const answer = this.#turn.then(() => this.#exchange(body));
    this.#turn = answer.catch(() => undefined);
    return answer;
  }

  async #exchange(body) {
    const head = Buffer.alloc(4);
    head.writeUInt32LE(body.length);
    this.#child.stdin.write(head);
    this.#child.stdin.write(body);
    const length = (await this.#read(4)).readUInt32LE();
    return this.#read(length);
  }

  async #read(length) {
    const parts = [this.#ahead];
    for (let have = this.#ahead.length; have < length; have += parts.at(-1).length) {
      const { value, done } = await this.#chunks.next();
      if (done) throw new Error("PyTorch's process has ended");
      parts.push(value);
    }
    const whole = Buffer.concat(parts);
    this.#ahead = whole.subarray(length);
    return whole.subarray(0, length);
  }

  close() {
    this.#child.kill();
  }
}
