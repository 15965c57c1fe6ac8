// The module that a dedicated worker runs; see client.ts for the other side.

import { useThreads } from "./instance.js";
import { serve, type Scope } from "./serve.js";
import { loadSharedGlue, recruit } from "./threads.js";

useThreads({ load: loadSharedGlue, recruit });

const scope = globalThis as unknown as Scope;
scope.postMessage({ type: "started" }, []);

/**
 * A worker that ends itself, or that the browser ends, fires no event. A Web Lock of it becomes free then, which the page waits for. Frames
 * without an origin have no locks, nor have pages that are not secure: their workers go unwatched.
 */
const watched = new Promise<void>((resolve) => {
  const alive = (lock?: string) => {
    scope.postMessage({ type: "alive", ...(lock === undefined ? {} : { lock }) }, []);
    resolve();
  };
  if (!navigator.locks) return alive();
  const lock = `webjepa ${crypto.randomUUID()}`;
  const held = navigator.locks.request(lock, () => {
    alive(lock);
    return new Promise(() => {});
  });
  held.catch(() => alive());
});

serve(scope, watched);
