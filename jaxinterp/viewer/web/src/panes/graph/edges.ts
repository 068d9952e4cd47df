// Edges as curves: sorted into a few classes of sign and strength, each drawn in long strokes.

import type { Palette } from "../../draw/colour";
import { type GraphData, TARGET } from "../../model/bundle";
import type { Layout } from "./layout";

const LEVELS = 8;
// Lines of at most one pixel are drawn some eight times faster than wider ones: only the strongest classes are wider,
// the others differ by their opacity.
const WIDTHS = [0.6, 0.7, 0.8, 0.9, 1, 1, 2, 3.6];
const CONTEXT_ALPHA = [0.1, 0.14, 0.2, 0.28, 0.4, 0.56, 0.56, 0.64];
const FOCUS_ALPHA = [0.3, 0.36, 0.44, 0.56, 0.74, 1, 0.9, 1];
const CHUNK = 96;

/** Edges by class: class 2 l + (1 for negative), l = 0 the weakest. `order` holds their places class after class. */
export interface EdgeList {
  source: Int32Array;
  target: Int32Array;
  share: Float32Array;
  order: Int32Array;
  start: Int32Array;
}

/** A class of strength for a share: every step doubles the share, 7 from about 0.35 on. */
export function level(share: number): number {
  const size = Math.abs(share);
  return size > 0 ? Math.max(0, Math.min(LEVELS - 1, Math.round(LEVELS + 0.5 + Math.log2(size)))) : 0;
}

/** size: by what the classes go if not by the shares themselves, 0..1. */
export function sortEdges(source: Int32Array, target: Int32Array, share: Float32Array, size: Float32Array = share): EdgeList {
  const edges = source.length;
  const classes = new Uint8Array(edges);
  const start = new Int32Array(2 * LEVELS + 1);
  for (let i = 0; i < edges; i++) {
    const c = 2 * level(size[i]!) + (share[i]! < 0 ? 1 : 0);
    classes[i] = c;
    start[c + 1]!++;
  }
  for (let c = 0; c < 2 * LEVELS; c++) start[c + 1]! += start[c]!;
  const next = start.slice();
  const order = new Int32Array(edges);
  for (let i = 0; i < edges; i++) order[next[classes[i]!]!++] = i;
  return { source, target, share, order, start };
}

/** The strongest `most` edges of the graph between visible nodes. */
export function strongest(graph: GraphData, most: number, shown: Uint8Array): EdgeList {
  const kept = new Int32Array(Math.min(most, graph.strong.length));
  let size = 0;
  for (let k = 0; k < graph.strong.length && size < kept.length; k++) {
    const e = graph.strong[k]!;
    if (shown[graph.inSource[e]!] && shown[graph.edgeTarget[e]!]) kept[size++] = e;
  }
  return gather(graph, kept.subarray(0, size), flow(graph));
}

/** How much the input of each node matters for the targets, 0..1; 1 for all where the file does not tell. */
function flow(graph: GraphData): (share: number, target: number) => number {
  let most = 0;
  for (let i = 0; i < graph.n; i++) if (graph.kind[i] !== TARGET && graph.influence[i]! > most) most = graph.influence[i]!;
  if (most === 0) return (share) => share;
  return (share, target) => {
    const matter = graph.kind[target] === TARGET ? graph.probability[target]! || 0 : graph.influence[target]! || 0;
    return 2 * share * Math.min(1, matter / most);
  };
}

/** All edges of a node to visible nodes. */
export function edgesOf(graph: GraphData, node: number, shown: Uint8Array): EdgeList {
  const into = graph.inStart[node + 1]! - graph.inStart[node]!;
  const out = graph.outStart[node + 1]! - graph.outStart[node]!;
  const kept = new Int32Array(into + out);
  let size = 0;
  for (let e = graph.inStart[node]!; e < graph.inStart[node + 1]!; e++) if (shown[graph.inSource[e]!]) kept[size++] = e;
  for (let k = graph.outStart[node]!; k < graph.outStart[node + 1]!; k++) {
    const e = graph.outEdge[k]!;
    if (shown[graph.edgeTarget[e]!]) kept[size++] = e;
  }
  return emphasised(gather(graph, kept.subarray(0, size)));
}

const WIDE = 0.125;
const MOST_WIDE = 40;

/** The same edges with classes that make the strongest one wide: shares of a node with hundreds of inputs are all small.
 * At most so many are wide. */
