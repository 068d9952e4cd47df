// Sizes of boxes and paths of edges, in the units of the sheet (pixels at zoom 1).

import { EMBEDDING, TARGET } from "../../model/bundle";
import type { Box } from "./boxes";
import { arrange, type Arrangement, type Item } from "./layout";
import { cut, textWidth, wrap } from "./text";
import type { BoxEdge } from "./weights";

export const NAME_SIZE = 13;
export const NOTE_SIZE = 11;
const LINE = 17;
const WIDEST = 158;
const WIDEST_LINE = 210;
const GLYPH = 15;
export const MOST_GLYPHS = 7;

export interface Shape {
  box: Box;
  lines: string[];
  /** Name and note stand in one line. */
  compact: boolean;
  width: number;
  height: number;
  /** Middle. */
  x: number;
  y: number;
  /** Whether it stands where the user put it. */
  placed: boolean;
}

export interface Curve {
  edge: BoxEdge;
  d: string;
  head: string;
  width: number;
  /** Places for a label, best first. */
  spots: [number, number][];
}

export interface Drawing {
  shapes: Shape[];
  curves: Curve[];
  /** The sheet that places 0..1 stand for. */
  width: number;
  height: number;
  /** What is drawn. */
  bounds: { x: number; y: number; width: number; height: number };
}

export function nameFont(font: string): string {
  return `600 ${NAME_SIZE}px ${font}`;
}

export function noteFont(font: string): string {
  return `400 ${NOTE_SIZE}px ${font}`;
}

/** A box with its lines of text and its size. compact: in one line, for panes that are wide and low. */
export function shapeOf(box: Box, font: string, compact = false): Shape {
  const lines = compact ? [cut(box.name, WIDEST_LINE, nameFont(font))] : wrap(box.name, WIDEST, nameFont(font), 2);
  const name = Math.max(...lines.map((line) => textWidth(line, nameFont(font)))) + (box.group ? 0 : GLYPH);
  const glyphs = box.group ? Math.min(box.members.length, MOST_GLYPHS) * 8 + 22 : 0;
  const small = box.kind === EMBEDDING && !box.group;
  const note = small || !box.note ? 0 : Math.min(WIDEST, textWidth(box.note, noteFont(font))) + glyphs;
  return {
    box,
    lines,
    compact,
    width: Math.ceil(Math.max(54, compact ? name + (note ? note + 8 : 0) : Math.max(name, note)) + 20),
    height: (compact ? 9 : 12) + lines.length * LINE + (note && !compact ? 15 : 0) + (barred(box) ? 3 : 0),
    x: 0,
    y: 0,
    placed: false,
  };
}

/** Whether a box has a bar for its share of influence. */
export const barred = (box: Box): boolean => box.kind !== TARGET && Number.isFinite(box.share);

const SCALES = [1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8];
const AREA = 1000 * 560;

/** What the layout knows of the pane: width over height, and whether it is so low that boxes take one line. */
export interface PaneShape {
  aspect: number;
  compact: boolean;
}

export const LARGE: PaneShape = { aspect: 1.6, compact: false };

const ASPECTS = [0.8, 1, 1.25, 1.6, 2, 2.5, 3, 4];

/** In steps, so that a divider moved a little leaves the picture as it is. */
export function shapeOfPane(width: number, height: number): PaneShape {
  if (width < 40 || height < 40) return LARGE;
  const far = (a: number): number => Math.abs(Math.log((a * height) / width));
  return { aspect: ASPECTS.reduce((a, b) => (far(b) < far(a) ? b : a)), compact: height < 420 };
}

/** Everything in its place: hand-placed boxes where they were put, others by the automatic layout. */
export function draw(boxes: readonly Box[], drawn: readonly BoxEdge[], positions: Readonly<Record<string, readonly [number, number]>>, font: string, pane: PaneShape = LARGE): Drawing {
  const { aspect, compact } = pane;
  const shapes = boxes.map((box) => shapeOf(box, font, compact));
  const items: Item[] = shapes.map(({ box, width, height }) => ({ width, height, level: box.level, position: box.position, band: box.kind === EMBEDDING || box.level < 0 ? 0 : box.kind === TARGET ? 2 : 1 }));
  const plan = arrange(items, drawn, aspect, compact ? (aspect >= 3 ? 24 : 32) : 46);
  const base = { width: Math.sqrt(AREA * aspect), height: Math.sqrt(AREA / aspect) };
  // The sheet grows in steps, so that one box more does not move those placed by hand.
  const scale = SCALES.find((s) => plan.width <= base.width * s && plan.height <= base.height * s) ?? Math.max(plan.width / base.width, plan.height / base.height);
  const sheet = { width: base.width * scale, height: base.height * scale };
  const dx = (sheet.width - plan.width) / 2;
  const dy = (sheet.height - plan.height) / 2;
  shapes.forEach((shape, i) => {
    const at = positions[shape.box.key];
    shape.placed = at !== undefined;
    shape.x = at ? at[0] * sheet.width : plan.x[i]! + dx;
    shape.y = at ? at[1] * sheet.height : plan.y[i]! + dy;
  });
  const moved = new Set(makeRoom(shapes));
  shapes.forEach((shape, i) => shape.placed && moved.add(i));
  const curves = curvesOf(shapes, drawn, (e, edge) => {
    if (moved.has(edge.source) || moved.has(edge.target)) return [];
    return (plan.routes.get(e) ?? []).map((p) => ({ x: p.x + dx, top: p.top + dy, bottom: p.bottom + dy }));
  });
  return { shapes, curves, ...sheet, bounds: boundsOf(shapes, plan, dx) };
}

