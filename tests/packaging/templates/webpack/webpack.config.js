import { cpSync } from "node:fs";

export default {
  mode: "production",
  entry: "./main.js",
  output: { clean: true },
  // The modules are larger than the pages of which webpack's hints think.
  performance: { hints: false },
  plugins: [{ apply: (compiler) => void compiler.hooks.afterEmit.tap("page", () => cpSync("index.html", "dist/index.html")) }],
};
