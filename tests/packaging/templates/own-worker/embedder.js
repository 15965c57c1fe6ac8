// The page's own worker: models live in its thread.

import { Jepa } from "webjepa/core";
import { embed } from "./app.js";

addEventListener("message", async ({ data: model }) => {
  postMessage(await embed(Jepa, model).then((worker) => ({ worker }), ({ stack }) => ({ error: stack })));
});