export function emphasised(list: EdgeList): EdgeList {
  const sizes = list.share.map(Math.abs).sort();
  const most = sizes.at(-1) ?? 0;
  if (!(most > 0) || most >= 2 * WIDE) return list;
  const next = sizes.at(-1 - MOST_WIDE) ?? 0;
  const factor = Math.min((2 * WIDE) / most, next > 0 ? WIDE / next : Number.POSITIVE_INFINITY);
  return factor > 1 ? sortEdges(list.source, list.target, list.share, list.share.map((share) => share * factor * 0.99)) : list;
}

function gather(graph: GraphData, edges: Int32Array, matter: ((share: number, target: number) => number) | null = null): EdgeList {
  const source = new Int32Array(edges.length);
  const target = new Int32Array(edges.length);
  const share = new Float32Array(edges.length);
  for (let k = 0; k < edges.length; k++) {
    const e = edges[k]!;
    const t = graph.edgeTarget[e]!;
    const total = graph.inputTotal[t]!;
    source[k] = graph.inSource[e]!;
    target[k] = t;
    share[k] = total > 0 ? graph.weight[e]! / total : 0;
  }
  return sortEdges(source, target, share, matter ? share.map((part, k) => matter(part, target[k]!)) : share);
}

export interface View {
  k: number;
  x: number;
  y: number;
  width: number;
  height: number;
}

/** Negative edges are dashed where there are few enough to tell one from the other: their sign is seen without colours too. */
const MOST_DASHED = 600;

/** How many of the strongest edges are drawn at once. */
const AT_ONCE = 2000;

/** Draws a list: the strongest edges at once, from weak to strong, the weaker ones under them as far as time allows. */
export class EdgePass {
  private at: number;

  constructor(
    private readonly list: EdgeList,
    private readonly layout: Layout,
    private readonly view: View,
    private readonly palette: Palette,
    private readonly focus: boolean,
  ) {
    this.at = list.order.length;
  }

  get done(): boolean {
    return this.at <= 0;
  }

  /** Draw the strongest edges, or all. */
  begin(context: CanvasRenderingContext2D, all = false): void {
    const end = this.list.order.length;
    this.at = all ? 0 : Math.max(0, end - AT_ONCE);
    context.save();
    let c = 0;
    for (let from = this.at; from < end; ) {
      while (this.list.start[c + 1]! <= from) c++;
      const to = Math.min(end, this.list.start[c + 1]!, from + CHUNK);
      this.stroke(context, c, from, to);
      from = to;
    }
    context.restore();
  }

  /** Draw weaker ones under what is there. until: time of performance.now() after which the next call goes on. */
  more(context: CanvasRenderingContext2D, until: number): void {
    if (this.done) return;
    context.save();
    // Slower than drawing on top: for what does not fit into the first moment only.
    context.globalCompositeOperation = "destination-over";
    let c = 2 * LEVELS - 1;
    while (this.at > 0) {
      while (this.list.start[c]! >= this.at) c--;
      const from = Math.max(this.list.start[c]!, this.at - CHUNK);
      this.stroke(context, c, from, this.at);
      this.at = from;
      if (performance.now() > until) break;
    }
    context.restore();
  }

  private stroke(context: CanvasRenderingContext2D, c: number, from: number, to: number): void {
    const strength = c >> 1;
    context.strokeStyle = c & 1 ? this.palette.negative : this.palette.positive;
    context.globalAlpha = (this.focus ? FOCUS_ALPHA : CONTEXT_ALPHA)[strength]!;
    context.lineWidth = WIDTHS[strength]!;
    if (this.focus && this.list.order.length <= MOST_DASHED) context.setLineDash(c & 1 ? [5 + 1.4 * WIDTHS[strength]!, 2.5 + 0.6 * WIDTHS[strength]!] : []);
    context.beginPath();
    for (let k = from; k < to; k++) this.curve(context, this.list.order[k]!);
    context.stroke();
  }

  private curve(context: CanvasRenderingContext2D, i: number): void {
    const { list, layout, view } = this;
    const s = list.source[i]!;
    const t = list.target[i]!;
    const sx = layout.x[s]! * view.k + view.x;
    const sy = layout.y[s]! * view.k + view.y;
    const tx = layout.x[t]! * view.k + view.x;
    const ty = layout.y[t]! * view.k + view.y;
    if (Math.max(sx, tx) < 0 || Math.min(sx, tx) > view.width || Math.max(sy, ty) < 0 || Math.min(sy, ty) > view.height) return;
    context.moveTo(sx, sy);
    const middle = (sy + ty) / 2;
    // Between nodes of one row a bow, else the curve would run through all glyphs between them.
    if (Math.abs(sy - ty) < 4) context.quadraticCurveTo((sx + tx) / 2, sy - Math.min(26, Math.abs(sx - tx) * 0.25 + 6), tx, ty);
    else context.bezierCurveTo(sx, middle, tx, middle, tx, ty);
  }
}
