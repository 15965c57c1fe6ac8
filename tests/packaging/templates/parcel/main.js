import { Jepa } from "webjepa";
import { start } from "./app.js";

start(Jepa, document.querySelector("button"), document.querySelector("output"));
