// What a comparison of two graphs comes to as rows of tables. Pure.

import type { Comparison } from "../../io/types";
import { type GraphData, visible } from "../../model/bundle";

export interface NodeRow {
  a: number;
  b: number;
  name: string;
  place: string;
  /** The token that it stands at, "" for tokens themselves. */
  token: string;
  kind: number;
  activationA: number;
  activationB: number;
  /** Shares of the influence of all nodes that are no targets; a target's probability. */
  influenceA: number;
  influenceB: number;
}

export interface EdgeRow {
  /** target and source in the first graph, and in the second; -1 where a graph lacks the node. */
  targetA: number;
  sourceA: number;
  targetB: number;
  sourceB: number;
  name: string;
  weightA: number;
  weightB: number;
  /** Signed parts of the target's input. */
  shareA: number;
  shareB: number;
}

export type Key = "name" | "activationA" | "activationB" | "activation" | "influenceA" | "influenceB" | "influence";

const known = (x: number): number => (Number.isFinite(x) ? x : 0);

export const difference = (row: NodeRow, of: "activation" | "influence"): number =>
  of === "activation" ? known(row.activationB) - known(row.activationA) : known(row.influenceB) - known(row.influenceA);

const EMBEDDING = 3;
const TARGET = 4;

/** The token that a node stands at; "" where its name says it already. */
export function tokenOf(graph: GraphData, node: number): string {
  if (graph.kind[node] === EMBEDDING || graph.kind[node] === TARGET) return "";
  const token = graph.tokens[graph.position[node]!];
  return token === undefined ? "" : visible(token.trim() || token);
}

const part = (graph: GraphData, i: number): number =>
  graph.kind[i] === TARGET ? graph.probability[i]! : graph.passing(i);

/** One row for every matched pair. nameOf: what to call a node of the first graph, "" for nothing better than its place. */
export function nodeRows(a: GraphData, b: GraphData, comparison: Comparison, nameOf: (node: number) => string): NodeRow[] {
  return comparison.pairs
    .filter(([i, j]) => i >= 0 && i < a.n && j >= 0 && j < b.n)
    .map(([i, j]) => ({
      a: i,
      b: j,
      name: nameOf(i),
      place: a.place(i),
      token: tokenOf(a, i),
      kind: a.kind[i]!,
      activationA: a.activation[i]!,
      activationB: b.activation[j]!,
      influenceA: part(a, i),
      influenceB: part(b, j),
    }));
}

export function edgeRows(a: GraphData, b: GraphData, comparison: Comparison, nameOf: (node: number) => string): EdgeRow[] {
  const share = (graph: GraphData, target: number, weight: number): number => {
    const total = target >= 0 && target < graph.n ? graph.inputTotal[target]! : 0;
    return total > 0 ? weight / total : 0;
  };
  return comparison.edges.map(([targetA, sourceA, targetB, sourceB, weightA, weightB]) => ({
    targetA, sourceA, targetB, sourceB, weightA, weightB,
    name: `${nameOf(sourceA)} → ${nameOf(targetA)}`,
    shareA: share(a, targetA, weightA),
    shareB: share(b, targetB, weightB),
  }));
}

const value = (row: NodeRow, key: Key): number | string => {
  if (key === "name") return row.name || row.place;
  if (key === "activation" || key === "influence") return Math.abs(difference(row, key));
  return known(row[key]);
};

/** Rows by a column, numbers from the largest down, names from A on; equal ones in their order. */
export function sorted(rows: readonly NodeRow[], key: Key): NodeRow[] {
  return [...rows].sort((x, y) => {
    const [p, q] = [value(x, key), value(y, key)];
    if (typeof p === "string" || typeof q === "string") return String(p).localeCompare(String(q));
    return q - p;
  });
}

/** Whether all words are in the text, in any order. */
export function matches(text: string, words: string): boolean {
  const low = text.toLowerCase();
  return words.toLowerCase().split(/\s+/).every((word) => low.includes(word));
}
