// Choose a folder, then a photo: the others are sorted by how much they are like it. Nothing is uploaded.

import { Jepa, JepaError, cosineSimilarity } from "webjepa";

const folder = document.querySelector("#folder");
const status = document.querySelector("#status");
const list = document.querySelector("#photos");
let photos = [];

const jepa = await Jepa.load(new URL("../model/", document.baseURI), { cache: "opfs" });
status.textContent = `Ready, on ${jepa.backend}.`;
folder.disabled = false;

folder.addEventListener("change", async () => {
  const files = [...folder.files].filter(({ type }) => type.startsWith("image/"));
  folder.disabled = true;
  photos = [];
  let refused = 0;
  for (const file of files) {
    status.textContent = `Looking at ${file.name}, ${photos.length + refused + 1} of ${files.length}`;
    try {
      const { data } = await jepa.embed(file);
      photos.push({ embedding: data, button: buttonOf(file) });
    } catch (error) {
      // A damaged picture is no reason to stop.
      if (!(error instanceof JepaError && error.code === "bad-input")) throw error;
      refused++;
    }
  }
  folder.disabled = false;
  status.textContent = `${photos.length} photos${refused ? `, ${refused} that cannot be read` : ""}. Choose one.`;
  show(photos);
});

function buttonOf(file) {
  const image = Object.assign(new Image(), { src: URL.createObjectURL(file), alt: file.name });
  const button = Object.assign(document.createElement("button"), { type: "button" });
  button.append(image);
  button.addEventListener("click", () => {
    const query = photos.find((photo) => photo.button === button);
    const similarity = (photo) => cosineSimilarity(query.embedding, photo.embedding);
    show([...photos].sort((a, b) => similarity(b) - similarity(a)));
    for (const photo of photos) photo.button.setAttribute("aria-pressed", photo === query);
  });
  return button;
}

function show(ordered) {
  list.replaceChildren(
    ...ordered.map(({ button }) => {
      const item = document.createElement("li");
      item.append(button);
      return item;
    }),
  );
}
