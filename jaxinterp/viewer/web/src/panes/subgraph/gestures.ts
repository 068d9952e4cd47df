// What the pointer and the keys do in the drawing: select, mark, drag, join, nudge, rename, frame. Handlers are put on
// the drawing once and find the box that an event belongs to, so that boxes need not be drawn again for them.

import { useMemo, useRef, useState } from "preact/hooks";
import type { GraphData } from "../../model/bundle";
import type { Session } from "../../model/session";
import { join, moveBox, renaming, ungroupBox, unpinBox } from "./actions";
import { type Drawing, overlap, type Shape } from "./geometry";
import { listed } from "./state";

export interface Scene {
  session: Session;
  graph: GraphData;
  /** The drawing at rest. */
  drawing: Drawing;
  /** A preview can be looked at but not changed. */
  fixed: boolean;
  /** A pointer's place in the units of the sheet. */
  inSheet: (event: PointerEvent) => [number, number];
}

export interface Drag {
  key: string;
  x: number;
  y: number;
  /** The box that would take it in. */
  onto: string | null;
}

export interface Band {
  x0: number;
  y0: number;
  x1: number;
  y1: number;
}

/** The most influential member, or the selected one where it is among them. */
export function selectShape({ session, graph }: Scene, shape: Shape): void {
  const clicked = session.clicked.peek();
  const top = shape.box.members.reduce((a, b) => ((graph.influence[b] || 0) > (graph.influence[a] || 0) ? b : a));
  session.click(clicked !== null && shape.box.members.includes(clicked) ? clicked : top);
}

export function isMarked(marked: ReadonlySet<number>, shape: Shape): boolean {
  return marked.size > 0 && shape.box.members.every((i) => marked.has(i));
}

function toggleMark(session: Session, shape: Shape): void {
  const next = new Set(session.marked.peek());
  const on = !isMarked(next, shape);
  for (const i of shape.box.members) {
    if (on) next.add(i);
    else next.delete(i);
  }
  session.marked.value = next;
}

/** Whether the key meant something for this box. */
function pressKey(scene: Scene, shape: Shape, event: KeyboardEvent): boolean {
  const { session, drawing, fixed } = scene;
  const { key } = shape.box;
  if (event.ctrlKey || event.metaKey || event.altKey) return false;
  if (event.key === "Enter") {
    selectShape(scene, shape);
    if (shape.box.group) listed.value = listed.peek() === key ? null : key;
    return true;
  }
  if (fixed) return false;
  const step = event.shiftKey ? 32 : 8;
  const by = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
  if (by) moveBox(session, key, (shape.x + by[0]!) / drawing.width, (shape.y + by[1]!) / drawing.height, `nudge ${key}`);
  else if (event.key === " ") toggleMark(session, shape);
  else if (event.key === "F2" || event.key === "r") renaming.value = key;
  else if (event.key === "Delete" || event.key === "Backspace") unpinBox(session, key);
  else if (event.key === "u" && shape.box.group) ungroupBox(session, key);
  else return false;
  return true;
}

