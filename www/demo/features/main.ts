import "./features.css";
import { byId } from "../shared/dom";
import { mountLayout } from "../shared/layout";
import { mountCamera } from "./camera";
import { Encoder } from "./encoder";
import { Gallery } from "./gallery";
import { featureMaps, similarityMaps } from "./maps";
import { BUILT_IN } from "./model-choice";
import { mountModelForm } from "./model-form";
import { addExamples, mountPictureInputs } from "./pictures";
import { mountProblem } from "./problems";
import { mountReadout } from "./readout";
import { mountTools, Stage } from "./stage";
import { Store } from "./state";
import { mountStatus } from "./status";

const store = new Store({ pictures: [], probe: { u: 0.5, v: 0.5 }, opacity: 0.7, joint: true, smooth: false });
const encoder = new Encoder(store);

mountLayout();
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
void encoder.load(BUILT_IN, {});
