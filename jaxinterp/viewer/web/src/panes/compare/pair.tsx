// Two graphs side by side, small, with what is selected in both joined by a line.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { mix, type Palette, palette, signed } from "../../draw/colour";
import { outline } from "../../draw/glyph";
import { type GraphData, visible } from "../../model/bundle";
import { type Layout, place, rowCount } from "../graph/layout";

export interface Mark {
  a: number;
  b: number;
}

interface Props {
  a: GraphData;
  b: GraphData;
  /** Partner of each node in the other graph, -1 for none. */
  partnerA: Int32Array;
  partnerB: Int32Array;
  selected: Mark | null;
  hovered: Mark | null;
  edge: { targetA: number; sourceA: number; targetB: number; sourceB: number; shareA: number; shareB: number } | null;
  onHover: (mark: Mark | null) => void;
  onSelect: (mark: Mark) => void;
}

const AXIS = 20;
const PAD = 30;
const RIGHT = 10;

/** What is drawn of one graph: its layout moved into the canvas. */
function useGraph(graph: GraphData, width: number, height: number): Layout | null {
  return useMemo(() => (width > 60 && height > 60 ? place(graph, width - PAD - RIGHT, height - AXIS - 6, 40) : null), [graph, width, height]);
}

export function Pair({ a, b, partnerA, partnerB, selected, hovered, edge, onHover, onSelect }: Props) {
  const host = useRef<HTMLDivElement>(null);
  const left = useRef<HTMLCanvasElement>(null);
  const right = useRef<HTMLCanvasElement>(null);
  const [size, setSize] = useState({ width: 0, height: 0 });
  useEffect(() => {
    const watch = new ResizeObserver(([entry]) => setSize({ width: entry!.contentRect.width, height: entry!.contentRect.height }));
    watch.observe(host.current!);
    return () => watch.disconnect();
  }, []);
  const gap = 28;
  const half = (size.width - gap) / 2;
  const layoutA = useGraph(a, half, size.height);
  const layoutB = useGraph(b, half, size.height);
  const colours = palette.value;

  useEffect(() => {
    if (layoutA && left.current) drawGraph(left.current, a, layoutA, partnerA, half, size.height, colours);
    if (layoutB && right.current) drawGraph(right.current, b, layoutB, partnerB, half, size.height, colours);
  }, [layoutA, layoutB, partnerA, partnerB, colours, size]);

  const at = (side: "a" | "b", node: number): [number, number] | null => {
    const layout = side === "a" ? layoutA : layoutB;
    if (!layout || node < 0 || node >= layout.x.length) return null;
    return [layout.x[node]! + PAD + (side === "a" ? 0 : half + gap), layout.y[node]!];
  };
  const find = (side: "a" | "b", event: MouseEvent): Mark | null => {
    const layout = side === "a" ? layoutA : layoutB;
    if (!layout) return null;
    const box = (event.currentTarget as Element).getBoundingClientRect();
    const x = event.clientX - box.left - PAD;
    const y = event.clientY - box.top;
    let best = -1;
    let least = 12 * 12;
    for (let i = 0; i < layout.x.length; i++) {
      const d = (layout.x[i]! - x) ** 2 + (layout.y[i]! - y) ** 2;
      if (d < least) {
        least = d;
        best = i;
      }
    }
    if (best < 0) return null;
    return side === "a" ? { a: best, b: partnerA[best]! } : { a: partnerB[best]!, b: best };
  };
  const canvas = (side: "a" | "b", ref: typeof left, label: string) => (
    <canvas
      ref={ref}
      class={`compare-canvas ${side}`}
      role="img"
      aria-label={label}
      onPointerMove={(event) => onHover(find(side, event))}
      onPointerLeave={() => onHover(null)}
      onClick={(event) => {
        const mark = find(side, event);
        if (mark) onSelect(mark);
      }}
    />
  );
  const joint = (mark: Mark | null, name: string) => {
    if (!mark) return null;
    const p = at("a", mark.a);
    const q = at("b", mark.b);
    return (
      <g class={`compare-joint ${name}`}>
        {p && q && <path d={`M${p[0]},${p[1]}C${(p[0] + q[0]) / 2},${p[1]} ${(p[0] + q[0]) / 2},${q[1]} ${q[0]},${q[1]}`} />}
        {p && <circle cx={p[0]} cy={p[1]} r={8} />}
        {q && <circle cx={q[0]} cy={q[1]} r={8} />}
      </g>
    );
  };
  const curve = (from: [number, number] | null, to: [number, number] | null, share: number) => {
    if (!from || !to) return null;
    const middle = (from[1] + to[1]) / 2;
    return <path d={`M${from[0]},${from[1]}C${from[0]},${middle} ${to[0]},${middle} ${to[0]},${to[1]}`} stroke={signed(share)} stroke-width={1.5 + 8 * Math.abs(share)} stroke-dasharray={share === 0 ? "3 4" : undefined} />;
  };
  return (
    <div class="compare-pair" ref={host}>
      {canvas("a", left, `First graph: ${a.header.slug || a.header.file}`)}
      {canvas("b", right, `Second graph: ${b.header.slug || b.header.file}`)}
      <svg width={size.width} height={size.height} aria-hidden="true">
        {edge && (
          <g class="compare-edge">
            {curve(at("a", edge.sourceA), at("a", edge.targetA), edge.shareA)}
            {curve(at("b", edge.sourceB), at("b", edge.targetB), edge.shareB)}
          </g>
        )}
        {joint(selected, "selected")}
        {hovered && (hovered.a !== selected?.a || hovered.b !== selected?.b) && joint(hovered, "hovered")}
      </svg>
    </div>
  );
}

