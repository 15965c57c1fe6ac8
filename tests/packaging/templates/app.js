// What the pages of these projects do; the harness puts a copy beside each project's own files.

/** The embedding of the picture in the folder `model`. */
export async function embed(Jepa, model, options) {
  const { data, ...size } = await (await fetch(new URL("picture.json", model))).json();
  const jepa = await Jepa.load(model, { backend: "cpu", ...options });
  const embedding = await jepa.embed({ ...size, data: Float32Array.from(data) }, { preprocess: false });
  await jepa.dispose();
  return { shape: embedding.shape, data: [...embedding.data], threads: jepa.threads };
}

/** Embeds in a worker, with a second thread where the page is cross-origin isolated, and in this thread when the button is pressed. */
export function start(Jepa, button, output) {
  show(button, output, async (model) => ({ worker: await embed(Jepa, model, { worker: true, threads: 2 }), thread: await embed(Jepa, model, { worker: false }) }));
}

/** Shows what `task` makes of the folder `model`, or why there is nothing, when the button is pressed. */
export function show(button, output, task) {
  button.addEventListener("click", async () => {
    output.textContent = await task(new URL("model/", document.baseURI)).then(JSON.stringify, (error) => error.stack);
  });
  button.disabled = false;
}
