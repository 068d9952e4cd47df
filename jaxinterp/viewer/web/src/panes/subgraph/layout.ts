// The automatic layout of boxes: layers up, tokens across, few crossings, no two boxes over each other, and long
// edges led around the boxes between their ends.

import { spread } from "./rows";

export interface Item {
  width: number;
  height: number;
  level: number;
  position: number;
  /** 0: the bottom rows (tokens), 1: between, 2: the top rows (targets). */
  band: 0 | 1 | 2;
}

export interface Tie {
  source: number;
  target: number;
  weight: number;
}

export interface Arrangement {
  /** Middles of the items, y downwards. */
  x: number[];
  y: number[];
  width: number;
  height: number;
  /** By place in `ties`: x where a long edge passes the rows between its ends, from the source on, with top and bottom of the row. */
  routes: Map<number, { x: number; top: number; bottom: number }[]>;
}

const GAP = 22;
const LANE = 12;
const STRONG = 0.02;
const MOST_LANES = 100;

interface Row {
  items: number[];
  height: number;
}

/** Rows from the bottom up: levels never fall, and no strong tie runs within a row. */
export function rowsOf(items: readonly Item[], ties: readonly Tie[], limit: number, tallest: number): Row[] {
  const near = new Set(ties.filter((t) => Math.abs(t.weight) >= STRONG).map((t) => `${t.source},${t.target}`));
  const tied = (a: number, b: number): boolean => near.has(`${a},${b}`) || near.has(`${b},${a}`);
  const order = items.map((_, i) => i).sort((a, b) => items[a]!.band - items[b]!.band || items[a]!.level - items[b]!.level || items[a]!.position - items[b]!.position);
  const rows: Row[] = [];
  let width = 0;
  for (const i of order) {
    const item = items[i]!;
    const row = rows.at(-1);
    const first = row ? items[row.items[0]!]! : item;
    const fits = row && first.band === item.band && item.level - first.level <= tallest && width + item.width + GAP <= limit && !row.items.some((j) => tied(i, j));
    if (fits) {
      row.items.push(i);
      row.height = Math.max(row.height, item.height);
      width += item.width + GAP;
    } else {
      rows.push({ items: [i], height: item.height });
      width = item.width;
    }
  }
  return rows;
}

/** Places for items; aspect: wished width over height; least: room between two rows at least. */
export function arrange(items: readonly Item[], ties: readonly Tie[], aspect = 1.6, least = 46): Arrangement {
  const n = items.length;
  if (!n) return { x: [], y: [], width: 0, height: 0, routes: new Map() };
  const area = items.reduce((sum, item) => sum + (item.width + GAP) * (item.height + 70), 0);
  const limit = Math.max(760, Math.sqrt(area * aspect) * 1.25);
  const levels = items.map((item) => item.level);
  const rows = rowsOf(items, ties, limit, (Math.max(...levels) - Math.min(...levels)) / 5);
  const rowOf = new Array<number>(n).fill(0);
  rows.forEach((row, r) => row.items.forEach((i) => (rowOf[i] = r)));

  // Columns: the token positions in use, each as wide as its fullest cell.
  const used = [...new Set(items.map((item) => Math.round(item.position)))].sort((a, b) => a - b);
  const column = items.map((item) => used.indexOf(Math.round(item.position)));
  const wide = used.map((_, c) => Math.max(...rows.map((row) => row.items.reduce((sum, i) => sum + (column[i] === c ? items[i]!.width + GAP : 0), 0))));
  const sum = wide.reduce((a, b) => a + b, 0);
  const wished = Math.min(limit, Math.max(sum * 0.6, rows.reduce((h, row) => h + row.height + least + 4, 0) * aspect));
  const stretch = Math.min(sum > limit ? 1 : 2.2, wished / sum);
  const centre: number[] = [];
  let edge = 0;
  for (const w of wide) {
    centre.push(edge + (w * stretch) / 2);
    edge += w * stretch;
  }

  const x = items.map((_, i) => centre[column[i]!]!);
  const around: { other: number; weight: number }[][] = items.map(() => []);
  for (const { source, target, weight } of ties) {
    around[source]!.push({ other: target, weight: Math.abs(weight) });
    around[target]!.push({ other: source, weight: Math.abs(weight) });
  }
  const wish = (i: number, below: boolean): number => {
    let total = 1e-3;
    let mean = total * centre[column[i]!]!;
    for (const { other, weight } of around[i]!) {
      if (below ? rowOf[other]! >= rowOf[i]! : rowOf[other]! <= rowOf[i]!) continue;
      mean += weight * x[other]!;
      total += weight;
    }
    const own = centre[column[i]!]!;
    const half = (wide[column[i]!]! * stretch) / 2;
    return own + Math.max(-half, Math.min(half, mean / total - own));
  };
  for (let sweep = 0; sweep < 10; sweep++) {
    const below = sweep % 2 === 0;
    for (const row of below ? rows : [...rows].reverse()) {
      const wishes = new Map(row.items.map((i) => [i, wish(i, below)]));
      row.items.sort((a, b) => column[a]! - column[b]! || wishes.get(a)! - wishes.get(b)! || a - b);
      const near = row.items.map((i) => 0.55 * centre[column[i]!]! + 0.45 * wishes.get(i)!);
      const found = spread(near, row.items.map((i) => items[i]!.width), GAP, row.items.map(() => 1));
      row.items.forEach((i, k) => (x[i] = found[k]!));
    }
  }

  const lanes = lead(items, ties, rows, rowOf, x);
  return finish(items, rows, x, lanes, aspect, least);
}

