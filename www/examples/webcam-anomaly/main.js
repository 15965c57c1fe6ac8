// Learns for a few seconds what the camera usually sees, then tells when it sees something else. Nothing is recorded.

import { Jepa, videoFrames } from "webjepa";
import { Usual } from "./usual.js";

/** Frames that are taken for usual. */
const LEARNT = 20;

const video = document.querySelector("#video");
const [watch, stop] = [document.querySelector("#watch"), document.querySelector("#stop")];
const meter = document.querySelector("#meter");
const status = document.querySelector("#status");

const jepa = await Jepa.load(new URL("../model/", document.baseURI), { cache: "opfs" });
status.textContent = "Ready. Leave the scene as it usually is, and press Watch.";
watch.disabled = false;

watch.addEventListener("click", async () => {
  const stopping = new AbortController();
  const { signal } = stopping;
  watch.disabled = true;
  stop.disabled = false;
  stop.onclick = () => stopping.abort();
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 320 } } });
    video.srcObject = stream;
    await video.play();
    const usual = new Usual();
    for await (const frame of videoFrames(video, { fps: 4, signal })) {
      const { data } = await jepa.embed(frame, { signal });
      frame.close();
      if (usual.count < LEARNT) {
        usual.learn(data);
        status.textContent = `Learning what is usual: ${usual.count} of ${LEARNT}`;
        continue;
      }
      meter.value = usual.strangeness(data);
      status.textContent = meter.value > 1 ? "Something is different." : "As usual.";
    }
  } catch (error) {
    status.textContent = signal.aborted ? "Stopped." : `Ended: ${error.message}`;
  } finally {
    for (const track of stream?.getTracks() ?? []) track.stop();
    watch.disabled = false;
    stop.disabled = true;
  }
});
