// webjepa through its public API, at its defaults but for the number of threads.

export function whereItComputes(worker, threads) {
  const where = worker && typeof document === "object" ? "in its worker" : "in the calling thread";
  return threads > 1 ? `${where}, ${threads} threads` : where;
}

export async function open({ libraries, model, batch, device, threads, base, worker = true }) {
  const { Jepa } = await import(libraries.webjepa);
  const jepa = await Jepa.load(`${base}/`, { backend: device, threads, dtype: "f32", worker, cache: "none" });
  const size = { width: model.imageSize, height: model.imageSize, channels: 3, ...(model.frames > 1 && { frames: model.frames }) };
  return {
    name: "webjepa",
    setting: whereItComputes(worker, jepa.threads),
    async run({ interleaved }) {
      const images = interleaved.map((data) => ({ data, ...size }));
      return (await jepa.embed(batch === 1 ? images[0] : images, { pool: "none", preprocess: false })).data;
    },
    close: () => jepa.dispose(),
  };
}
