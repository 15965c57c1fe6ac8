/** Why a camera was refused, in words for the visitor. */
const REASONS: Record<string, string> = {
  NotAllowedError: "The browser was not allowed to use the camera. Allow it in the address bar and try again.",
  NotFoundError: "No camera was found.",
  NotReadableError: "The camera is in use by another program.",
};

/** A camera's pictures; an Error with words for the visitor where there are none. */
export async function openCamera(video: MediaTrackConstraints): Promise<MediaStream> {
  if (!navigator.mediaDevices) throw new Error("Cameras can be used on secure (https) pages only.");
  try {
    return await navigator.mediaDevices.getUserMedia({ video });
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
    throw new Error(REASONS[error.name] ?? error.message, { cause: error });
  }
}

export function closeCamera(stream: MediaStream): void {
  for (const track of stream.getTracks()) track.stop();
}
