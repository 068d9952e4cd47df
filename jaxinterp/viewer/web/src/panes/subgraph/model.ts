// From a view to a drawing: boxes, their edges, which of those are drawn, and where everything stands.

import type { GraphData } from "../../model/bundle";
import type { View } from "../../model/view";
import { boxesOf, type Box } from "./boxes";
import { draw, type Drawing, type PaneShape } from "./geometry";
import { boxWeights, type BoxEdge, type BoxWeights } from "./weights";

const LEAST = 0.01;
export const MOST_EDGES = 1500;

export interface Picture {
  boxes: Box[];
  /** Boxes that are not drawn. */
  left: number;
  weights: BoxWeights;
  edges: BoxEdge[];
  drawing: Drawing;
}

/** The boxes of a view and the weights between them: all that does not depend on the size of the pane. */
export function measure(graph: GraphData, view: View, label: (node: number) => string): Pick<Picture, "boxes" | "left" | "weights"> {
  const { boxes, left } = boxesOf(graph, view, label);
  const whole = graph.m >= graph.header.n_edges;
  return { boxes, left, weights: boxWeights(graph, boxes.map((b) => b.members), whole) };
}

/**
 * The strongest edges. Without a limit: those of at least 1 %, at most three a box, and of every box the strongest
 * one into it and out of it, so that none stands alone that need not.
 */
export function chosen(edges: readonly BoxEdge[], boxes: number, limit: number | null): BoxEdge[] {
  if (limit !== null) return edges.slice(0, Math.min(limit, MOST_EDGES));
  const most = Math.max(20, 3 * boxes);
  const into = new Set<number>();
  const out = new Set<number>();
  return edges.filter((edge, i) => {
    const size = Math.abs(edge.weight);
    const first = !into.has(edge.target) || !out.has(edge.source);
    into.add(edge.target);
    out.add(edge.source);
    return size >= LEAST && (i < most || first);
  });
}

export function picture(measured: Pick<Picture, "boxes" | "left" | "weights">, view: View, limit: number | null, pane: PaneShape, font: string): Picture {
  const edges = chosen(measured.weights.edges, measured.boxes.length, limit);
  return { ...measured, edges, drawing: draw(measured.boxes, edges, view.positions, font, pane) };
}
