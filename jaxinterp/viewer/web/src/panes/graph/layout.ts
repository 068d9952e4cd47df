// Where every node stands: tokens across, layers up. Pure: typed arrays in, typed arrays out, in pixels of the plot
// at zoom 1. Nodes that share a layer and a token are spread over their cell, so that none hides another.

import { BIAS, EMBEDDING, ERROR, type GraphData, TARGET } from "../../model/bundle";

export interface Layout {
  width: number;
  height: number;
  x: Float32Array;
  y: Float32Array;
  /** Radius of every glyph at zoom 1. */
  r: Float32Array;
  /** The middle one of all radii. */
  small: number;
  /** Left edges of the columns and the right edge of the last one. */
  columns: Float32Array;
  /** Upper edges of the rows from the lowest row (embeddings) up, and last the upper edge of all. Falling values. */
  rows: Float32Array;
  /** Token position of column 0: -1 where some nodes stand at no token. */
  firstPosition: number;
}

/** Rows of the plot from below: embeddings, layers, targets. */
export const rowCount = (graph: GraphData): number => graph.header.n_layers + 2;

/** The row of a node. */
export function rowOf(graph: GraphData, node: number): number {
  const layers = graph.header.n_layers;
  const layer = graph.layer[node]!;
  switch (graph.kind[node]) {
    case EMBEDDING:
      return 0;
    case TARGET:
      // A feature can be a target too: it stands in its own layer.
      return layer >= 0 && layer < layers ? layer + 1 : layers + 1;
    default:
      return Math.min(layers, Math.max(0, layer + 1));
  }
}

const GLYPH = 5;
const SPACING = 2 * GLYPH + 2.5;
const LEAST_COLUMN = 20;
const LEAST_ROW = 14;

/** Room for each of several things in `size` pixels: what they ask for, stretched or, sparing the small ones, cut. */
export function share(wanted: Float32Array, size: number): Float32Array {
  let sum = 0;
  for (const w of wanted) sum += w;
  const power = sum > size ? 0.6 : 0.5;
  let weights = 0;
  for (const w of wanted) weights += w ** power;
  const extra = Math.max(0, size - sum);
  const found = new Float32Array(wanted.length);
  for (let i = 0; i < wanted.length; i++) {
    const w = wanted[i]!;
    found[i] = sum > size ? (size * w ** power) / weights : w + (extra * w ** power) / weights;
  }
  return found;
}

function edges(sizes: Float32Array, from: number, sign: 1 | -1): Float32Array {
  const found = new Float32Array(sizes.length + 1);
  let at = from;
  found[0] = at;
  for (let i = 0; i < sizes.length; i++) found[i + 1] = at += sign * sizes[i]!;
  return found;
}

/** band: height at the top that is kept for the targets and their probabilities. */
export function place(graph: GraphData, width: number, height: number, band: number): Layout {
  const { n, kind, part, position, influence } = graph;
  const rows = rowCount(graph);
  const top = rows - 1;
  let first = 0;
  let last = Math.max(0, graph.tokens.length - 1);
  for (let i = 0; i < n; i++) {
    if (position[i]! < first) first = -1;
    if (position[i]! > last) last = position[i]!;
  }
  const columns = last - first + 1;
  const cell = new Int32Array(n);
  const counts = new Int32Array(rows * columns);
  for (let i = 0; i < n; i++) {
    const c = rowOf(graph, i) * columns + Math.max(first, position[i]!) - first;
    cell[i] = c;
    counts[c]!++;
  }

  const most = new Float32Array(columns);
  for (let c = 0; c < columns; c++) {
    let largest = 1;
    for (let row = 0; row < top; row++) largest = Math.max(largest, counts[row * columns + c]!);
    most[c] = Math.max(LEAST_COLUMN, largest * SPACING + 6);
  }
  const columnEdges = edges(share(most, width), 0, 1);

  const need = new Float32Array(rows - 1);
  for (let row = 0; row < top; row++) {
    let lines = 1;
    for (let c = 0; c < columns; c++) {
      const w = columnEdges[c + 1]! - columnEdges[c]!;
      lines = Math.max(lines, (counts[row * columns + c]! * SPACING) / Math.max(SPACING, w));
    }
    need[row] = Math.max(row === 0 ? 24 : LEAST_ROW, Math.min(6, lines) * SPACING + 4);
  }
  const rowSizes = new Float32Array(rows);
  rowSizes.set(share(need, Math.max(1, height - band)));
  rowSizes[top] = Math.min(band, height);
  const rowEdges = edges(rowSizes, height, -1);

  // Nodes by cell, within a cell by part, features before biases before errors, the influential first.
  const rank = (i: number): number => part[i]! * 4 + (kind[i] === ERROR ? 3 : kind[i] === BIAS ? 2 : 0);
  let strongest = 0;
  for (let i = 0; i < n; i++) if (kind[i] !== TARGET && influence[i]! > strongest) strongest = influence[i]!;

  const order = sorted(n, (i) => cell[i]! * 16 + rank(i), rows * columns * 16, (i) => 1 - Math.max(0, influence[i]! || 0) / (strongest || 1));

  const layout: Layout = { width, height, x: new Float32Array(n), y: new Float32Array(n), r: new Float32Array(n), small: 0, columns: columnEdges, rows: rowEdges, firstPosition: first };
  for (let at = 0; at < n; ) {
    const c = cell[order[at]!]!;
    const size = counts[c]!;
    const row = Math.floor(c / columns);
    const column = c % columns;
    if (row === top) {
      const near = counts.subarray(top * columns, rows * columns);
      placeTargets(layout, order.subarray(at, at + size), column, rowEdges[row]! - 13, alone(near) ? width : 0);
    } else {
      const low = rowEdges[row]!;
      const box = { left: columnEdges[column]!, right: columnEdges[column + 1]!, top: rowEdges[row + 1]!, bottom: low };
      placeCell(layout, order.subarray(at, at + size), box, influence, strongest, kind);
    }
    at += size;
  }
  layout.small = layout.r.slice().sort()[n >> 1] ?? 0;
  return layout;
}

