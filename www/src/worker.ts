// The module that a dedicated worker runs; see client.ts for the other side.

import { serve, type Scope } from "./serve.js";

serve(globalThis as unknown as Scope);