export function useGestures(scene: Scene) {
  const now = useRef(scene);
  now.current = scene;
  const [hover, setHover] = useState<string | null>(null);
  const [overEdge, setOverEdge] = useState<string | null>(null);
  const [drag, setDrag] = useState<Drag | null>(null);
  const [band, setBand] = useState<Band | null>(null);
  const latest = useRef({ drag, band });
  latest.current = { drag, band };
  const press = useRef<{ key: string; x: number; y: number; dx: number; dy: number; far: boolean } | null>(null);

  const handlers = useMemo(() => {
    const shapeAt = (event: Event): Shape | undefined => {
      const key = (event.target as Element).closest?.("[data-box]")?.getAttribute("data-box");
      return key === null || key === undefined ? undefined : now.current.drawing.shapes.find((s) => s.box.key === key);
    };
    const down = (event: PointerEvent): void => {
      const { session, fixed, inSheet } = now.current;
      if (event.button !== 0 || (event.target as Element).closest(".sg-more")) return;
      const shape = shapeAt(event);
      const [x, y] = inSheet(event);
      if (!shape) {
        listed.value = null;
        if (fixed || !(event.shiftKey || event.altKey)) return;
        (event.currentTarget as Element).setPointerCapture(event.pointerId);
        return setBand({ x0: x, y0: y, x1: x, y1: y });
      }
      if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) {
        event.preventDefault();
        if (!fixed) toggleMark(session, shape);
        return;
      }
      press.current = { key: shape.box.key, x: event.clientX, y: event.clientY, dx: shape.x - x, dy: shape.y - y, far: false };
    };
    const move = (event: PointerEvent): void => {
      const { fixed, drawing, inSheet } = now.current;
      if (latest.current.band) {
        const [x1, y1] = inSheet(event);
        return setBand({ ...latest.current.band, x1, y1 });
      }
      const pressed = press.current;
      if (fixed || !pressed) return;
      if (!pressed.far && Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y) < 4) return;
      // Only now: a captured pointer's clicks belong to the whole drawing, not to a box.
      if (!pressed.far) (event.currentTarget as Element).setPointerCapture(event.pointerId);
      pressed.far = true;
      const [px, py] = inSheet(event);
      // Another box takes this one in where the pointer itself is over it.
      const onto = drawing.shapes.find((o) => o.box.key !== pressed.key && Math.abs(o.x - px) < o.width / 2 && Math.abs(o.y - py) < o.height / 2);
      setDrag({ key: pressed.key, x: px + pressed.dx, y: py + pressed.dy, onto: onto?.box.key ?? null });
    };
    const up = (): void => {
      const { session, drawing } = now.current;
      const { drag: dragged, band: frame } = latest.current;
      if (frame) {
        const area = { x: (frame.x0 + frame.x1) / 2, y: (frame.y0 + frame.y1) / 2, width: Math.abs(frame.x1 - frame.x0), height: Math.abs(frame.y1 - frame.y0) } as Shape;
        const next = new Set(session.marked.peek());
        for (const s of drawing.shapes) if (overlap(s, area)) for (const i of s.box.members) next.add(i);
        session.marked.value = next;
        return setBand(null);
      }
      const pressed = press.current;
      press.current = null;
      if (!pressed) return;
      const shape = drawing.shapes.find((s) => s.box.key === pressed.key);
      if (!pressed.far) {
        if (shape) selectShape(now.current, shape);
        return;
      }
      if (dragged?.onto) join(session, dragged.key, dragged.onto);
      else if (dragged) moveBox(session, dragged.key, dragged.x / drawing.width, dragged.y / drawing.height);
      setDrag(null);
    };
    const over = (event: PointerEvent): void => {
      if (press.current || latest.current.band) return;
      const shape = shapeAt(event);
      setHover(shape?.box.key ?? null);
      setOverEdge((event.target as Element).closest("[data-edge]")?.getAttribute("data-edge") ?? null);
      now.current.session.hovered.value = shape && !shape.box.group ? shape.box.members[0]! : null;
    };
    const leave = (): void => {
      setHover(null);
      setOverEdge(null);
      now.current.session.hovered.value = null;
    };
    return {
      onPointerDown: down,
      onPointerMove: move,
      onPointerUp: up,
      onPointerCancel: () => {
        press.current = null;
        setDrag(null);
        setBand(null);
      },
      onPointerOver: over,
      onPointerLeave: () => {
        if (press.current && !press.current.far) press.current = null;
        leave();
      },
      onFocusIn: (event: FocusEvent) => setHover(shapeAt(event)?.box.key ?? null),
      onFocusOut: () => setHover(null),
      onDblClick: (event: MouseEvent) => {
        const shape = shapeAt(event);
        if (shape && !now.current.fixed) renaming.value = shape.box.key;
      },
      onClick: (event: MouseEvent) => {
        if (!(event.target as Element).closest(".sg-more")) return;
        const key = shapeAt(event)?.box.key ?? null;
        listed.value = listed.peek() === key ? null : key;
      },
      onKeyDown: (event: KeyboardEvent) => {
        const shape = shapeAt(event);
        if (!shape || !pressKey(now.current, shape, event)) return;
        event.preventDefault();
        event.stopPropagation();
      },
    };
  }, []);
  return { hover, overEdge, drag, band, handlers };
}