interface Lane {
  tie: number;
  row: number;
  x: number;
}

/** Lanes for ties that pass rows, the strongest first, and the items moved apart for them. */
function lead(items: readonly Item[], ties: readonly Tie[], rows: Row[], rowOf: number[], x: number[]): Lane[] {
  const lanes: Lane[] = [];
  const long = ties
    .map((tie, at) => ({ ...tie, at }))
    .filter((t) => Math.abs(rowOf[t.source]! - rowOf[t.target]!) > 1)
    .sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight));
  for (const { source, target, at } of long) {
    if (lanes.length >= MOST_LANES) break;
    const from = rowOf[source]!;
    const to = rowOf[target]!;
    const step = to > from ? 1 : -1;
    for (let r = from + step; r !== to; r += step) {
      const t = (r - from) / (to - from);
      lanes.push({ tie: at, row: r, x: x[source]! + (x[target]! - x[source]!) * t });
    }
  }
  if (!lanes.length) return lanes;
  const byTie = new Map<number, Lane[]>();
  for (const lane of lanes) byTie.set(lane.tie, [...(byTie.get(lane.tie) ?? []), lane]);
  const home = [...x];
  for (let round = 0; round < 4; round++) {
    for (const [tie, chain] of byTie) {
      // Straighten: each lane wishes to lie between its neighbours on the way.
      chain.forEach((lane, k) => {
        const before = k ? chain[k - 1]!.x : x[ties[tie]!.source]!;
        const after = k < chain.length - 1 ? chain[k + 1]!.x : x[ties[tie]!.target]!;
        lane.x = (before + after) / 2;
      });
    }
    rows.forEach((row, r) => {
      const here = lanes.filter((lane) => lane.row === r);
      if (!here.length) return;
      // A lane goes to the side of an item that is nearer; items keep their order.
      const all: { x: number; width: number; item: number; lane: Lane | null }[] = row.items.map((i) => ({ x: x[i]!, width: items[i]!.width, item: i, lane: null }));
      for (const lane of here) all.push({ x: lane.x, width: LANE, item: -1, lane });
      all.sort((a, b) => a.x - b.x || a.item - b.item);
      const found = spread(
        all.map((one) => (one.lane ? one.x : (one.x + home[one.item]!) / 2)),
        all.map((one) => one.width),
        8,
        all.map((one) => (one.lane ? 1 : 3)),
      );
      all.forEach((one, k) => {
        if (one.lane) one.lane.x = found[k]!;
        else x[one.item] = found[k]!;
      });
    });
  }
  return lanes;
}

function finish(items: readonly Item[], rows: Row[], x: number[], lanes: Lane[], aspect: number, least: number): Arrangement {
  let left = Infinity;
  let right = -Infinity;
  items.forEach((item, i) => {
    left = Math.min(left, x[i]! - item.width / 2);
    right = Math.max(right, x[i]! + item.width / 2);
  });
  for (const lane of lanes) {
    left = Math.min(left, lane.x);
    right = Math.max(right, lane.x);
  }
  const width = right - left;
  const solid = rows.reduce((sum, row) => sum + row.height, 0);
  const between = rows.length > 1 ? Math.max(least, Math.min(96, (width / aspect - solid) / (rows.length - 1))) : 0;
  const height = solid + between * (rows.length - 1);
  const y = new Array<number>(items.length).fill(0);
  const tops: number[] = [];
  let bottom = height;
  rows.forEach((row, r) => {
    tops[r] = bottom - row.height;
    for (const i of row.items) y[i] = bottom - row.height / 2;
    bottom -= row.height + between;
  });
  const routes: Arrangement["routes"] = new Map();
  for (const lane of lanes) {
    const route = routes.get(lane.tie) ?? [];
    route.push({ x: lane.x - left, top: tops[lane.row]!, bottom: tops[lane.row]! + rows[lane.row]!.height });
    routes.set(lane.tie, route);
  }
  return { x: x.map((at) => at - left), y, width, height, routes };
}
