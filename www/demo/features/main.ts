import "../shared/parts.css";
import "./features.css";
import { byId } from "../shared/dom";
import { mountLayout } from "../shared/layout";
import { mountProblem } from "../shared/problems";
import { Store } from "../shared/store";
import { mountCamera } from "./camera";
import { Encoder } from "./encoder";
import { Gallery } from "./gallery";
import { featureMaps, similarityMaps } from "./maps";
import { mountMasks } from "./masks";
import { mountModelForm } from "./model-form";
import { addExamples, mountPictureInputs } from "./pictures";
import { mountReadout } from "./readout";
import { mountTools, Stage } from "./stage";
import type { State } from "./state";
import { mountStatus } from "./status";

const store = new Store<State>({ pictures: [], probe: { u: 0.5, v: 0.5 }, opacity: 0.7, joint: true, smooth: false });
const encoder = new Encoder(store);

mountLayout("./");
mountStatus(store);
mountProblem(byId("problem", HTMLElement), store);
mountTools(store, encoder);
mountReadout(byId("readout", HTMLElement), store);
mountModelForm(store, encoder);
mountPictureInputs(store, {
  choose: byId("choose", HTMLButtonElement),
  files: byId("files", HTMLInputElement),
  veil: byId("drop-veil", HTMLElement),
});
mountCamera(store, byId("camera", HTMLButtonElement));
mountMasks(store);

const stage = new Stage(store);
const gallery = new Gallery(store, encoder);
store.subscribe((state) => {
  const maps = featureMaps(state.pictures, state.joint);
  const similarity = similarityMaps(state);
  stage.render(state, maps, similarity);
  gallery.render(state, maps, similarity);
  if (state.pictures.some((picture) => picture.state === "waiting")) void encoder.run();
});

void addExamples(store);
