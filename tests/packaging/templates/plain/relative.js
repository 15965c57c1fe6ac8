import { Jepa } from "./node_modules/webjepa/dist/index.js";
import { start } from "./app.js";

start(Jepa, document.querySelector("button"), document.querySelector("output"));
