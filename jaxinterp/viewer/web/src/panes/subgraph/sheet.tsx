// The drawing itself: zoom and pan, dragging, joining, marking, hovering, keys on boxes.

import { select } from "d3-selection";
import { zoom, zoomIdentity, type ZoomBehavior } from "d3-zoom";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { count, percent, sizeText } from "../../draw/colour";
import { handle } from "../../handle";
import { KINDS, TARGET, type GraphData } from "../../model/bundle";
import type { Session } from "../../model/session";
import { join, moveBox, renaming, ungroupBox, unpinBox } from "./actions";
import { labelPlaces, overlap, redraw, type Curve, type Drawing, type Shape } from "./geometry";
import { BoxShape, EdgeShape } from "./parts";
import { camera, listed, showWeights } from "./state";

interface Props {
  session: Session;
  graph: GraphData;
  drawing: Drawing;
  width: number;
  height: number;
  /** A preview can be looked at but not changed. */
  fixed: boolean;
  onTransform: (t: { x: number; y: number; k: number }) => void;
}

const signedPercent = (x: number): string => (x > 0 ? `+${percent(x)}` : percent(x));

/** The camera that shows everything. */
export function fitted(bounds: Drawing["bounds"], width: number, height: number): { x: number; y: number; k: number } {
  const room = 10;
  const k = Math.max(0.05, Math.min(1.5, (width - 2 * room) / Math.max(1, bounds.width), (height - 2 * room) / Math.max(1, bounds.height)));
  return { k, x: width / 2 - k * (bounds.x + bounds.width / 2), y: height / 2 - k * (bounds.y + bounds.height / 2) };
}

