import { show } from "./app.js";

show(document.querySelector("button"), document.querySelector("output"), async (model) => {
  const worker = new Worker(new URL("./embedder.js", import.meta.url), { type: "module" });
  worker.postMessage(model.href);
  const { data } = await new Promise((resolve) => worker.addEventListener("message", resolve, { once: true }));
  worker.terminate();
  if (data.error) throw new Error(data.error);
  return data;
});