/** Curves alone, for boxes that are being dragged. */
export function redraw(drawing: Drawing, shapes: Shape[]): Drawing {
  return { ...drawing, shapes, curves: curvesOf(shapes, drawing.curves.map((c) => c.edge), () => []) };
}

function boundsOf(shapes: readonly Shape[], plan: Arrangement, dx: number): Drawing["bounds"] {
  if (!shapes.length) return { x: 0, y: 0, width: 600, height: 400 };
  const lanes = [...plan.routes.values()].flat().map((p) => p.x + dx);
  const left = Math.min(...shapes.map((s) => s.x - s.width / 2), ...lanes.map((x) => x - 4));
  const right = Math.max(...shapes.map((s) => s.x + s.width / 2), ...lanes.map((x) => x + 4));
  const top = Math.min(...shapes.map((s) => s.y - s.height / 2));
  const bottom = Math.max(...shapes.map((s) => s.y + s.height / 2));
  return { x: left, y: top, width: right - left, height: bottom - top };
}

export function overlap(a: Shape, b: Shape, gap = 0): boolean {
  return Math.abs(a.x - b.x) < (a.width + b.width) / 2 + gap && Math.abs(a.y - b.y) < (a.height + b.height) / 2 + gap;
}

/** Boxes that nobody placed move out from under those that somebody did; gives those that moved. */
export function makeRoom(shapes: Shape[]): number[] {
  if (!shapes.some((s) => s.placed)) return [];
  const moved: number[] = [];
  const settled = shapes.filter((s) => s.placed);
  shapes.forEach((shape, i) => {
    if (shape.placed) return;
    const home = { x: shape.x, y: shape.y };
    const clash = (): boolean => settled.some((other) => overlap(shape, other, 6));
    for (let ring = 1; ring <= 60 && clash(); ring++) {
      for (const [ux, uy] of [[1, 0], [-1, 0], [0, -1], [0, 1], [1, -1], [-1, -1], [1, 1], [-1, 1]] as const) {
        shape.x = home.x + ux * ring * 16;
        shape.y = home.y + uy * ring * 12;
        if (!clash()) break;
      }
    }
    if (shape.x !== home.x || shape.y !== home.y) moved.push(i);
    settled.push(shape);
  });
  return moved;
}

export const edgeWidth = (weight: number): number => Math.max(0.9, Math.min(9, 10 * Math.abs(weight) ** 0.75));

type Way = { x: number; top: number; bottom: number }[];
type Side = "up" | "down" | "across";

/** Which way an edge leaves its source. */
function sideOf(a: Shape, b: Shape): Side {
  if (b.y + b.height / 2 + 10 <= a.y - a.height / 2) return "up";
  if (a.y + a.height / 2 + 10 <= b.y - b.height / 2) return "down";
  return "across";
}

function curvesOf(shapes: readonly Shape[], edges: readonly BoxEdge[], way: (e: number, edge: BoxEdge) => Way): Curve[] {
  const ways = edges.map((edge, e) => way(e, edge));
  const sides = edges.map((edge) => sideOf(shapes[edge.source]!, shapes[edge.target]!));
  // Ends on the same side of a box stand apart, in the order of where they come from.
  const ends = new Map<string, { e: number; first: boolean; x: number }[]>();
  edges.forEach((edge, e) => {
    if (sides[e] === "across") return;
    const start = ways[e]![0]?.x ?? shapes[edge.target]!.x;
    const end = ways[e]!.at(-1)?.x ?? shapes[edge.source]!.x;
    const up = sides[e] === "up";
    const add = (key: string, entry: { e: number; first: boolean; x: number }): void => void ends.set(key, [...(ends.get(key) ?? []), entry]);
    add(`${edge.source} ${up ? "top" : "bottom"}`, { e, first: true, x: start });
    add(`${edge.target} ${up ? "bottom" : "top"}`, { e, first: false, x: end });
  });
  const from = new Array<number>(edges.length).fill(0);
  const to = new Array<number>(edges.length).fill(0);
  for (const [key, list] of ends) {
    const shape = shapes[Number(key.split(" ")[0])]!;
    const step = Math.min(15, (shape.width - 26) / Math.max(1, list.length - 1));
    list.sort((a, b) => a.x - b.x);
    list.forEach((entry, k) => ((entry.first ? from : to)[entry.e] = shape.x + (k - (list.length - 1) / 2) * step));
  }
  return edges.map((edge, e) => curve(shapes[edge.source]!, shapes[edge.target]!, edge, sides[e]!, from[e]!, to[e]!, ways[e]!));
}

