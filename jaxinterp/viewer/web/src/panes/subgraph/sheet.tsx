// The drawing itself: boxes and edges under a camera.

import { select } from "d3-selection";
import { zoom, zoomIdentity, type ZoomBehavior } from "d3-zoom";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { percent } from "../../draw/colour";
import { handle } from "../../handle";
import { TARGET, type GraphData } from "../../model/bundle";
import type { Session } from "../../model/session";
import { type Curve, type Drawing, labelPlaces, redraw, type Shape } from "./geometry";
import { isMarked, useGestures } from "./gestures";
import { BoxShape, EdgeShape } from "./parts";
import { camera, listed, showWeights } from "./state";

export interface Camera {
  x: number;
  y: number;
  k: number;
}

interface Props {
  session: Session;
  graph: GraphData;
  drawing: Drawing;
  width: number;
  height: number;
  /** A preview can be looked at but not changed. */
  fixed: boolean;
  onTransform: (t: Camera) => void;
}

export const signedPercent = (x: number): string => (x > 0 ? `+${percent(x)}` : percent(x));

/** The camera that shows everything. */
export function fitted(bounds: Drawing["bounds"], width: number, height: number): Camera {
  const room = 10;
  const k = Math.max(0.05, Math.min(1.5, (width - 2 * room) / Math.max(1, bounds.width), (height - 2 * room) / Math.max(1, bounds.height)));
  return { k, x: width / 2 - k * (bounds.x + bounds.width / 2), y: height / 2 - k * (bounds.y + bounds.height / 2) };
}

/** Zoom and pan. Until the user moves it, the camera keeps everything in sight. */
function useCamera({ graph, drawing, width, height, onTransform }: Props) {
  const svg = useRef<SVGSVGElement>(null);
  const behaviour = useRef<ZoomBehavior<SVGSVGElement, unknown> | null>(null);
  const moved = useRef(false);
  const [at, setAt] = useState<Camera>({ x: 0, y: 0, k: 1 });
  useEffect(() => {
    const made = zoom<SVGSVGElement, unknown>()
      .scaleExtent([0.05, 6])
      .filter((event: MouseEvent) => !event.shiftKey && !event.altKey && !event.button && (event.type === "wheel" || !(event.target as Element).closest("[data-box]")))
      .on("zoom", ({ transform: { x, y, k }, sourceEvent }: { transform: Camera; sourceEvent: unknown }) => {
        if (sourceEvent) moved.current = true;
        setAt({ x, y, k });
        onTransform({ x, y, k });
      });
    behaviour.current = made;
    select(svg.current!).call(made).on("dblclick.zoom", null);
  }, []);
  const show = ({ x, y, k }: Camera): void => {
    if (behaviour.current && svg.current) select(svg.current).call(behaviour.current.transform, zoomIdentity.translate(x, y).scale(k));
  };
  const { bounds } = drawing;
  useEffect(() => {
    moved.current = false;
  }, [graph]);
  useEffect(() => {
    if (!moved.current && width && height) show(fitted(bounds, width, height));
  }, [width, height, bounds.x, bounds.y, bounds.width, bounds.height]);
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
      const shape = drawing.shapes.find((s) => s.box.members.includes(node));
      const box = svg.current?.getBoundingClientRect();
      return shape && box ? [box.left + at.x + at.k * shape.x, box.top + at.y + at.k * shape.y] : null;
    };
  });
  useEffect(
    () => () => {
      delete handle.places.subgraph;
    },
    [],
  );
  const inSheet = (event: PointerEvent): [number, number] => {
    const box = svg.current!.getBoundingClientRect();
    return [(event.clientX - box.left - at.x) / at.k, (event.clientY - box.top - at.y) / at.k];
  };
  return { svg, at, inSheet };
}

export function Sheet(props: Props) {
  const { session, graph, drawing: still, width, height, fixed } = props;
  const { svg, at, inSheet } = useCamera(props);
  const { hover, overEdge, drag, band, handlers } = useGestures({ session, graph, drawing: still, fixed, inSheet });
  const drawing = useMemo(() => {
    if (!drag) return still;
    return redraw(still, still.shapes.map((s) => (s.box.key === drag.key ? { ...s, x: drag.x, y: drag.y } : s)));
  }, [still, drag]);
  const { shapes, curves } = drawing;

  const marked = session.marked.value;
  const clicked = session.clicked.value;
  const hovered = session.hovered.value;
  // A box that has gone while the pointer was on it says no good-bye.
  const here = hover !== null && shapes.some((s) => s.box.key === hover);
  const focus = here ? hover : hovered === null ? null : (shapes.find((s) => s.box.members.includes(hovered))?.box.key ?? null);
  const ends = (c: Curve): [string, string] => [shapes[c.edge.source]!.box.key, shapes[c.edge.target]!.box.key];
  const touching = useMemo(() => (focus === null ? null : new Set(curves.filter((c) => ends(c).includes(focus)))), [curves, shapes, focus]);
  const near = useMemo(() => touching && new Set([...touching].flatMap(ends)), [touching]);
  const most = useMemo(() => Math.max(0, ...shapes.map((s) => (s.box.kind === TARGET || !Number.isFinite(s.box.share) ? 0 : s.box.share))), [shapes]);
  const weights = showWeights.value;
  const labels = useMemo(() => {
    const pointed = overEdge === null ? [] : curves.filter((c) => ends(c).join("\n") === overEdge);
    return labelPlaces(touching ? [...touching] : weights ? [...pointed, ...curves.filter((c) => c !== pointed[0])] : pointed, shapes, (c) => signedPercent(c.edge.weight));
  }, [curves, shapes, touching, weights, overEdge]);
  const opened = listed.value;

  const stateOf = (s: Shape): string =>
    [
      clicked !== null && s.box.members.includes(clicked) ? "clicked" : "",
      isMarked(marked, s) ? "marked" : "",
      s.box.key === focus ? "over" : near && !near.has(s.box.key) ? "far" : "",
      drag?.onto === s.box.key ? "onto" : drag?.key === s.box.key ? "dragged" : "",
      s.placed ? "placed" : "",
    ]
      .filter(Boolean)
      .join(" ");

  // The box that is dragged is drawn last, above the others; keys keep the elements.
  const order = drag ? [...shapes].sort((a, b) => Number(a.box.key === drag.key) - Number(b.box.key === drag.key)) : shapes;
  return (
    <svg ref={svg} class="sg-sheet" width={width} height={height} viewBox={`0 0 ${width} ${height}`} role="group" aria-label="Subgraph" {...handlers}>
      <g transform={`translate(${at.x},${at.y}) scale(${at.k})`}>
        {[...curves].reverse().map((c) => (
          <EdgeShape key={ends(c).join("\n")} curve={c} session={session} source={shapes[c.edge.source]!.box} target={shapes[c.edge.target]!.box} state={touching ? (touching.has(c) ? "over" : "far") : ""} />
        ))}
        {order.map((s) => (
          <BoxShape key={s.box.key} shape={s} graph={graph} most={most} state={stateOf(s)} open={opened === s.box.key} />
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
