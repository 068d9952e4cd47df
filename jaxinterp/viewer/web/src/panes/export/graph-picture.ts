// The whole graph as a picture: the graph pane's layout, its strongest edges and what is pinned, as vectors.

import { count, mix, type Palette, percent } from "../../draw/colour";
import { outlinePath } from "../../draw/glyph";
import { EMBEDDING, ERROR, type GraphData, TARGET, visible } from "../../model/bundle";
import type { Session } from "../../model/session";
import { cut, placeLabels, type Wanted } from "../graph/labels";
import { type Layout, place, rowCount } from "../graph/layout";
import { fillSteps } from "../graph/nodes";
import { textWidth } from "../subgraph/text";
import { framed } from "./frame";
import type { Mark, Picture } from "./picture";

const LEFT = 34;
const BAND = 52;
const BELOW = 76;
const LABEL = 11.5;
const MOST_LABELS = 80;
const STEPS = 9;

export function graphPicture(session: Session, palette: Palette): Picture {
  const graph = session.graph.value!;
  const shown = session.shown.value;
  const width = Math.min(2400, Math.max(1000, graph.tokens.length * 80));
  const height = Math.min(1500, Math.max(420, rowCount(graph) * 27 + BAND));
  const layout = place(graph, width, height, BAND);
  const marks: Mark[] = [...axes(graph, layout, palette)];
  const drawn = edges(session, graph, shown, layout, palette, marks);
  const nodes = glyphs(session, graph, shown, layout, palette, marks);
  labels(session, graph, shown, layout, palette, marks);
  const hidden = session.hiddenCounts.value.all;
  const notes = [`${count(nodes)} of ${count(graph.n)} nodes${hidden ? ` (${count(hidden)} hidden)` : ""}, the ${count(drawn)} strongest of ${count(graph.header.n_edges)} edges. Size and darkness: influence.`];
  return framed(session, { width: width + LEFT + 8, height: height + BELOW, marks }, palette, notes, false);
}

function axes(graph: GraphData, layout: Layout, palette: Palette): Mark[] {
  const marks: Mark[] = [];
  const rows = rowCount(graph);
  const step = Math.max(1, Math.ceil(13 / Math.max(1, (layout.rows[1]! - layout.rows[rows - 1]!) / Math.max(1, rows - 2))));
  for (let row = 0; row < rows; row++) {
    const bottom = layout.rows[row]!;
    const top = layout.rows[row + 1]!;
    if (row % 2 && row < rows - 1) marks.push({ kind: "rect", x: LEFT, y: top, width: layout.width, height: bottom - top, fill: mix(palette.panel, palette.text, 0.025) });
    const name = row === 0 ? "emb" : row === rows - 1 ? "out" : (row - 1) % step === 0 ? `L${row - 1}` : "";
    if (name) marks.push({ kind: "text", x: LEFT - 6, y: (row === rows - 1 ? bottom - 13 : (top + bottom) / 2) + 4, text: name, size: 11, fill: palette.muted, anchor: "end" });
  }
  let free = -Infinity;
  for (let c = 0; c + 1 < layout.columns.length; c++) {
    const left = LEFT + layout.columns[c]!;
    const x = (left + LEFT + layout.columns[c + 1]!) / 2;
    marks.push({ kind: "rect", x: left, y: 0, width: 0.7, height: layout.height, fill: palette.line });
    if (x - free < 12) continue;
    free = x;
    const position = c + layout.firstPosition;
    const text = position < 0 ? "(none)" : cut(visible(graph.tokens[position] ?? String(position)), 14);
    marks.push({ kind: "text", x: x + 4, y: layout.height + 12, text, size: 11, fill: palette.muted, anchor: "end", turn: -40 });
  }
  return marks;
}

