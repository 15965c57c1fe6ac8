import { StrictMode, useState } from "react";
import { createRoot } from "react-dom/client";
import { cosineSimilarity } from "webjepa";
import { useJepa } from "./use-jepa.js";

function Comparison() {
  const { jepa, progress, error } = useJepa(new URL("../model/", document.baseURI).href);
  const [similarity, setSimilarity] = useState();
  if (error) return <p role="alert">{error.message}</p>;
  if (!jepa) return <progress aria-label="Loading the model" value={progress} />;
  const compare = async ({ target }) => {
    const [first, second] = target.files;
    if (!second) return setSimilarity(undefined);
    setSimilarity(cosineSimilarity(await jepa.embed(first), await jepa.embed(second)));
  };
  return (
    <p>
      <label>
        Two pictures: <input type="file" accept="image/*" multiple onChange={compare} />
      </label>
      {similarity !== undefined && <output> Their similarity is {similarity.toFixed(4)}.</output>}
    </p>
  );
}

function App() {
  const [shown, setShown] = useState(true);
  return (
    <main>
      <h1>useJepa</h1>
      <button type="button" onClick={() => setShown(!shown)}>{shown ? "Hide" : "Show"}</button>
      {shown && <Comparison />}
    </main>
  );
}

// Strict mode mounts components twice: the first model is given back before it is used.
createRoot(document.querySelector("#root")).render(<StrictMode><App /></StrictMode>);