function drawGraph(canvas: HTMLCanvasElement, graph: GraphData, layout: Layout, partner: Int32Array, width: number, height: number, colours: Palette): void {
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  if (!context) return;
  context.scale(scale, scale);
  context.clearRect(0, 0, width, height);
  context.translate(PAD, 0);
  // A few of the strongest edges for the look of the whole, faintly.
  context.lineWidth = 0.8;
  for (const e of graph.strong.subarray(0, 300)) {
    const { source, target, share } = graph.link(e);
    const [sx, sy, tx, ty] = [layout.x[source]!, layout.y[source]!, layout.x[target]!, layout.y[target]!];
    const middle = (sy + ty) / 2;
    context.globalAlpha = 0.1 + 0.25 * Math.sqrt(Math.min(1, Math.abs(share)));
    context.strokeStyle = share < 0 ? colours.negative : colours.positive;
    context.beginPath();
    context.moveTo(sx, sy);
    context.bezierCurveTo(sx, middle, tx, middle, tx, ty);
    context.stroke();
  }
  context.globalAlpha = 1;
  for (let i = 0; i < graph.n; i++) {
    const both = partner[i]! >= 0;
    context.beginPath();
    outline(context, graph.kind[i]!, layout.x[i]!, layout.y[i]!, Math.max(1.2, layout.r[i]! * 0.9));
    context.fillStyle = both ? mix(colours.panel, colours.text, 0.72) : colours.panel;
    context.strokeStyle = both ? mix(colours.panel, colours.text, 0.85) : colours.warn;
    context.lineWidth = both ? 0.8 : 1.2;
    context.fill();
    context.stroke();
  }
  context.font = `11px ${colours.font}`;
  context.textAlign = "right";
  context.fillStyle = colours.muted;
  const rows = rowCount(graph);
  for (let row = 1, free = Infinity; row < rows - 1; row++) {
    const y = (layout.rows[row]! + layout.rows[row + 1]!) / 2;
    if (free - y < 13) continue;
    free = y;
    context.fillText(`L${row - 1}`, -6, y + 4);
  }
  context.textAlign = "center";
  let free = -Infinity;
  for (let c = 0; c + 1 < layout.columns.length; c++) {
    const position = c + layout.firstPosition;
    if (position < 0) continue;
    const text = visible((graph.tokens[position] ?? "").trim() || (graph.tokens[position] ?? "")).slice(0, 14);
    const x = (layout.columns[c]! + layout.columns[c + 1]!) / 2;
    const w = context.measureText(text).width;
    if (x - w / 2 < free) continue;
    free = x + w / 2 + 6;
    context.fillText(text, x, height - 6);
  }
}
