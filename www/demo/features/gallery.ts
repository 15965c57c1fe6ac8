import { drawOverlay } from "webjepa/viz";
import { byId, h } from "../shared/dom";
import type { Encoder } from "./encoder";
import { ranked, type FeatureMap, type SimilarityMaps } from "./maps";
import { removePicture } from "./pictures";
import type { Picture, State, Store } from "./state";

/** Pixels of a thumbnail's side: sharp on a dense screen. */
const SIDE = 288;

interface Card {
  root: HTMLLIElement;
  main: HTMLButtonElement;
  map: HTMLCanvasElement;
  heat: HTMLCanvasElement;
  score: HTMLElement;
  note: HTMLElement;
  retry: HTMLButtonElement;
}

/** All pictures as cards, sorted by similarity to the selected one, each with both maps. */
export class Gallery {
  private readonly list = byId("cards", HTMLOListElement);
  private readonly title = byId("gallery-title", HTMLElement);
  private readonly cards = new Map<Picture, Card>();

  constructor(
    private readonly store: Store,
    private readonly encoder: Encoder,
  ) {}

  render(state: State, maps: ReadonlyMap<Picture, FeatureMap>, similarity: SimilarityMaps | undefined): void {
    this.title.textContent = state.selected && state.pictures.length > 1 ? `Pictures, most similar to ${state.selected.name} first` : "Pictures";
    const order = ranked(state);
    for (const [picture, card] of this.cards) {
      if (state.pictures.includes(picture)) continue;
      card.root.remove();
      this.cards.delete(picture);
    }
    order.forEach(({ picture, similarity: score }, index) => {
      const card = this.cards.get(picture) ?? this.add(picture);
      place(this.list, card.root, index);
      const chosen = picture === state.selected;
      card.root.dataset.state = picture.state;
      card.main.setAttribute("aria-pressed", String(chosen));
      card.score.replaceChildren(...(score === undefined ? [] : [h("span", { class: "sr-only" }, ", similarity "), score.toFixed(4)]));
      card.note.textContent = noteOf(picture);
      card.retry.hidden = picture.state !== "failed";
      const options = { opacity: state.opacity, smooth: state.smooth, square: true, side: SIDE };
      drawOverlay(card.map, picture.bitmap, maps.get(picture)?.overlay, options);
      drawOverlay(card.heat, picture.bitmap, similarity?.overlays.get(picture), options);
    });
  }

  private add(picture: Picture): Card {
    const map = h("canvas", { "aria-hidden": "true" });
    const heat = h("canvas", { "aria-hidden": "true" });
    const score = h("span", { class: "mono" });
    const note = h("span", { class: "card-note" });
    const main = h(
      "button",
      { type: "button", class: "card-main" },
      h("span", { class: "pictures" }, map, heat),
      h("span", { class: "card-line" }, h("span", { class: "name", title: picture.name }, picture.name), score),
    );
    const retry = h("button", { type: "button", hidden: true }, "Try again");
    const remove = h("button", { type: "button", class: "card-remove quiet", "aria-label": `Remove ${picture.name}` }, "×");
    main.addEventListener("click", () => this.store.change({ selected: picture }));
    retry.addEventListener("click", () => this.encoder.retry(picture));
    remove.addEventListener("click", () => this.remove(picture));
    const root = h("li", { class: "card" }, h("div", { class: "card-top" }, main, remove), h("div", { class: "card-foot" }, note, retry));
    const card = { root, main, map, heat, score, note, retry };
    this.cards.set(picture, card);
    return card;
  }

  /** The focus goes to the next card, not to the top of the page. */
  private remove(picture: Picture): void {
    const root = this.cards.get(picture)?.root;
    const neighbour = root?.nextElementSibling ?? root?.previousElementSibling;
    removePicture(this.store, picture);
    (neighbour?.querySelector("button") ?? byId("choose", HTMLButtonElement)).focus();
  }
}

function noteOf({ state, problem }: Picture): string {
  switch (state) {
    case "waiting":
      return "Waiting";
    case "embedding":
      return "Embedding…";
    case "failed":
      return problem ? `${problem.title}. ${problem.detail}` : "Failed";
    case "ready":
      return "";
  }
}

/** Moves an element only when it is elsewhere, and gives it the focus back: browsers drop it when an element moves. */
function place(list: HTMLElement, element: HTMLElement, index: number): void {
  if (list.children[index] === element) return;
  const focused = element.contains(document.activeElement) ? (document.activeElement as HTMLElement) : undefined;
  list.insertBefore(element, list.children[index] ?? null);
  focused?.focus({ preventScroll: true });
}
