// Edges between boxes, by the published formula for supernodes (the one of jaxinterp/graphs/supernodes.py):
//   abs_t = Σ_s |A[t, s]|     ext_t = Σ_{s not in T} |A[t, s]|
//   ω_t = (ext_t / abs_t) / Σ_{t' in T} (ext_t' / abs_t')
//   A(S -> T) = Σ_{t in T} ω_t Σ_{s in S} A[t, s] / ext_t
// Sums over sources run over all edges of the graph, also those from nodes that have no box.

import { ERROR } from "../../model/bundle";

export interface BoxEdge {
  source: number;
  target: number;
  /** A(source -> target), a signed part of the target's input from outside. */
  weight: number;
}

/** What of a graph is needed here. */
export interface Rows {
  n: number;
  inStart: ArrayLike<number>;
  inSource: ArrayLike<number>;
  weight: ArrayLike<number>;
  /** Σ_s |A[t, s]| over all edges. */
  inputTotal: ArrayLike<number>;
  kind: ArrayLike<number>;
}

export interface BoxWeights {
  /** Largest size first. */
  edges: BoxEdge[];
  /** Edges that run within a group. */
  inside: number;
  /** Nodes without a box that feed one, and the mean share of a shown node's input that they carry; errors: error nodes' part of it. */
  outside: { nodes: number; share: number; errors: number };
}

/**
 * The edges between groups of nodes; no node may be in two groups.
 *
 * whole: whether the rows hold every edge of the graph. If not, sums of sizes come from `inputTotal`.
 */
export function boxWeights(graph: Rows, groups: readonly (readonly number[])[], whole: boolean): BoxWeights {
  const groupOf = new Int32Array(graph.n).fill(-1);
  groups.forEach((members, g) => members.forEach((i) => (groupOf[i] = g)));
  const count = groups.length;
  const between = new Float64Array(count * count);
  const feeding = new Set<number>();
  let inside = 0;
  let lost = 0;
  let lostErrors = 0;
  let fed = 0;
  groups.forEach((members, g) => {
    const sums = members.map((t) => {
      let all = 0;
      let own = 0;
      let shown = 0;
      let errors = 0;
      for (let e = graph.inStart[t]!; e < graph.inStart[t + 1]!; e++) {
        const source = graph.inSource[e]!;
        const size = Math.abs(graph.weight[e]!);
        all += size;
        if (groupOf[source] === g) {
          own += size;
          if (size) inside++;
        }
        if (groupOf[source]! >= 0) shown += size;
        else if (size) {
          feeding.add(source);
          if (graph.kind[source] === ERROR) errors += size;
        }
      }
      if (!whole) all = Math.max(graph.inputTotal[t]!, all);
      if (all > 0) {
        fed++;
        lost += (all - shown) / all;
        lostErrors += errors / all;
      }
      return { t, ext: all - own, ratio: all > 0 ? (all - own) / all : 0 };
    });
    const total = sums.reduce((sum, { ratio }) => sum + ratio, 0);
    for (const { t, ext, ratio } of sums) {
      if (!(ext > 0) || !(ratio > 0)) continue;
      const factor = ratio / total / ext;
      for (let e = graph.inStart[t]!; e < graph.inStart[t + 1]!; e++) {
        const source = groupOf[graph.inSource[e]!]!;
        if (source >= 0 && source !== g) between[g * count + source]! += graph.weight[e]! * factor;
      }
    }
  });
  const edges: BoxEdge[] = [];
  for (let t = 0; t < count; t++) {
    for (let s = 0; s < count; s++) {
      const weight = between[t * count + s]!;
      if (weight !== 0) edges.push({ source: s, target: t, weight });
    }
  }
  edges.sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight) || a.target - b.target || a.source - b.source);
  return { edges, inside, outside: { nodes: feeding.size, share: fed ? Math.max(0, lost / fed) : 0, errors: fed ? lostErrors / fed : 0 } };
}