export function Sheet({ session, graph, drawing: still, width, height, fixed, onTransform }: Props) {
  const svg = useRef<SVGSVGElement>(null);
  const behaviour = useRef<ZoomBehavior<SVGSVGElement, unknown> | null>(null);
  const moved = useRef(false);
  const [at, setAt] = useState({ x: 0, y: 0, k: 1 });
  const [hover, setHover] = useState<string | null>(null);
  const [overEdge, setOverEdge] = useState<string | null>(null);
  const [drag, setDrag] = useState<{ key: string; x: number; y: number; onto: string | null } | null>(null);
  const [band, setBand] = useState<{ x0: number; y0: number; x1: number; y1: number } | null>(null);
  const press = useRef<{ key: string; x: number; y: number; dx: number; dy: number; far: boolean } | null>(null);

  const drawing = useMemo(() => {
    if (!drag) return still;
    return redraw(still, still.shapes.map((s) => (s.box.key === drag.key ? { ...s, x: drag.x, y: drag.y } : s)));
  }, [still, drag]);
  const { shapes, curves } = drawing;

  useEffect(() => {
    const made = zoom<SVGSVGElement, unknown>()
      .scaleExtent([0.05, 6])
      .filter((event: Event & { shiftKey?: boolean; altKey?: boolean; button?: number }) => !event.shiftKey && !event.altKey && !event.button && (event.type === "wheel" || !(event.target as Element).closest(".sg-box")))
      .on("zoom", ({ transform, sourceEvent }: { transform: { x: number; y: number; k: number }; sourceEvent: unknown }) => {
        if (sourceEvent) moved.current = true;
        const { x, y, k } = transform;
        setAt({ x, y, k });
        onTransform({ x, y, k });
      });
    behaviour.current = made;
    select(svg.current!).call(made).on("dblclick.zoom", null);
  }, []);

  const show = ({ x, y, k }: { x: number; y: number; k: number }): void => {
    if (behaviour.current && svg.current) select(svg.current).call(behaviour.current.transform, zoomIdentity.translate(x, y).scale(k));
  };
  // Everything stays in sight until the user moves the picture.
  const { bounds } = still;
  useEffect(() => {
    if (!moved.current && width && height) show(fitted(bounds, width, height));
  }, [width, height, bounds.x, bounds.y, bounds.width, bounds.height]);
  useEffect(() => {
    moved.current = false;
  }, [graph]);
  useEffect(() => {
    camera.fit = () => {
      moved.current = false;
      show(fitted(bounds, width, height));
    };
    camera.zoom = (by) => {
      moved.current = true;
      if (behaviour.current && svg.current) select(svg.current).call(behaviour.current.scaleBy, by);
    };
    handle.places.subgraph = (node) => {
      const shape = shapes.find((s) => s.box.members.includes(node));
      const box = svg.current?.getBoundingClientRect();
      return shape && box ? [box.left + at.x + at.k * shape.x, box.top + at.y + at.k * shape.y] : null;
    };
    return () => {
      delete handle.places.subgraph;
    };
  });

  const inSheet = (event: PointerEvent): [number, number] => {
    const box = svg.current!.getBoundingClientRect();
    return [(event.clientX - box.left - at.x) / at.k, (event.clientY - box.top - at.y) / at.k];
  };

  const marked = session.marked.value;
  const clicked = session.clicked.value;
  const hovered = session.hovered.value;
  const isMarked = (s: Shape): boolean => marked.size > 0 && s.box.members.every((i) => marked.has(i));
  const toggleMark = (s: Shape): void => {
    const on = !isMarked(s);
    const next = new Set(marked);
    for (const i of s.box.members) on ? next.add(i) : next.delete(i);
    session.marked.value = next;
  };
  const select_ = (s: Shape): void => {
    const top = s.box.members.reduce((a, b) => ((graph.influence[b] || 0) > (graph.influence[a] || 0) ? b : a));
    session.click(clicked !== null && s.box.members.includes(clicked) ? clicked : top);
  };

  // A box that has gone while the pointer was on it says no good-bye.
  const here = hover !== null && shapes.some((s) => s.box.key === hover);
  const focus = here ? hover : (hovered === null ? null : (shapes.find((s) => s.box.members.includes(hovered))?.box.key ?? null));
  const ends = (c: Curve): [string, string] => [shapes[c.edge.source]!.box.key, shapes[c.edge.target]!.box.key];
  const touching = focus === null ? null : curves.filter((c) => ends(c).includes(focus));
  const near = touching ? new Set(touching.flatMap(ends)) : null;
  const most = Math.max(0, ...shapes.map((s) => (s.box.kind === TARGET || !Number.isFinite(s.box.share) ? 0 : s.box.share)));
  const labels = useMemo(() => {
    const wanted = touching ?? (showWeights.value ? curves : []);
    return labelPlaces(wanted, shapes, (c) => signedPercent(c.edge.weight));
  }, [curves, shapes, focus, showWeights.value]);

  const boxHandlers = (s: Shape): Record<string, (event: never) => void> => {
    const key = s.box.key;
    const down = (event: PointerEvent): void => {
      if (event.button !== 0) return;
      if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) {
        event.preventDefault();
        if (!fixed) toggleMark(s);
        return;
      }
      const [x, y] = inSheet(event);
      press.current = { key, x: event.clientX, y: event.clientY, dx: s.x - x, dy: s.y - y, far: false };
      (event.currentTarget as Element).setPointerCapture(event.pointerId);
    };
    const move = (event: PointerEvent): void => {
      const pressed = press.current;
      if (fixed || !pressed || pressed.key !== key) return;
      if (!pressed.far && Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y) < 4) return;
      pressed.far = true;
      const [px, py] = inSheet(event);
      const x = px + pressed.dx;
      const y = py + pressed.dy;
      // Another box takes this one in where the pointer itself is over it.
      const onto = still.shapes.find((o) => o.box.key !== key && Math.abs(o.x - px) < o.width / 2 && Math.abs(o.y - py) < o.height / 2);
      setDrag({ key, x, y, onto: onto?.box.key ?? null });
    };
    const up = (): void => {
      const pressed = press.current;
      press.current = null;
      if (!pressed || pressed.key !== key) return;
      if (!pressed.far) return select_(s);
      if (drag?.onto) join(session, key, drag.onto);
      else if (drag) moveBox(session, key, drag.x / still.width, drag.y / still.height);
      setDrag(null);
    };
    const keys = (event: KeyboardEvent): void => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const step = event.shiftKey ? 32 : 8;
      const by = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
      const used = ((): boolean => {
        if (event.key === "Enter") {
          select_(s);
          if (s.box.group) listed.value = listed.value === key ? null : key;
          return true;
        }
        if (fixed) return false;
        if (by) moveBox(session, key, (s.x + by[0]!) / still.width, (s.y + by[1]!) / still.height, `nudge ${key}`);
        else if (event.key === " ") toggleMark(s);
        else if (event.key === "F2" || event.key === "r") renaming.value = key;
        else if (event.key === "Delete" || event.key === "Backspace") unpinBox(session, key);
        else if (event.key === "u" && s.box.group) ungroupBox(session, key);
        else return false;
        return true;
      })();
      if (!used) return;
      event.preventDefault();
      event.stopPropagation();
    };
    return {
      onPointerDown: down,
      onPointerMove: move,
      onPointerUp: up,
      onPointerCancel: () => {
        press.current = null;
        setDrag(null);
      },
      onPointerEnter: () => {
        if (press.current) return;
        setHover(key);
        if (!s.box.group) session.hovered.value = s.box.members[0]!;
      },
      onPointerLeave: () => {
        setHover((now) => (now === key ? null : now));
        session.hovered.value = null;
      },
      onFocus: () => setHover(key),
      onBlur: () => setHover((now) => (now === key ? null : now)),
      onDblClick: () => {
        if (!fixed) renaming.value = key;
      },
      onKeyDown: keys,
    } as Record<string, (event: never) => void>;
  };

  const startBand = (event: PointerEvent): void => {
    if ((event.target as Element).closest(".sg-box") || event.button !== 0) return;
    listed.value = null;
    if (!(event.shiftKey || event.altKey) || fixed) return;
    const [x, y] = inSheet(event);
    svg.current!.setPointerCapture(event.pointerId);
    setBand({ x0: x, y0: y, x1: x, y1: y });
  };
  const moveBand = (event: PointerEvent): void => {
    if (!band) return;
    const [x1, y1] = inSheet(event);
    setBand({ ...band, x1, y1 });
  };
  const endBand = (): void => {
    if (!band) return;
    const frame = { x: (band.x0 + band.x1) / 2, y: (band.y0 + band.y1) / 2, width: Math.abs(band.x1 - band.x0), height: Math.abs(band.y1 - band.y0) } as Shape;
    const next = new Set(marked);
    for (const s of shapes) if (overlap(s, frame)) for (const i of s.box.members) next.add(i);
    session.marked.value = next;
    setBand(null);
  };

  const stateOf = (s: Shape): string =>
    [
      clicked !== null && s.box.members.includes(clicked) ? "clicked" : "",
      isMarked(s) ? "marked" : "",
      s.box.key === focus ? "over" : near && !near.has(s.box.key) ? "far" : "",
      drag?.onto === s.box.key ? "onto" : drag?.key === s.box.key ? "dragged" : "",
      s.placed ? "placed" : "",
    ]
      .filter(Boolean)
      .join(" ");

  // The box that is dragged is drawn last, above the others; keys keep the elements.
  const order = drag ? [...shapes].sort((a, b) => Number(a.box.key === drag.key) - Number(b.box.key === drag.key)) : shapes;
  return (
    <svg ref={svg} class="sg-sheet" width={width} height={height} role="group" aria-label="Subgraph" onPointerDown={startBand} onPointerMove={moveBand} onPointerUp={endBand}>
      <g transform={`translate(${at.x},${at.y}) scale(${at.k})`}>
        {[...curves].reverse().map((c) => {
          const [from, to] = ends(c);
          const id = `${from}\n${to}`;
          const state = overEdge === id ? "over" : touching && !touching.includes(c) ? "far" : touching ? "over" : "";
          return (
            <EdgeShape
              key={id}
              curve={c}
              state={state}
              label={`${shapes[c.edge.source]!.box.name} → ${shapes[c.edge.target]!.box.name}: ${signedPercent(c.edge.weight)} of its input`}
              onHover={(over) => setOverEdge(over ? id : null)}
              onClick={() => openEdge(session, shapes, c)}
            />
          );
        })}
        {order.map((s) => (
          <BoxShape
            key={s.box.key}
            shape={s}
            graph={graph}
            most={most}
            state={stateOf(s)}
            label={describe(s, graph, isMarked(s))}
            on={boxHandlers(s)}
            open={listed.value === s.box.key}
            onOpen={() => (listed.value = listed.value === s.box.key ? null : s.box.key)}
          />
        ))}
        {labels.map((l) => (
          <g class="sg-label" key={`${l.curve.edge.source} ${l.curve.edge.target}`} transform={`translate(${l.x.toFixed(1)},${l.y.toFixed(1)})`}>
            <rect x={-l.width / 2} y={-8} width={l.width} height={16} rx={8} />
            <text y={3.8}>{l.text}</text>
          </g>
        ))}
        {band && <rect class="sg-band" x={Math.min(band.x0, band.x1)} y={Math.min(band.y0, band.y1)} width={Math.abs(band.x1 - band.x0)} height={Math.abs(band.y1 - band.y0)} />}
      </g>
    </svg>
  );
}

/** Between single nodes an edge of the graph itself can be opened. */
function openEdge(session: Session, shapes: readonly Shape[], c: Curve): void {
  const source = shapes[c.edge.source]!.box;
  const target = shapes[c.edge.target]!.box;
  session.click(target.members[0]!);
  if (!source.group && !target.group) session.edge.value = { source: source.members[0]!, target: target.members[0]! };
}

function describe(s: Shape, graph: GraphData, marked: boolean): string {
  const { box } = s;
  const words = [box.name];
  if (box.group) words.push(`group of ${count(box.members.length)} nodes`);
  else words.push(KINDS[box.kind] ?? "node", `${graph.place(box.members[0]!)} at token ${graph.position[box.members[0]!]}`);
  if (Number.isFinite(box.activation)) words.push(`activation ${sizeText(box.activation)}`);
  if (Number.isFinite(box.share)) words.push(box.kind === TARGET ? `probability ${percent(box.share)}` : `${percent(box.share)} of influence`);
  if (marked) words.push("marked");
  return words.join(", ");
}
