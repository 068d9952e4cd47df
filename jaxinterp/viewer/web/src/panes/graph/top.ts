// The uppermost canvas: rings around selected, pinned, marked and hovered nodes, their names, an edge that is pointed at.

import { mix, type Palette, palette, percent } from "../../draw/colour";
import { outline } from "../../draw/glyph";
import { EMBEDDING, TARGET } from "../../model/bundle";
import type { Session } from "../../model/session";
import { drawPlace, LEFT } from "./axes";
import { EdgePass, sortEdges } from "./edges";
import { cut, placeLabels, type Wanted } from "./labels";
import type { Painter } from "./painter";

const FONT = 11.5;
const MOST_LETTERS = 26;
const MOST_PINNED = 60;
const MOST_TARGETS = 3;

export function drawTop(context: CanvasRenderingContext2D, session: Session, painter: Painter): void {
  const { graph, layout, view } = painter;
  if (!graph || !layout) return;
  const colours = palette.peek();
  const shown = session.shown.peek();
  const clicked = session.clicked.peek();
  const hovered = session.hovered.peek();
  const { pinned } = session.view.peek();
  context.save();
  context.beginPath();
  context.rect(LEFT, 0, view.width + 4, view.height);
  context.clip();
  context.translate(LEFT, 0);
  const ring = (node: number, extra: number, width: number, colour: string): void => {
    const [x, y, r] = painter.placeOf(node)!;
    context.beginPath();
    outline(context, graph.kind[node]!, x, y, r + extra);
    context.lineWidth = width;
    context.strokeStyle = colour;
    context.stroke();
  };
  drawEdge(context, session, painter, colours);
  for (const node of pinned) if (shown[node]) ring(node, 1, 1.6, colours.text);
  for (const node of session.marked.peek()) if (shown[node]) ring(node, 3, 2, colours.warn);
  if (clicked !== null && shown[clicked]) ring(clicked, 3.4, 2.6, colours.accent);
  if (hovered !== null && shown[hovered]) ring(hovered, 2.2, 1.6, colours.text);

  const wanted: Wanted[] = [];
  const seen = new Set<number>();
  const want = (node: number | null, weight: number): void => {
    if (node === null || !shown[node] || seen.has(node)) return;
    const [x, y, r] = painter.placeOf(node)!;
    if (x < -r || x > view.width + r || y < -r || y > view.height + r) return;
    seen.add(node);
    const text = labelText(session, node);
    wanted.push({ node, text, x, y, r: r + 2, width: widthOf(context, text, font(weight, colours)), weight });
  };
  want(hovered, 3);
  want(clicked, 2);
  graph.targets.slice(0, MOST_TARGETS).forEach((node, k) => want(node, 1.5 - k * 0.1));
  // The axis names the tokens.
  pinned.filter((node) => graph.kind[node] !== EMBEDDING).slice(0, MOST_PINNED).forEach((node) => want(node, Math.min(1, Math.max(0, graph.influence[node]! || 0) / (graph.influenceTotal || 1))));
  context.textAlign = "left";
  context.textBaseline = "middle";
  context.lineJoin = "round";
  let current = "";
  for (const label of placeLabels(wanted, view.width, view.height, (...box) => painter.countWithin(...box))) {
    const wish = font(label.weight, colours);
    if (wish !== current) context.font = current = wish;
    context.lineWidth = 3.5;
    context.strokeStyle = colours.panel;
    context.globalAlpha = 0.88;
    context.strokeText(label.text, label.left, label.top + 7);
    context.globalAlpha = 1;
    context.fillStyle = label.weight >= 1.5 ? colours.text : mix(colours.panel, colours.text, 0.86);
    context.fillText(label.text, label.left, label.top + 7);
  }
  if (painter.rubber) {
    const { left, top, right, bottom } = painter.rubber;
    context.lineWidth = 1;
    context.strokeStyle = colours.warn;
    context.fillStyle = colours.warn;
    context.globalAlpha = 0.12;
    context.fillRect(left, top, right - left, bottom - top);
    context.globalAlpha = 1;
    context.strokeRect(left, top, right - left, bottom - top);
  }
  context.restore();
  if (clicked !== null) drawPlace(context, graph, layout, clicked, view, colours, colours.accent);
  if (hovered !== null && hovered !== clicked) drawPlace(context, graph, layout, hovered, view, colours, colours.muted);
}

const font = (weight: number, colours: Palette): string => `${weight >= 1.2 ? "600 " : ""}${FONT}px ${colours.font}`;

// Setting a font and measuring take longer than all the rest of this canvas: every width is asked for once.
const widths = new Map<string, number>();
const MOST_WIDTHS = 4000;

function widthOf(context: CanvasRenderingContext2D, text: string, wish: string): number {
  const key = wish + text;
  let width = widths.get(key);
  if (width === undefined) {
    context.font = wish;
    width = context.measureText(text).width;
    if (widths.size >= MOST_WIDTHS) widths.clear();
    widths.set(key, width);
  }
  return width;
}

function labelText(session: Session, node: number): string {
  const graph = session.graph.peek()!;
  const text = cut(session.name(node), MOST_LETTERS);
  const p = graph.probability[node]!;
  return graph.kind[node] === TARGET && p > 0 ? `${text} ${percent(p)}` : text;
}

/** The share of an edge that the page was not sent at first: it may have come with the selected node's own. */
function fetchedShare({ focusList }: Painter, target: number, source: number): number {
  const at = focusList?.source.findIndex((one, k) => one === source && focusList.target[k] === target) ?? -1;
  return at < 0 ? 0 : focusList!.share[at]!;
}

/** The edge that is pointed at elsewhere, or the one between the hovered and the selected node. */
function drawEdge(context: CanvasRenderingContext2D, session: Session, painter: Painter, colours: Palette): void {
  const graph = painter.graph!;
  const clicked = session.clicked.peek();
  const hovered = session.hovered.peek();
  let ends = session.edge.peek();
  if (!ends && clicked !== null && hovered !== null && clicked !== hovered) {
    if (graph.edgeBetween(clicked, hovered) >= 0) ends = { target: clicked, source: hovered };
    else if (graph.edgeBetween(hovered, clicked) >= 0) ends = { target: hovered, source: clicked };
  }
  if (!ends) return;
  const edge = graph.edgeBetween(ends.target, ends.source);
  const share = edge >= 0 ? graph.link(edge).share : fetchedShare(painter, ends.target, ends.source);
  const list = sortEdges(Int32Array.of(ends.source), Int32Array.of(ends.target), Float32Array.of(Math.max(0.2, Math.abs(share)) * (share < 0 ? -1 : 1)));
  new EdgePass(list, painter.layout!, painter.view, colours, true).begin(context);
}
