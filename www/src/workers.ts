// Puts models and trainers into workers unless told otherwise. Of the package's entries `webjepa` imports this, `webjepa/core` does not.

import { WorkerEngine } from "./client.js";
import { useWorkers } from "./host.js";

useWorkers(() => new WorkerEngine());
