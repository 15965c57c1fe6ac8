import "./workers.js";

export * from "./in-thread.js";
