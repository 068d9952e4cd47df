// Which nodes are drawn.

import { EMBEDDING, ERROR, FEATURE, type GraphData, TARGET } from "./bundle";

export interface Filter {
  text: string;
  kinds: Set<number>;
  layers: [number, number] | null;
  positions: Set<number> | null;
  /** Nodes whose running share of influence is above this are hidden; 1 hides none. */
  density: number;
}

export const EVERYTHING: Filter = { text: "", kinds: new Set([0, 1, 2, 3, 4]), layers: null, positions: null, density: 1 };

/** 1 for nodes that the filter and the user's hiding let through. */
export function maskOf(graph: GraphData, filter: Filter, hidden: readonly number[], searchText: (node: number) => string): Uint8Array {
  const mask = new Uint8Array(graph.n);
  const words = filter.text.toLowerCase().split(/\s+/).filter(Boolean);
  for (let i = 0; i < graph.n; i++) {
    if (!filter.kinds.has(graph.kind[i]!)) continue;
    if (filter.density < 1 && (graph.kind[i] === FEATURE || graph.kind[i] === ERROR) && graph.share[i]! > filter.density) continue;
    if (filter.layers && graph.kind[i] !== EMBEDDING && graph.kind[i] !== TARGET) {
      if (graph.layer[i]! < filter.layers[0] || graph.layer[i]! > filter.layers[1]) continue;
    }
    if (filter.positions && !filter.positions.has(graph.position[i]!)) continue;
    if (words.length) {
      const text = searchText(i);
      if (!words.every((word) => text.includes(word))) continue;
    }
    mask[i] = 1;
  }
  for (const i of hidden) mask[i] = 0;
  return mask;
}
