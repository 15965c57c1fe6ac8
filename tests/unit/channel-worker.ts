// A worker that is none, for tests of what is said to it and by it.

import type { ToWorker } from "../../www/src/protocol.js";
import { serve } from "../../www/src/serve.js";

/** A Worker in this thread: what is said to it is cloned and transferred as it would be. */
export class ChannelWorker extends EventTarget {
  static started: ChannelWorker[] = [];
  readonly #channel = new MessageChannel();
  terminated = false;

  constructor(readonly url: URL, readonly options: WorkerOptions) {
    super();
    ChannelWorker.started.push(this);
    const { port1, port2 } = this.#channel;
    port1.onmessage = ({ data }) => this.terminated || this.dispatchEvent(new MessageEvent("message", { data }));
    const scope = {
      postMessage: (message: unknown, transfer: Transferable[]) => port2.postMessage(message, transfer),
      addEventListener: (_: string, listener: (event: MessageEvent<ToWorker>) => void) => (port2.onmessage = listener),
    };
    serve(scope);
  }

  postMessage(message: unknown, transfer: Transferable[]) {
    if (!this.terminated) this.#channel.port1.postMessage(message, transfer);
  }

  terminate() {
    this.terminated = true;
    this.#channel.port1.close();
  }
}
