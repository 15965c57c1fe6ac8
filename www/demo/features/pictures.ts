import coffee from "../../../tests/fixtures/ijepa_ti16/image.png";
import eyeLeft from "../../../tests/fixtures/vjepa2_pan/frames/frame_0.png";
import eyeRight from "../../../tests/fixtures/vjepa2_pan/frames/frame_7.png";
import { mountDrop } from "../shared/drop";
import { problemOf } from "../shared/problems";
import type { Picture, Store } from "./state";

const EXAMPLES = [
  { name: "Coffee", url: coffee, credit: "Photograph: Rachel Michetti, CC0, from scikit-image" },
  { name: "Cat’s eye, left", url: eyeLeft, credit: "Photograph: Stefan van der Walt (detail), CC0, from scikit-image" },
  { name: "Cat’s eye, right", url: eyeRight, credit: "Photograph: Stefan van der Walt (detail), CC0, from scikit-image" },
];

/** Longer side of the copy that the page draws: enough for the stage on a dense screen, small beside a camera's twelve megapixels. */
const SHOWN_SIDE = 1024;

let nextId = 0;

/** Adds pictures, selects the first of them when nothing is selected or `select` asks for it, and reports those that cannot be shown. */
export async function addPictures(store: Store, items: { blob: Blob; name: string; credit?: string }[], select = true): Promise<void> {
  store.change({ problem: undefined });
  const added: Picture[] = [];
  for (const item of items) {
    try {
      added.push({ ...item, id: nextId++, bitmap: await shown(item.blob), state: "waiting" });
    } catch {
      store.change({ problem: { title: "The picture cannot be read", detail: `${item.name} is not a picture that this browser can decode.`, code: "bad-input" } });
    }
  }
  const { pictures, selected } = store.state;
  store.change({ pictures: [...pictures, ...added], selected: select ? (added[0] ?? selected) : (selected ?? added[0]) });
}

export function removePicture(store: Store, picture: Picture): void {
  const pictures = store.state.pictures.filter((other) => other !== picture);
  const selected = store.state.selected === picture ? pictures[0] : store.state.selected;
  store.change({ pictures, selected });
  picture.bitmap.close();
}

export async function addExamples(store: Store): Promise<void> {
  try {
    const items = await Promise.all(EXAMPLES.map(async ({ url, ...about }) => ({ ...about, blob: await (await fetch(url)).blob() })));
    await addPictures(store, items, false);
  } catch (error) {
    store.change({ problem: problemOf(error) });
  }
}

/** Pictures come from the file dialog, by drop, or by paste, anywhere on the page. */
export function mountPictureInputs(store: Store, { choose, files, veil }: { choose: HTMLButtonElement; files: HTMLInputElement; veil: HTMLElement }): void {
  const addFiles = (list: Iterable<File>) => {
    const pictures = [...list].filter((file) => file.type.startsWith("image/"));
    if (pictures.length > 0) void addPictures(store, pictures.map((file) => ({ blob: file, name: file.name })));
    else store.change({ problem: { title: "No pictures found", detail: "None of these files is a picture. PNG, JPEG, WebP, AVIF and GIF files can be used.", code: "bad-input" } });
  };

  choose.addEventListener("click", () => files.click());
  files.addEventListener("change", () => {
    if (files.files?.length) addFiles(files.files);
    files.value = "";
  });

  mountDrop(veil, (transfer) => addFiles(transfer.files));
  document.addEventListener("paste", (event) => {
    if (event.clipboardData?.files.length) addFiles(event.clipboardData.files);
  });
}

async function shown(blob: Blob): Promise<ImageBitmap> {
  const full = await createImageBitmap(blob);
  const scale = SHOWN_SIDE / Math.max(full.width, full.height);
  if (scale >= 1) return full;
  const size = { resizeWidth: Math.max(1, Math.round(full.width * scale)), resizeHeight: Math.max(1, Math.round(full.height * scale)) };
  try {
    return await createImageBitmap(full, { ...size, resizeQuality: "high" });
  } finally {
    full.close();
  }
}
