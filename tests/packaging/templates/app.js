// What every page of these projects does; the harness puts a copy beside each project's own files.

/** Embeds the picture in the folder `model`, in a worker and in this thread. */
async function embed(Jepa) {
  const model = new URL("model/", document.baseURI);
  const { data, ...size } = await (await fetch(new URL("picture.json", model))).json();
  const results = {};
  for (const [place, worker] of Object.entries({ worker: true, thread: false })) {
    const jepa = await Jepa.load(model, { backend: "cpu", worker });
    const embedding = await jepa.embed({ ...size, data: Float32Array.from(data) }, { preprocess: false });
    results[place] = { shape: embedding.shape, data: [...embedding.data] };
    await jepa.dispose();
  }
  return results;
}

/** Shows what `embed` gives, or why there is nothing, when the button is pressed. */
export function start(Jepa, button, output) {
  button.addEventListener("click", async () => {
    output.textContent = await embed(Jepa).then(JSON.stringify, (error) => error.stack);
  });
  button.disabled = false;
}
