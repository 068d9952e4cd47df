// Zoom, pan, select, pin, mark: what pointer and fingers do over the plot, and the camera that the keys use.

import { select } from "d3-selection";
import { zoom, zoomIdentity, ZoomTransform, type D3ZoomEvent } from "d3-zoom";
import { togglePin } from "../../frame/pins";
import type { Session } from "../../model/session";
import { camera } from "./camera";
import { LEFT } from "./axes";
import { type Painter, TOP } from "./painter";

const MOST_ZOOM = 80;
const MOVE_MS = 220;

/** Bind the gestures to the plot element; returns how to take them off again. hover: called with the pointer's place. */
export function bind(session: Session, painter: Painter, plot: HTMLElement, hover: (at: [number, number] | null) => void): () => void {
  // One finger on the whole graph scrolls the page; two zoom, and then one moves the graph.
  const scrolls = (event: Partial<TouchEvent>): boolean => event.touches?.length === 1 && painter.view.k <= 1;
  const behaviour = zoom<HTMLElement, unknown>()
    .scaleExtent([1, MOST_ZOOM])
    .clickDistance(4)
    .extent(() => [
      [0, 0],
      [painter.view.width, painter.view.height],
    ])
    .filter((event: MouseEvent & Partial<TouchEvent>) => !scrolls(event) && (event.type === "wheel" || (!event.ctrlKey && !event.shiftKey && !event.altKey)) && !event.button)
    .on("zoom", ({ transform }: D3ZoomEvent<HTMLElement, unknown>) => {
      plot.style.touchAction = transform.k > 1 ? "none" : "pan-y";
      painter.setView(transform.k, transform.x, transform.y);
    });
  const element = select(plot);
  element.call(behaviour).on("dblclick.zoom", null);

  let moving = 0;
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  const bounds = (): void => {
    const { width, height } = painter.view;
    behaviour.translateExtent([
      [0, 0],
      [width, height],
    ]);
  };
  /** Go to a transform, with a short movement. */
  const go = (end: ZoomTransform): void => {
    bounds();
    cancelAnimationFrame(moving);
    const { k, x, y } = painter.view;
    if (still.matches || Math.abs(Math.log(end.k / k)) + Math.abs(end.x - x) + Math.abs(end.y - y) < 1e-3) return behaviour.transform(element, end);
    const began = performance.now();
    const step = (): void => {
      const t = Math.min(1, (performance.now() - began) / MOVE_MS);
      const s = t * t * (3 - 2 * t);
      const scale = k * (end.k / k) ** s;
      // The places of both ends of the plot move evenly, so that the target does not swing.
      const f = Math.abs(end.k - k) > 1e-6 ? (scale - k) / (end.k - k) : s;
      behaviour.transform(element, new ZoomTransform(scale, x + (end.x - x) * f, y + (end.y - y) * f));
      if (t < 1) moving = requestAnimationFrame(step);
    };
    step();
  };
  const fitTo = (nodes: number[]): void => {
    const layout = painter.layout;
    if (!layout || !nodes.length) return;
    let [left, right, top, bottom] = [Number.POSITIVE_INFINITY, 0, Number.POSITIVE_INFINITY, 0];
    for (const i of nodes) {
      left = Math.min(left, layout.x[i]!);
      right = Math.max(right, layout.x[i]!);
      top = Math.min(top, layout.y[i]!);
      bottom = Math.max(bottom, layout.y[i]!);
    }
    const { width, height } = painter.view;
    const k = Math.max(1, Math.min(12, width / (right - left + 60), height / (bottom - top + 60)));
    go(clamp(k, width / 2 - ((left + right) / 2) * k, height / 2 - ((top + bottom) / 2) * k, width, height));
  };
  camera.reset = () => go(zoomIdentity);
  camera.jump = () => {
    bounds();
    cancelAnimationFrame(moving);
    behaviour.transform(element, zoomIdentity);
  };
  camera.zoom = (factor) => {
    const { k, x, y, width, height } = painter.view;
    const next = Math.max(1, Math.min(MOST_ZOOM, k * factor));
    const [cx, cy] = anchor(session, painter) ?? [width / 2, height / 2];
    go(clamp(next, cx - ((cx - x) * next) / k, cy - ((cy - y) * next) / k, width, height));
  };
  camera.centre = (node) => {
    const { k, width, height } = painter.view;
    const layout = painter.layout;
    if (layout) go(clamp(k, width / 2 - layout.x[node]! * k, height / 2 - layout.y[node]! * k, width, height));
  };
  camera.reveal = (node) => {
    const at = painter.placeOf(node);
    if (at && (at[0] < 8 || at[1] < 8 || at[0] > painter.view.width - 8 || at[1] > painter.view.height - 8)) camera.centre(node);
  };
  camera.toSelection = () => {
    const clicked = session.clicked.peek();
    if (clicked === null) return fitTo(session.view.peek().pinned);
    const list = painter.focusList;
    // The strongest dozen neighbours: all of them would be the whole graph again.
    const near = list ? [...list.order.slice(-12)].map((e) => (list.source[e] === clicked ? list.target[e]! : list.source[e]!)) : [];
    fitTo([clicked, ...near]);
  };

  const place = (event: MouseEvent): [number, number] => {
    const box = plot.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  let from: [number, number] | null = null;
  let dragged = false;
  const onMove = (event: PointerEvent): void => {
    const at = place(event);
    if (from) {
      dragged ||= Math.hypot(at[0] - from[0], at[1] - from[1]) > 4;
      painter.rubber = dragged
        ? { left: Math.min(from[0], at[0]), right: Math.max(from[0], at[0]), top: Math.min(from[1], at[1]), bottom: Math.max(from[1], at[1]) }
        : null;
      painter.ask(TOP);
      return;
    }
    if (event.buttons) return;
    const node = painter.nodeAt(...at);
    plot.style.cursor = node === null ? "" : "pointer";
    if (session.hovered.peek() !== node) session.hovered.value = node;
    hover(node === null ? null : [at[0] + LEFT, at[1]]);
  };
  const onLeave = (): void => {
    session.hovered.value = null;
    hover(null);
  };
  const onDown = (event: PointerEvent): void => {
    bounds();
    hover(null);
    if (event.button || !event.shiftKey) return;
    from = place(event);
    dragged = false;
    plot.setPointerCapture(event.pointerId);
  };
  const onUp = (): void => {
    const rubber = painter.rubber;
    from = null;
    painter.rubber = null;
    if (!rubber || !painter.grid) return;
    const { k, x, y } = painter.view;
    const found = painter.grid.within((rubber.left - x) / k, (rubber.top - y) / k, (rubber.right - x) / k, (rubber.bottom - y) / k);
    session.marked.value = new Set([...session.marked.peek(), ...found]);
    painter.ask(TOP);
  };
  const onClick = (event: MouseEvent): void => {
    if (dragged) {
      dragged = false;
      return;
    }
    const node = painter.nodeAt(...place(event));
    plot.focus({ preventScroll: true });
    if (event.shiftKey || event.ctrlKey || event.metaKey) {
      if (node !== null) togglePin(session, [node]);
    } else if (event.altKey) {
      if (node !== null) session.mark(node);
    } else {
      if (event.detail < 2) before = session.clicked.peek();
      session.click(node);
    }
  };
  // The two clicks of a double click are no selection.
  let before: number | null = null;
  const onDouble = (): void => {
    session.click(before);
    camera.reset();
  };
  plot.addEventListener("pointermove", onMove);
  plot.addEventListener("pointerleave", onLeave);
  plot.addEventListener("pointerdown", onDown, true);
  plot.addEventListener("pointerup", onUp);
  plot.addEventListener("click", onClick);
  plot.addEventListener("dblclick", onDouble);
  plot.addEventListener("wheel", bounds, { capture: true, passive: true });
  return () => {
    cancelAnimationFrame(moving);
    element.on(".zoom", null);
    plot.removeEventListener("pointermove", onMove);
    plot.removeEventListener("pointerleave", onLeave);
    plot.removeEventListener("pointerdown", onDown, true);
    plot.removeEventListener("pointerup", onUp);
    plot.removeEventListener("click", onClick);
    plot.removeEventListener("dblclick", onDouble);
    plot.removeEventListener("wheel", bounds, { capture: true });
  };
}

function anchor(session: Session, painter: Painter): [number, number] | null {
  const node = session.clicked.peek();
  const at = node === null ? null : painter.placeOf(node);
  return at && at[0] > 0 && at[1] > 0 && at[0] < painter.view.width && at[1] < painter.view.height ? [at[0], at[1]] : null;
}

/** A transform that leaves no empty border. */
function clamp(k: number, x: number, y: number, width: number, height: number): ZoomTransform {
  return new ZoomTransform(k, Math.min(0, Math.max(width * (1 - k), x)), Math.min(0, Math.max(height * (1 - k), y)));
}
