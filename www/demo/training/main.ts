import "../shared/parts.css";
import "./training.css";
import { byId } from "../shared/dom";
import { mountLayout } from "../shared/layout";
import { mountProblem } from "../shared/problems";
import { Store } from "../shared/store";
import { mountDownloads } from "./downloads";
import { mountForm } from "./form";
import { Run } from "./run";
import { emptyHistory, type State } from "./state";
import { mountStatus } from "./status";
import { mountViews } from "./views";

const store = new Store<State>({ phase: "idle", history: emptyHistory(), accuracies: { step: [], accuracy: [] } });
const run = new Run(store);

mountLayout("../");
mountStatus(store);
mountProblem(byId("problem", HTMLElement), store);
mountViews(store);
mountForm(store, run);
mountDownloads(store, run);
