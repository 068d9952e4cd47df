// The lists of a node's inputs and outputs: which rows, in which order, in which groups. Pure, over typed arrays.

import type { Rows } from "../../io/types";
import { EMBEDDING, TARGET, visible, type GraphData } from "../../model/bundle";

export type Direction = "inputs" | "outputs";
export type Grouping = "none" | "token" | "layer";
export type Sorting = "share" | "weight" | "position";

/** A node's edges on one side: their other ends, raw weights, and signed shares of the input of each edge's target. */
export interface Side {
  direction: Direction;
  node: Int32Array;
  weight: Float32Array;
  share: Float32Array;
  /** Edges on this side in the whole graph where that is known to be more than there are here, else null. */
  of: number | null;
}

/** What the bundle holds of a node's edges. */
export function sideOf(graph: GraphData, node: number, direction: Direction): Side {
  const start = direction === "inputs" ? graph.inStart : graph.outStart;
  const low = start[node]!;
  const count = start[node + 1]! - low;
  const side = empty(direction, count);
  for (let i = 0; i < count; i++) {
    const edge = direction === "inputs" ? low + i : graph.outEdge[low + i]!;
    const target = direction === "inputs" ? node : graph.edgeTarget[edge]!;
    side.node[i] = direction === "inputs" ? graph.inSource[edge]! : target;
    put(side, i, graph.weight[edge]!, graph.inputTotal[target]!);
  }
  return side;
}

/** What the server sent of a node's edges. */
export function sideOfRows(graph: GraphData, rows: Rows, direction: Direction): Side {
  const found = rows[direction].filter(([other]) => Number.isInteger(other) && other >= 0 && other < graph.n);
  const side = empty(direction, found.length);
  found.forEach(([other, weight], i) => {
    side.node[i] = other;
    put(side, i, weight, direction === "inputs" ? rows.input_total : graph.inputTotal[other]!);
  });
  const more = rows as Rows & { inputs_total?: number; outputs_total?: number };
  const all = direction === "inputs" ? (more.inputs_total ?? rows.n_inputs) : (more.outputs_total ?? rows.n_outputs);
  return { ...side, of: all !== undefined && all > found.length ? all : null };
}

function empty(direction: Direction, count: number): Side {
  return { direction, node: new Int32Array(count), weight: new Float32Array(count), share: new Float32Array(count), of: null };
}

function put(side: Side, i: number, weight: number, total: number): void {
  side.weight[i] = weight;
  side.share[i] = total > 0 ? weight / total : 0;
}

export interface Chosen {
  /** Places in the side's arrays. */
  rows: Int32Array;
  /** How many are left out, and why: nodes that are hidden, edges of weight zero, texts that do not match. */
  hidden: number;
  zero: number;
  unmatched: number;
}

/** The rows to list. shown: the session's mask; all: list hidden and zero ones too; matches: the text filter. */
export function choose(side: Side, shown: Uint8Array, all: boolean, matches: ((node: number) => boolean) | null): Chosen {
  const rows = new Int32Array(side.node.length);
  let count = 0;
  let hidden = 0;
  let zero = 0;
  let unmatched = 0;
  for (let i = 0; i < rows.length; i++) {
    const node = side.node[i]!;
    const isHidden = shown[node] === 0;
    const isZero = side.weight[i] === 0;
    if (isHidden) hidden++;
    else if (isZero) zero++;
    if (!all && (isHidden || isZero)) continue;
    if (matches && !matches(node)) {
      unmatched++;
      continue;
    }
    rows[count++] = i;
  }
  return { rows: rows.subarray(0, count), hidden, zero, unmatched };
}

/** The same rows in order; equal ones by node number. */
export function sorted(graph: GraphData, side: Side, rows: Int32Array, by: Sorting): Int32Array {
  const { node, share, weight } = side;
  const size = by === "weight" ? weight : share;
  const strength = (a: number, b: number): number => Math.abs(size[b]!) - Math.abs(size[a]!) || node[a]! - node[b]!;
  if (by !== "position") return rows.slice().sort(strength);
  const { position, layer } = graph;
  return rows.slice().sort((a, b) => position[node[a]!]! - position[node[b]!]! || layer[node[a]!]! - layer[node[b]!]! || strength(a, b));
}

export interface RowGroup {
  key: number;
  name: string;
  count: number;
  /** Sums over the group's rows, with their signs and of their sizes. */
  share: number;
  shareSize: number;
  weight: number;
  weightSize: number;
}

/** One line of the list: a row's place, or a group's head as -1 - (its place in groups). */
export interface Layout {
  lines: Int32Array;
  groups: RowGroup[];
}

/** Sorted rows as lines, under heads where they are grouped; rows of folded groups are left out. */
export function layout(graph: GraphData, side: Side, rows: Int32Array, grouping: Grouping, by: Sorting, folded: ReadonlySet<number>): Layout {
  if (grouping === "none") return { lines: rows, groups: [] };
  const members = new Map<number, number[]>();
  const groups = new Map<number, RowGroup>();
  for (const row of rows) {
    const node = side.node[row]!;
    const key = keyOf(graph, node, grouping);
    let group = groups.get(key);
    if (!group) {
      group = { key, name: nameOf(graph, key, grouping), count: 0, share: 0, shareSize: 0, weight: 0, weightSize: 0 };
      groups.set(key, group);
      members.set(key, []);
    }
    members.get(key)!.push(row);
    group.count++;
    group.share += side.share[row]!;
    group.shareSize += Math.abs(side.share[row]!);
    group.weight += side.weight[row]!;
    group.weightSize += Math.abs(side.weight[row]!);
  }
  const size = (g: RowGroup): number => (by === "weight" ? g.weightSize : g.shareSize);
  const order = [...groups.values()].sort((a, b) => (by === "position" ? a.key - b.key : size(b) - size(a) || a.key - b.key));
  const lines: number[] = [];
  order.forEach((group, i) => {
    lines.push(-1 - i);
    if (!folded.has(group.key)) for (const row of members.get(group.key)!) lines.push(row);
  });
  return { lines: Int32Array.from(lines), groups: order };
}

/** Token: the position. Layer: -1 for token embeddings, the number of layers for targets that read the end. */
function keyOf(graph: GraphData, node: number, grouping: Grouping): number {
  if (grouping === "token") return graph.position[node]!;
  if (graph.kind[node] === EMBEDDING) return -1;
  if (graph.kind[node] === TARGET && graph.layer[node]! >= graph.header.n_layers) return graph.header.n_layers;
  return graph.layer[node]!;
}

function nameOf(graph: GraphData, key: number, grouping: Grouping): string {
  if (grouping === "token") return graph.tokens[key] === undefined ? `position ${key}` : `${visible(graph.tokens[key]!)} (${key})`;
  if (key < 0) return "Tokens";
  return key >= graph.header.n_layers ? "Targets" : `Layer ${key}`;
}

/** What a list of rows sums to: with signs, positive and negative apart, and of sizes. */
export function sums(side: Side): { sum: number; positive: number; negative: number; size: number } {
  let positive = 0;
  let negative = 0;
  for (const weight of side.weight) {
    if (weight > 0) positive += weight;
    else negative += weight;
  }
  return { sum: positive + negative, positive, negative, size: positive - negative };
}
