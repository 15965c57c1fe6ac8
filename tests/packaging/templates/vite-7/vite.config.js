export default {
  base: "./",
  // Up to Vite 7 workers are one file unless told otherwise, and pre-bundling moves the package's code away from its worker and modules.
  worker: { format: "es" },
  optimizeDeps: { exclude: ["webjepa"] },
};