/** Node numbers by group, within a group by a value 0..1. One number holds all of it where it fits: sorting numbers is
 * many times faster than sorting with a function. */
function sorted(n: number, group: (i: number) => number, groups: number, value: (i: number) => number): Uint32Array {
  const steps = 4096;
  const order = new Uint32Array(n);
  if (groups * steps * n < Number.MAX_SAFE_INTEGER) {
    const keys = new Float64Array(n);
    for (let i = 0; i < n; i++) keys[i] = (group(i) * steps + Math.floor(Math.min(1, value(i)) * (steps - 1))) * n + i;
    keys.sort();
    for (let i = 0; i < n; i++) order[i] = keys[i]! % n;
    return order;
  }
  for (let i = 0; i < n; i++) order[i] = i;
  return order.sort((a, b) => group(a) - group(b) || value(a) - value(b) || a - b);
}

function alone(counts: Int32Array): boolean {
  let used = 0;
  for (const count of counts) used += count ? 1 : 0;
  return used === 1;
}

interface Box {
  left: number;
  right: number;
  top: number;
  bottom: number;
}

function placeCell(layout: Layout, nodes: Uint32Array, box: Box, influence: Float32Array, strongest: number, kind: Uint8Array): void {
  const w = (box.right - box.left) * 0.92;
  const h = (box.bottom - box.top) * 0.86;
  const size = nodes.length;
  let across = size;
  // One line while the glyphs fit beside each other, else lines that make the spacing even in both directions.
  if (size * SPACING > w) across = Math.max(1, Math.min(size, Math.ceil(Math.sqrt((size * w) / Math.max(1, h)))));
  const lines = Math.ceil(size / across);
  const dx = Math.min(SPACING, w / across);
  const dy = lines > 1 ? Math.min(SPACING, h / lines) : h;
  const room = Math.min(dx, dy);
  const limit = Math.max(0.8, Math.min(GLYPH, room * 0.46));
  const middleX = (box.left + box.right) / 2;
  const middleY = (box.top + box.bottom) / 2;
  for (let k = 0; k < size; k++) {
    const node = nodes[k]!;
    const line = Math.floor(k / across);
    const inLine = line === lines - 1 ? size - line * across : across;
    layout.x[node] = middleX + ((k % across) - (inLine - 1) / 2) * dx;
    layout.y[node] = middleY + (line - (lines - 1) / 2) * dy;
    const part = kind[node] === EMBEDDING ? 0.8 : strongest > 0 ? Math.sqrt(Math.max(0, influence[node]! || 0) / strongest) : 0.5;
    layout.r[node] = limit * (0.62 + 0.38 * Math.min(1, part));
  }
}

/** Targets stand side by side above their token; where only one token has any they may use the whole width. */
function placeTargets(layout: Layout, nodes: Uint32Array, column: number, y: number, whole: number): void {
  const left = layout.columns[column]!;
  const right = layout.columns[column + 1]!;
  const sorted = [...nodes].sort((a, b) => a - b);
  const size = sorted.length;
  const dx = whole ? Math.min(30, (whole - 24) / size) : Math.min(30, (right - left) / size);
  const span = dx * size;
  let start = (left + right) / 2 - span / 2;
  if (whole) start = Math.max(6, Math.min(start, whole - 6 - span));
  sorted.forEach((node, k) => {
    layout.x[node] = start + (k + 0.5) * dx;
    layout.y[node] = y;
    layout.r[node] = Math.max(1.5, Math.min(GLYPH + 0.5, dx * 0.44));
  });
}
