// Each folder is a page of its own; a copy of one needs none of this.

import { defineConfig } from "vite";

export default defineConfig({
  base: "./",
  build: { target: "es2022", rolldownOptions: { input: ["photo-search", "duplicates", "webcam-anomaly", "react-hook"].map((name) => `${name}/index.html`) } },
});
