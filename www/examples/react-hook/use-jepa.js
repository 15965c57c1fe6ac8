// A model's life in a component: loaded when the component appears, given back when it goes.

import { useEffect, useState } from "react";
import { Jepa } from "webjepa";

/**
 * @param {string} source - the model's address
 * @param {Pick<import("webjepa").LoadOptions, "backend" | "dtype" | "cache">} [options]
 * @returns {{ jepa?: Jepa, progress: number, error?: Error }}
 */
export function useJepa(source, { backend, dtype, cache } = {}) {
  const [state, setState] = useState({ progress: 0 });
  useEffect(() => {
    const leaving = new AbortController();
    const { signal } = leaving;
    setState({ progress: 0 });
    const onProgress = ({ overall }) => !signal.aborted && setState({ progress: overall });
    const loading = Jepa.load(source, { backend, dtype, cache, signal, onProgress });
    loading.then(
      (jepa) => !signal.aborted && setState({ jepa, progress: 1 }),
      (error) => !signal.aborted && setState({ error, progress: 0 }),
    );
    return () => {
      leaving.abort();
      // A load that fails has nothing to give back.
      loading.then((jepa) => jepa.dispose(), () => {});
    };
  }, [source, backend, dtype, cache]);
  return state;
}
