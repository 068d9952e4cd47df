// Nodes as glyphs. Size and darkness tell the influence; the neighbours of the selected node take the sign's colour.

import { mix, type Palette, signed } from "../../draw/colour";
import { outline } from "../../draw/glyph";
import { EMBEDDING, ERROR, type GraphData, TARGET } from "../../model/bundle";
import type { EdgeList, View } from "./edges";
import type { Layout } from "./layout";

const FILLS = 10;
const CHUNK = 128;
const LARGEST = 8;
/** From so many nodes on, glyphs of a smaller radius than TINY are squares without an outline. */
const MANY = 3000;
const TINY = 1.6;

/** Radius on the screen: glyphs grow with the zoom up to a size. */
export const radius = (layout: Layout, node: number, k: number): number => Math.max(layout.r[node]!, Math.min(LARGEST, layout.r[node]! * k));

/** Step of darkness of every node, 0 the lightest. */
export function fillSteps(graph: GraphData): Uint8Array {
  const steps = new Uint8Array(graph.n);
  let most = 0;
  for (let i = 0; i < graph.n; i++) if (graph.kind[i] !== TARGET && graph.influence[i]! > most) most = graph.influence[i]!;
  for (let i = 0; i < graph.n; i++) {
    let part = most > 0 ? Math.sqrt(Math.max(0, graph.influence[i]! || 0) / most) : 0.4;
    if (graph.kind[i] === TARGET) part = Number.isFinite(graph.probability[i]!) ? Math.sqrt(graph.probability[i]!) : 0.5;
    steps[i] = Math.round(Math.min(1, part) * (FILLS - 1));
  }
  return steps;
}

function inside(view: View, x: number, y: number, r: number): boolean {
  return x > -r && x < view.width + r && y > -r && y < view.height + r;
}

/** Draw all visible nodes. Glyphs of the same kind and fill share strokes. */
export function drawNodes(context: CanvasRenderingContext2D, graph: GraphData, layout: Layout, shown: Uint8Array, steps: Uint8Array, view: View, palette: Palette): void {
  const classes = 5 * FILLS;
  const start = new Int32Array(classes + 1);
  for (let i = 0; i < graph.n; i++) if (shown[i]) start[graph.kind[i]! * FILLS + steps[i]! + 1]!++;
  for (let c = 0; c < classes; c++) start[c + 1]! += start[c]!;
  const order = new Int32Array(start[classes]!);
  const next = start.slice();
  for (let i = 0; i < graph.n; i++) if (shown[i]) order[next[graph.kind[i]! * FILLS + steps[i]!]!++] = i;
  context.lineWidth = 0.9;
  const tiny = order.length > MANY && order.length > 0 && layout.small * view.k < TINY;
  for (const kind of [ERROR, 2, 0, EMBEDDING, TARGET]) {
    for (let step = 0; step < FILLS; step++) {
      const c = kind * FILLS + step;
      const colour = fill(kind, step / (FILLS - 1), palette);
      context.fillStyle = tiny ? mix(colour[0], colour[1], 0.6) : colour[0];
      context.strokeStyle = colour[1];
      if (tiny) {
        // Shapes cannot be told apart at this size, and squares are drawn much faster.
        for (let k = start[c]!; k < start[c + 1]!; k++) {
          const i = order[k]!;
          const r = radius(layout, i, view.k);
          context.fillRect(layout.x[i]! * view.k + view.x - r, layout.y[i]! * view.k + view.y - r, 2 * r, 2 * r);
        }
        continue;
      }
      for (let from = start[c]!; from < start[c + 1]!; from += CHUNK) {
        context.beginPath();
        for (let k = from; k < Math.min(start[c + 1]!, from + CHUNK); k++) {
          const i = order[k]!;
          const x = layout.x[i]! * view.k + view.x;
          const y = layout.y[i]! * view.k + view.y;
          const r = radius(layout, i, view.k);
          if (inside(view, x, y, r)) outline(context, kind, x, y, r);
        }
        context.fill();
        context.stroke();
      }
    }
  }
}

function fill(kind: number, part: number, palette: Palette): [string, string] {
  const ink = palette.text;
  if (kind === ERROR) return [mix(palette.panel, ink, 0.02 + 0.4 * part), mix(palette.panel, ink, 0.3 + 0.3 * part)];
  if (kind === EMBEDDING) return [mix(palette.panel, ink, 0.12 + 0.6 * part), mix(palette.panel, ink, 0.6)];
  return [mix(palette.panel, ink, 0.1 + 0.8 * part), mix(palette.panel, ink, 0.45 + 0.4 * part)];
}

/** Bars of probability over the targets. */
export function drawProbabilities(context: CanvasRenderingContext2D, graph: GraphData, layout: Layout, shown: Uint8Array, view: View, height: number, palette: Palette): void {
  for (const i of graph.targets) {
    const p = graph.probability[i]!;
    if (!shown[i] || !(p > 0)) continue;
    const x = layout.x[i]! * view.k + view.x;
    const y = layout.y[i]! * view.k + view.y;
    const r = radius(layout, i, view.k);
    const foot = y - r - 3;
    context.fillStyle = mix(palette.panel, palette.text, 0.09);
    context.fillRect(x - r, foot - height, 2 * r, height);
    context.fillStyle = mix(palette.panel, palette.text, 0.55);
    context.fillRect(x - r, foot - height * Math.min(1, p), 2 * r, height * Math.min(1, p));
  }
}

/** At most so many neighbours are drawn in colour; a node with more has thousands of edges of no weight. */
const COLOURED = 1500;

/** The other ends of a node's edges, in the colour of their share, the strongest last. */
export function drawNeighbours(context: CanvasRenderingContext2D, graph: GraphData, layout: Layout, list: EdgeList, node: number, view: View, palette: Palette): void {
  context.lineWidth = 1;
  context.strokeStyle = mix(palette.panel, palette.text, 0.6);
  for (let k = Math.max(0, list.order.length - COLOURED); k < list.order.length; k++) {
    const e = list.order[k]!;
    const i = list.source[e] === node ? list.target[e]! : list.source[e]!;
    const x = layout.x[i]! * view.k + view.x;
    const y = layout.y[i]! * view.k + view.y;
    const r = radius(layout, i, view.k);
    if (!inside(view, x, y, r)) continue;
    context.beginPath();
    outline(context, graph.kind[i]!, x, y, r);
    context.fillStyle = signed(list.share[e]!);
    context.fill();
    context.stroke();
  }
}
