// Errors that no promise carries: those thrown inside of microtasks and callbacks of the wasm module.

import { inNode } from "./environment.js";

/** Says whether an error is its own business, and so has been dealt with. */
type Claim = (error: unknown) => boolean;

const claims = new Set<Claim>();

/** Asks `claim` about every uncaught error of this thread, until the returned function is called. Errors that nobody claims take their usual course. */
export function claimUncaught(claim: Claim): () => void {
  if (claims.size === 0) listen();
  claims.add(claim);
  return () => {
    if (claims.delete(claim) && claims.size === 0) unlisten();
  };
}

const claimed = (error: unknown) => [...claims].some((claim) => claim(error));

function onException(error: unknown): void {
  if (claimed(error) || process.listenerCount("uncaughtException") > 1) return;
  // Without this listener the error would have ended the process: so it does.
  process.off("uncaughtException", onException);
  setImmediate(() => {
    throw error;
  });
}

function onError(event: Event): void {
  const error: unknown = "reason" in event ? event.reason : (event as ErrorEvent).error;
  if (claimed(error)) event.preventDefault();
}

function listen(): void {
  if (inNode) {
    // Unhandled rejections arrive here, too.
    process.on("uncaughtException", onException);
    return;
  }
  globalThis.addEventListener("error", onError);
  globalThis.addEventListener("unhandledrejection", onError);
}

function unlisten(): void {
  if (inNode) {
    process.off("uncaughtException", onException);
    return;
  }
  globalThis.removeEventListener("error", onError);
  globalThis.removeEventListener("unhandledrejection", onError);
}
