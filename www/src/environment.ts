/** True in Node and what behaves like it; false in pages, workers and Electron's renderers. */
export const inNode =
  typeof process === "object" && typeof process.versions?.node === "string" && (process as { type?: string }).type !== "renderer";

/** Gives the event loop a turn, so that aborts, input events and paints get through. */
export function macrotask(): Promise<void> {
  return new Promise((resolve) => {
    if (inNode) {
      setImmediate(resolve);
      return;
    }
    // setTimeout would wait 4 ms when nested, and minutes in a background tab.
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(undefined);
  });
}
