// Edges as curves: sorted into a few classes of sign and strength, each drawn in long strokes.

import type { Palette } from "../../draw/colour";
import type { GraphData } from "../../model/bundle";
import type { Layout } from "./layout";

const LEVELS = 8;
const WIDTHS = [0.6, 0.6, 0.7, 0.9, 1.2, 1.7, 2.5, 3.8];
const CONTEXT_ALPHA = [0.1, 0.13, 0.17, 0.22, 0.3, 0.4, 0.52, 0.66];
const FOCUS_ALPHA = [0.34, 0.4, 0.48, 0.58, 0.7, 0.82, 0.92, 1];
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

export function sortEdges(source: Int32Array, target: Int32Array, share: Float32Array): EdgeList {
  const size = source.length;
  const classes = new Uint8Array(size);
  const start = new Int32Array(2 * LEVELS + 1);
  for (let i = 0; i < size; i++) {
    const c = 2 * level(share[i]!) + (share[i]! < 0 ? 1 : 0);
    classes[i] = c;
    start[c + 1]!++;
  }
  for (let c = 0; c < 2 * LEVELS; c++) start[c + 1]! += start[c]!;
  const next = start.slice();
  const order = new Int32Array(size);
  for (let i = 0; i < size; i++) order[next[classes[i]!]!++] = i;
  return { source, target, share, order, start };
}

/** The strongest `most` edges of the graph between visible nodes. */
export function strongest(graph: GraphData, most: number, shown: Uint8Array): EdgeList {
  const end = Math.min(most, graph.strong.length);
  const kept = new Int32Array(end);
  let size = 0;
  for (let k = 0; k < end; k++) {
    const e = graph.strong[k]!;
    if (shown[graph.inSource[e]!] && shown[graph.edgeTarget[e]!]) kept[size++] = e;
  }
  return gather(graph, kept.subarray(0, size));
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
  return gather(graph, kept.subarray(0, size));
}

function gather(graph: GraphData, edges: Int32Array): EdgeList {
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
  return sortEdges(source, target, share);
}

export interface View {
  k: number;
  x: number;
  y: number;
  width: number;
  height: number;
}

/** Draws a list, the strongest class first and each weaker one under it, as far as the time allows. */
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

  /** until: time of performance.now() after which the rest is left for the next call. */
  run(context: CanvasRenderingContext2D, until: number): void {
    const { list, palette, focus } = this;
    context.save();
    context.globalCompositeOperation = "destination-over";
    context.lineCap = "butt";
    let c = 2 * LEVELS - 1;
    while (c > 0 && list.start[c]! >= this.at) c--;
    while (this.at > 0) {
      while (c > 0 && list.start[c]! >= this.at) c--;
      const strength = c >> 1;
      context.strokeStyle = c & 1 ? palette.negative : palette.positive;
      context.globalAlpha = (focus ? FOCUS_ALPHA : CONTEXT_ALPHA)[strength]!;
      context.lineWidth = WIDTHS[strength]! * (focus ? 1 : 0.8);
      const from = Math.max(list.start[c]!, this.at - CHUNK);
      context.beginPath();
      for (let k = from; k < this.at; k++) this.curve(context, list.order[k]!);
      context.stroke();
      this.at = from;
      if (performance.now() > until) break;
    }
    context.restore();
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
