// The module that a dedicated worker runs; see client.ts for the other side.

import { serve, type Scope } from "./serve.js";

const scope = globalThis as unknown as Scope;
serve(scope);

// A worker that ends itself, or that the browser ends, fires no event. A Web Lock of it becomes free then, which the page waits for.
if (navigator.locks) {
  const lock = `webjepa ${crypto.randomUUID()}`;
  const held = navigator.locks.request(lock, () => {
    scope.postMessage({ type: "alive", lock }, []);
    return new Promise(() => {});
  });
  // Frames without an origin have no locks: their workers go unwatched.
  held.catch(() => {});
}
