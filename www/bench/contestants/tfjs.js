/** TensorFlow.js in production mode on a backend of its own name. */
export async function load({ tfjs, tfjsWasm, tfjsWasmFiles, tfjsWebgpu }, backend, threads) {
  const module = await import(tfjs);
  const tf = module.default ?? module;
  if (backend === "webgpu") await import(tfjsWebgpu);
  if (backend === "wasm") {
    const wasm = await import(tfjsWasm);
    const { setThreadsCount, setWasmPaths } = wasm.default ?? wasm;
    setWasmPaths(tfjsWasmFiles);
    setThreadsCount(threads);
  }
  tf.enableProdMode();
  if (!(await tf.setBackend(backend))) throw new Error(`TensorFlow.js has no ${backend} here`);
  await tf.ready();
  return tf;
}
