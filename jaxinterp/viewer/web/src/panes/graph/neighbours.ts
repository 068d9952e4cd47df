// Where the keys lead: the next node in a direction, the strongest input, the strongest output.

import type { GraphData } from "../../model/bundle";
import type { Places } from "./camera";
import { rowOf } from "./layout";

export type Direction = "left" | "right" | "up" | "down";

/** The visible node next to one: left and right in its own row, up and down the one least far aside in the next row
 * that has any. Null at the border. */
export function neighbour(graph: GraphData, from: number, direction: Direction, shown: Uint8Array, places: Places | null): number | null {
  const row = rowOf(graph, from);
  const x = (i: number): number => (places ? places.x[i]! : graph.position[i]!);
  const y = (i: number): number => (places ? places.y[i]! : 0);
  let best: number | null = null;
  if (direction === "left" || direction === "right") {
    const sign = direction === "right" ? 1 : -1;
    // Nodes of a row in the order of reading: from left to right, then from above.
    const before = (a: number, b: number): boolean => x(a) - x(b) < 0 || (x(a) === x(b) && (y(a) < y(b) || (y(a) === y(b) && a < b)));
    for (let i = 0; i < graph.n; i++) {
      if (!shown[i] || i === from || rowOf(graph, i) !== row) continue;
      if (sign > 0 ? !before(from, i) : !before(i, from)) continue;
      if (best === null || (sign > 0 ? before(i, best) : before(best, i))) best = i;
    }
    return best;
  }
  const sign = direction === "up" ? 1 : -1;
  let nearest = Number.POSITIVE_INFINITY;
  for (let i = 0; i < graph.n; i++) {
    if (!shown[i]) continue;
    const apart = (rowOf(graph, i) - row) * sign;
    if (apart <= 0 || apart > nearest) continue;
    if (best === null || apart < nearest || Math.abs(x(i) - x(from)) < Math.abs(x(best) - x(from))) best = i;
    nearest = apart;
  }
  return best;
}

/** The source of the strongest edge into a node, among visible nodes. */
export function strongestInput(graph: GraphData, node: number, shown: Uint8Array): number | null {
  let best: number | null = null;
  let most = 0;
  for (let e = graph.inStart[node]!; e < graph.inStart[node + 1]!; e++) {
    const size = Math.abs(graph.weight[e]!);
    if (size > most && shown[graph.inSource[e]!]) {
      most = size;
      best = graph.inSource[e]!;
    }
  }
  return best;
}

/** The target of whose input a node gives the largest share, among visible nodes. */
export function strongestOutput(graph: GraphData, node: number, shown: Uint8Array): number | null {
  let best: number | null = null;
  let most = 0;
  for (let k = graph.outStart[node]!; k < graph.outStart[node + 1]!; k++) {
    const e = graph.outEdge[k]!;
    const target = graph.edgeTarget[e]!;
    const total = graph.inputTotal[target]!;
    const size = total > 0 ? Math.abs(graph.weight[e]!) / total : 0;
    if (size > most && shown[target]) {
      most = size;
      best = target;
    }
  }
  return best;
}
