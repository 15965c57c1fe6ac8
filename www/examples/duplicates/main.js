// Choose a folder: pictures that are nearly the same, also resized or saved anew, are shown in groups.

import { Jepa, cosineSimilarity } from "webjepa";
import { groupsOf, withoutMean } from "./groups.js";

const folder = document.querySelector("#folder");
const threshold = document.querySelector("#threshold");
const status = document.querySelector("#status");
let pictures = [];

const jepa = await Jepa.load(new URL("../model/", document.baseURI), { cache: "opfs" });
status.textContent = `Ready, on ${jepa.backend}.`;
folder.disabled = false;

folder.addEventListener("change", async () => {
  const files = [...folder.files].filter(({ type }) => type.startsWith("image/"));
  pictures = [];
  for (const file of files) {
    status.textContent = `Looking at ${file.name}, ${pictures.length + 1} of ${files.length}`;
    const { data } = await jepa.embed(file);
    pictures.push({ name: file.name, address: URL.createObjectURL(file), embedding: data });
  }
  // What all pictures have in common would make all of them alike.
  withoutMean(pictures.map(({ embedding }) => embedding));
  show();
});
threshold.addEventListener("input", show);

function show() {
  const least = threshold.valueAsNumber;
  document.querySelector("#shown").textContent = least.toFixed(3);
  const groups = groupsOf(pictures, (a, b) => cosineSimilarity(a.embedding, b.embedding) >= least);
  status.textContent = `${groups.length} groups among ${pictures.length} pictures`;
  document.querySelector("#groups").replaceChildren(
    ...groups.map((group) => {
      const section = document.createElement("section");
      section.append(...group.map(({ name, address }) => Object.assign(new Image(), { src: address, alt: name, title: name })));
      return section;
    }),
  );
}