function edges(session: Session, graph: GraphData, shown: Uint8Array, layout: Layout, palette: Palette, marks: Mark[]): number {
  const kept: number[] = [];
  for (const e of graph.strong) {
    if (kept.length >= session.edgeCount.value) break;
    if (shown[graph.inSource[e]!] && shown[graph.edgeTarget[e]!]) kept.push(e);
  }
  for (const e of kept.reverse()) {
    const { source, target, share } = graph.link(e);
    const [sx, sy, tx, ty] = [LEFT + layout.x[source]!, layout.y[source]!, LEFT + layout.x[target]!, layout.y[target]!];
    const middle = (sy + ty) / 2;
    const at = (x: number, y: number): string => `${x.toFixed(1)} ${y.toFixed(1)}`;
    const d = Math.abs(sy - ty) < 4
      ? `M${at(sx, sy)}Q${at((sx + tx) / 2, sy - Math.min(26, Math.abs(sx - tx) * 0.25 + 6))} ${at(tx, ty)}`
      : `M${at(sx, sy)}C${at(sx, middle)} ${at(tx, middle)} ${at(tx, ty)}`;
    const size = Math.sqrt(Math.min(1, Math.abs(share)));
    marks.push({ kind: "path", d, stroke: share < 0 ? palette.negative : palette.positive, line: 0.4 + 2.4 * size, opacity: 0.08 + 0.4 * size });
  }
  return kept.length;
}

function glyphs(session: Session, graph: GraphData, shown: Uint8Array, layout: Layout, palette: Palette, marks: Mark[]): number {
  const steps = fillSteps(graph);
  const pinned = new Set(session.view.value.pinned);
  const clicked = session.clicked.value;
  let drawn = 0;
  for (let i = 0; i < graph.n; i++) {
    if (!shown[i]) continue;
    drawn++;
    const [x, y, r] = [LEFT + layout.x[i]!, layout.y[i]!, layout.r[i]!];
    const kind = graph.kind[i]!;
    const part = steps[i]! / STEPS;
    const dark = kind === ERROR ? 0.02 + 0.4 * part : kind === EMBEDDING ? 0.12 + 0.6 * part : 0.1 + 0.8 * part;
    marks.push({ kind: "path", d: outlinePath(kind, x, y, r), fill: mix(palette.panel, palette.text, dark), stroke: mix(palette.panel, palette.text, 0.3 + 0.5 * part), line: 0.9 });
    if (pinned.has(i)) marks.push({ kind: "path", d: outlinePath(kind, x, y, r + 1), stroke: palette.text, line: 1.6 });
    if (i === clicked) marks.push({ kind: "path", d: outlinePath(kind, x, y, r + 3.4), stroke: palette.accent, line: 2.4 });
    const p = graph.probability[i]!;
    if (kind === TARGET && p > 0) {
      const tall = BAND - 30;
      marks.push({ kind: "rect", x: x - r, y: y - r - 3 - tall * Math.min(1, p), width: 2 * r, height: tall * Math.min(1, p), fill: mix(palette.panel, palette.text, 0.55) });
    }
  }
  return drawn;
}

function labels(session: Session, graph: GraphData, shown: Uint8Array, layout: Layout, palette: Palette, marks: Mark[]): void {
  const wanted = new Map<number, Wanted>();
  const want = (node: number | null, weight: number): void => {
    if (node === null || !shown[node] || wanted.has(node) || graph.kind[node] === EMBEDDING || wanted.size >= MOST_LABELS) return;
    const p = graph.probability[node]!;
    const name = cut(session.name(node), 26);
    const text = graph.kind[node] === TARGET && p > 0 ? `${name} ${percent(p)}` : name;
    wanted.set(node, { node, text, x: LEFT + layout.x[node]!, y: layout.y[node]!, r: layout.r[node]! + 2, width: textWidth(text, `600 ${LABEL}px ${palette.font}`), weight });
  };
  want(session.clicked.value, 2);
  graph.targets.slice(0, 3).forEach((node, k) => want(node, 1.5 - k * 0.1));
  for (const node of session.view.value.pinned) want(node, Math.max(0, graph.influence[node]! || 0) / (graph.influenceTotal || 1));
  for (const l of placeLabels([...wanted.values()], LEFT + layout.width, layout.height)) {
    marks.push({ kind: "text", x: l.left, y: l.top + 11, text: l.text, size: LABEL, bold: l.weight >= 1.2, fill: palette.text, halo: palette.panel });
  }
}
