// What the graph itself says of a node.

import { ERROR, FEATURE, TARGET, type GraphData } from "../../model/bundle";

interface Derived {
  /** Rank by influence from 1, 0 for targets and where influence is unknown. */
  rank: Int32Array;
  ranked: number;
  /** Nodes by feature: "part layer index". */
  features: Map<string, number[]>;
}

const kept = new WeakMap<GraphData, Derived>();

const keyOf = (part: number, layer: number, index: number): string => `${part} ${layer} ${index}`;

function derived(graph: GraphData): Derived {
  let found = kept.get(graph);
  if (!found) {
    found = derive(graph);
    kept.set(graph, found);
  }
  return found;
}

function derive(graph: GraphData): Derived {
  const { n, kind, influence, share } = graph;
  const nodes: number[] = [];
  const features = new Map<string, number[]>();
  for (let i = 0; i < n; i++) {
    if (kind[i] !== TARGET && (influence[i]! > 0 || (Number.isNaN(influence[i]!) && !Number.isNaN(share[i]!)))) nodes.push(i);
    if (kind[i] !== FEATURE) continue;
    const key = keyOf(graph.part[i]!, graph.layer[i]!, graph.index[i]!);
    const same = features.get(key);
    if (same) same.push(i);
    else features.set(key, [i]);
  }
  // A running share is small for strong nodes.
  nodes.sort((a, b) => (influence[b]! || 0) - (influence[a]! || 0) || share[a]! - share[b]! || a - b);
  const rank = new Int32Array(n);
  nodes.forEach((node, i) => (rank[node] = i + 1));
  return { rank, ranked: nodes.length, features };
}

/** Rank by influence among all nodes but targets, null where it is not known. */
export function rankOf(graph: GraphData, node: number): { rank: number; of: number } | null {
  const { rank, ranked } = derived(graph);
  return rank[node] ? { rank: rank[node]!, of: ranked } : null;
}

/** The part of what reaches the targets that passes through a node, null where it is not known. */
export function passing(graph: GraphData, node: number): number | null {
  const part = graph.passing(node);
  return Number.isFinite(part) ? part : null;
}

/** The same for all nodes of a kind that a test lets through, added up. */
export function passingOf(graph: GraphData, kind: number, test: (node: number) => boolean = () => true): number {
  let sum = 0;
  for (let i = 0; i < graph.n; i++) if (graph.kind[i] === kind && test(i)) sum += passing(graph, i) ?? 0;
  return sum;
}

/** Nodes of a feature in this graph, by position. */
export function nodesOf(graph: GraphData, part: number, layer: number, index: number): number[] {
  return derived(graph).features.get(keyOf(part, layer, index)) ?? [];
}

/** Share of the targets' weight that ends in errors, and in those of this node's layer and part. */
export function errorShares(graph: GraphData, node: number): { all: number; layer: number } {
  const same = (i: number): boolean => graph.layer[i] === graph.layer[node] && graph.part[i] === graph.part[node];
  return { all: passingOf(graph, ERROR), layer: passingOf(graph, ERROR, same) };
}
