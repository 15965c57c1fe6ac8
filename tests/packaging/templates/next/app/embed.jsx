"use client";

import { useEffect, useRef } from "react";
import { Jepa } from "webjepa";
import { start } from "../app.js";

export default function Embed() {
  const button = useRef(null);
  const output = useRef(null);
  useEffect(() => start(Jepa, button.current, output.current), []);
  return (
    <>
      <button ref={button} disabled>
        Embed
      </button>
      <output ref={output} />
    </>
  );
}
