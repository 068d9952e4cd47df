// The subgraph as a picture: what its pane shows, all of it, whatever part is in sight.

import { count, type Palette, percent, signedOn } from "../../draw/colour";
import { type GraphData, TARGET } from "../../model/bundle";
import type { Session } from "../../model/session";
import { type Drawing, labelPlaces, NAME_SIZE, NOTE_SIZE } from "../subgraph/geometry";
import { measure, picture, type Picture as Made } from "../subgraph/model";
import { dashes, partsOf } from "../subgraph/parts";
import { edgeLimit, shape, showWeights } from "../subgraph/state";
import { framed, shifted } from "./frame";
import type { Mark, Picture } from "./picture";

/** The drawing of the session's view, as the pane makes it. */
export function drawingOf(session: Session, graph: GraphData, font: string): Made {
  const view = session.view.value;
  return picture(measure(graph, view, (i) => session.label(i)), view, edgeLimit.value, shape.value, font);
}

export function subgraphPicture(session: Session, palette: Palette): Picture {
  const graph = session.graph.value!;
  const made = drawingOf(session, graph, palette.font);
  const { bounds } = made.drawing;
  // Arrows and cards behind groups stand out a little.
  const pad = 12;
  const marks = subgraphMarks(made.drawing, graph, palette, showWeights.value).map((mark) => shifted(mark, pad - bounds.x, pad - bounds.y));
  const { outside, edges } = made.weights;
  const notes = [
    `${count(made.boxes.length)} boxes, ${count(made.edges.length)} of ${count(edges.length)} edges between them. Edges from ${count(outside.nodes)} nodes outside carry ${percent(outside.share)} of the shown nodes' input${outside.errors > 0.0005 ? `, ${percent(outside.errors)} from errors` : ""}.`,
  ];
  if (made.left) notes.push(`${count(made.left)} more boxes are not drawn.`);
  return framed(session, { width: bounds.width + 2 * pad, height: bounds.height + 2 * pad, marks }, palette, notes, true);
}

/** Boxes and edges as marks, in the units of the sheet. */
export function subgraphMarks(drawing: Drawing, graph: GraphData, palette: Palette, weights: boolean): Mark[] {
  const marks: Mark[] = [];
  for (const curve of [...drawing.curves].reverse()) {
    const colour = signedOn(palette, curve.edge.weight);
    marks.push({ kind: "path", d: curve.d, stroke: colour, line: curve.width, opacity: 0.9, dash: dashes(curve) }, { kind: "path", d: curve.head, fill: colour });
  }
  const most = Math.max(0, ...drawing.shapes.map((s) => (s.box.kind === TARGET || !Number.isFinite(s.box.share) ? 0 : s.box.share)));
  for (const shape of drawing.shapes) {
    const parts = partsOf(shape, graph, most, palette.font);
    const rect = (d: number, fill: string): Mark => ({ kind: "rect", x: shape.x - shape.width / 2 + d, y: shape.y - shape.height / 2 - d, width: shape.width, height: shape.height, round: 7, fill, stroke: palette.faint, line: 1 });
    if (shape.box.group) marks.push(rect(6, palette.raise), rect(3, palette.raise));
    marks.push(rect(0, palette.panel));
    const own: Mark[] = parts.lines.map((line) => ({ kind: "text", x: line.x, y: line.y, text: line.text, size: NAME_SIZE, bold: true, fill: palette.text }));
    if (parts.note) own.push({ kind: "text", x: parts.note.x, y: parts.note.y, text: parts.note.text, size: NOTE_SIZE, fill: palette.muted });
    for (const d of parts.glyphs) own.push({ kind: "path", d, stroke: palette.muted, line: 1.3 });
    if (parts.bar) own.push({ kind: "rect", x: parts.bar.x, y: parts.bar.y, width: parts.bar.width, height: 2, round: 1, fill: palette.muted });
    marks.push(...own.map((mark) => shifted(mark, shape.x, shape.y)));
  }
  if (weights) {
    for (const l of labelPlaces(drawing.curves, drawing.shapes, (c) => `${c.edge.weight > 0 ? "+" : ""}${percent(c.edge.weight)}`)) {
      marks.push({ kind: "text", x: l.x, y: l.y + 4, text: l.text, size: 11, fill: palette.text, anchor: "middle", halo: palette.panel });
    }
  }
  return marks;
}