const r1 = (x: number): number => Math.round(x * 10) / 10;

function curve(a: Shape, b: Shape, edge: BoxEdge, side: Side, from: number, to: number, way: Way): Curve {
  const width = edgeWidth(edge.weight);
  const long = 6 + width * 1.1;
  const half = 2.6 + width * 0.75;
  if (side === "across") {
    const right = b.x >= a.x ? 1 : -1;
    const x0 = a.x + (right * a.width) / 2;
    const x1 = b.x - (right * b.width) / 2 - right * long;
    const bend = Math.max(24, Math.abs(x1 - x0) / 2);
    const tip = x1 + right * (long - 1);
    return {
      edge, width,
      d: `M${r1(x0)},${r1(a.y)}C${r1(x0 + right * bend)},${r1(a.y)} ${r1(x1 - right * bend)},${r1(b.y)} ${r1(x1)},${r1(b.y)}`,
      head: `M${r1(tip)},${r1(b.y)}L${r1(x1)},${r1(b.y - half)}L${r1(x1)},${r1(b.y + half)}Z`,
      spots: [[(x0 + x1) / 2, (a.y + b.y) / 2]],
    };
  }
  const up = side === "up" ? -1 : 1;
  const y0 = a.y + (up * a.height) / 2;
  const y1 = b.y - (up * b.height) / 2 - up * long;
  const points: [number, number][] = [[from, y0]];
  for (const p of way) points.push([p.x, up < 0 ? p.bottom : p.top], [p.x, up < 0 ? p.top : p.bottom]);
  points.push([to, y1]);
  let d = `M${r1(from)},${r1(y0)}`;
  const spots: [number, number][] = [];
  for (let i = 1; i < points.length; i++) {
    const [px, py] = points[i - 1]!;
    const [qx, qy] = points[i]!;
    if (i % 2 === 0) {
      d += `L${r1(qx)},${r1(qy)}`;
      spots.push([qx, (py + qy) / 2]);
      continue;
    }
    const bend = (qy - py) * 0.5;
    d += `C${r1(px)},${r1(py + bend)} ${r1(qx)},${r1(qy - bend)} ${r1(qx)},${r1(qy)}`;
    for (const t of [0.5, 0.7, 0.3, 0.85]) spots.push(bezier(px, py, bend, qx, qy, t));
  }
  const tip = y1 + up * (long - 1);
  return { edge, d, width, head: `M${r1(to)},${r1(tip)}L${r1(to - half)},${r1(y1)}L${r1(to + half)},${r1(y1)}Z`, spots };
}

function bezier(px: number, py: number, bend: number, qx: number, qy: number, t: number): [number, number] {
  const u = 1 - t;
  return [
    (u * u * u + 3 * u * u * t) * px + (t * t * t + 3 * u * t * t) * qx,
    u * u * u * py + 3 * u * u * t * (py + bend) + 3 * u * t * t * (qy - bend) + t * t * t * qy,
  ];
}

/** Weights written beside edges: each at the first of its places that nothing is on yet. */
export function labelPlaces(curves: readonly Curve[], shapes: readonly Shape[], text: (c: Curve) => string): { curve: Curve; text: string; x: number; y: number; width: number }[] {
  const taken: { x: number; y: number; w: number; h: number }[] = shapes.map((s) => ({ x: s.x, y: s.y, w: s.width, h: s.height }));
  const found = [];
  for (const c of curves) {
    const label = text(c);
    const width = label.length * 6.4 + 8;
    const free = c.spots.find(([x, y]) => !taken.some((t) => Math.abs(t.x - x) < (t.w + width) / 2 && Math.abs(t.y - y) < (t.h + 16) / 2));
    if (!free) continue;
    taken.push({ x: free[0], y: free[1], w: width, h: 16 });
    found.push({ curve: c, text: label, x: free[0], y: free[1], width });
  }
  return found;
}
