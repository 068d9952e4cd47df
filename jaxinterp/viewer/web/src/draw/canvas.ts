// Canvases at the screen's own resolution.

/** Give a canvas a size in CSS pixels; clears it. Returns a context in CSS pixels.
 *
 * fresh: for printing, where drawing is recorded: a recorded clearing would wipe the canvases below on the paper. */
export function fit(canvas: HTMLCanvasElement, width: number, height: number, fresh = false): CanvasRenderingContext2D {
  const ratio = Math.min(3, window.devicePixelRatio || 1);
  const w = Math.max(1, Math.round(width * ratio));
  const h = Math.max(1, Math.round(height * ratio));
  if (fresh || canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d")!;
  context.setTransform(1, 0, 0, 1, 0, 0);
  if (!fresh) context.clearRect(0, 0, w, h);
  context.setTransform(w / width, 0, 0, h / height, 0, 0);
  context.globalAlpha = 1;
  context.globalCompositeOperation = "source-over";
  return context;
}
