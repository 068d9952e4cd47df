import { expect, test } from "vitest";
import type { Box } from "./boxes";
import { draw, labelPlaces, overlap, redraw } from "./geometry";
import { arrange, type Item, rowsOf, type Tie } from "./layout";
import { spread } from "./rows";
import { cut, textWidth, wrap } from "./text";

function random(seed: number): () => number {
  let state = seed;
  return () => (state = (state * 1664525 + 1013904223) % 4294967296) / 4294967296;
}

function some(count: number, seed: number): { boxes: Box[]; ties: Tie[] } {
  const next = random(seed);
  const boxes = Array.from({ length: count }, (_, i): Box => {
    const band = next();
    const kind = band < 0.15 ? 3 : band > 0.93 ? 4 : 0;
    return {
      key: `n${i}`, name: "a feature with a name of several words".slice(0, 3 + Math.floor(next() * 36)), note: "L3 · “x”", group: next() < 0.2,
      members: [i], kind, level: kind === 3 ? -1 : kind === 4 ? 20 : Math.floor(next() * 20), position: Math.floor(next() * 9), activation: 1, influence: next(), share: next(),
    };
  });
  const ties: Tie[] = [];
  for (let s = 0; s < count; s++) for (let t = 0; t < count; t++) if (boxes[s]!.level < boxes[t]!.level && next() < 0.12) ties.push({ source: s, target: t, weight: (next() - 0.4) * 0.5 });
  return { boxes, ties };
}

const clashes = (shapes: Parameters<typeof overlap>[0][]): number => {
  let found = 0;
  for (let i = 0; i < shapes.length; i++) for (let j = 0; j < i; j++) found += overlap(shapes[i]!, shapes[j]!) ? 1 : 0;
  return found;
};

test.each([1, 2, 7, 25, 80, 200])("%i boxes: none over another, all on the sheet, layers up", (count) => {
  const { boxes, ties } = some(count, count + 3);
  const { shapes, width, height, bounds } = draw(boxes, ties, {}, "Inter");
  expect(clashes(shapes)).toBe(0);
  for (const s of shapes) {
    expect(s.x - s.width / 2).toBeGreaterThanOrEqual(0);
    expect(s.x + s.width / 2).toBeLessThanOrEqual(width);
    expect(s.y - s.height / 2).toBeGreaterThanOrEqual(0);
    expect(s.y + s.height / 2).toBeLessThanOrEqual(height);
    expect(s.x - s.width / 2).toBeGreaterThanOrEqual(bounds.x);
  }
  // A box of a higher layer is never drawn wholly below one of a lower layer.
  for (const a of shapes) for (const b of shapes) if (a.box.level > b.box.level) expect(a.y).toBeLessThanOrEqual(b.y + Math.max(a.height, b.height));
});

test("tokens across: in one row, boxes stand in the order of their tokens", () => {
  const { boxes, ties } = some(60, 4);
  const { shapes } = draw(boxes, ties, {}, "Inter");
  for (const a of shapes) for (const b of shapes) if (Math.abs(a.y + a.height / 2 - b.y - b.height / 2) < 30 && a.box.position < b.box.position && Math.abs(a.y - b.y) < 1) expect(a.x).toBeLessThan(b.x);
});

test("strong ties never run within a row", () => {
  const { boxes, ties } = some(60, 8);
  const items: Item[] = boxes.map((b) => ({ width: 120, height: 44, level: b.level, position: b.position, band: b.kind === 3 ? 0 : b.kind === 4 ? 2 : 1 }));
  const rows = rowsOf(items, ties, 900, 4);
  const rowOf = new Map(rows.flatMap((row, r) => row.items.map((i) => [i, r] as const)));
  expect(rowOf.size).toBe(60);
  for (const t of ties) if (Math.abs(t.weight) >= 0.02) expect(rowOf.get(t.source)).toBeLessThan(rowOf.get(t.target)!);
});

test("a chain whose order within columns is mixed comes out without crossings", () => {
  // Two chains side by side in one column: a0-a1-a2 and b0-b1-b2, listed in opposite orders in every layer.
  const items: Item[] = [0, 0, 1, 1, 2, 2].map((level) => ({ width: 80, height: 40, level, position: 0, band: 1 }));
  const ties: Tie[] = [
    { source: 0, target: 3, weight: 0.5 }, { source: 1, target: 2, weight: 0.5 },
    { source: 3, target: 4, weight: 0.5 }, { source: 2, target: 5, weight: 0.5 },
  ];
  const { x } = arrange(items, ties);
  expect(Math.sign(x[0]! - x[1]!)).toBe(Math.sign(x[3]! - x[2]!));
  expect(Math.sign(x[3]! - x[2]!)).toBe(Math.sign(x[4]! - x[5]!));
});

test("a long edge goes around the box in its way", () => {
  const items: Item[] = [0, 1, 2].map((level) => ({ width: 120, height: 40, level, position: 0, band: 1 }));
  const ties: Tie[] = [{ source: 0, target: 1, weight: 0.5 }, { source: 1, target: 2, weight: 0.5 }, { source: 0, target: 2, weight: 0.4 }];
  const { x, routes } = arrange(items, ties);
  const lane = routes.get(2)![0]!;
  expect(Math.abs(lane.x - x[1]!)).toBeGreaterThan(60);
});

test("hand-placed boxes stay where they are put and the others make room", () => {
  const { boxes, ties } = some(30, 5);
  const free = draw(boxes, ties, {}, "Inter");
  const victim = free.shapes[4]!;
  const at: [number, number] = [victim.x / free.width, victim.y / free.height];
  const { shapes, width, height } = draw(boxes, ties, { n9: at }, "Inter");
  expect(shapes[9]!.x).toBeCloseTo(at[0] * width, 6);
  expect(shapes[9]!.y).toBeCloseTo(at[1] * height, 6);
  expect(clashes(shapes)).toBe(0);
  expect(redraw(free, shapes).curves.length).toBe(ties.length);
});

test("labels of edges cover no box and no other label", () => {
  const { boxes, ties } = some(25, 11);
  const { shapes, curves } = draw(boxes, ties, {}, "Inter");
  const labels = labelPlaces(curves, shapes, () => "12 %");
  expect(labels.length).toBeGreaterThan(3);
  labels.forEach((a, i) => {
    for (const s of shapes) expect(Math.abs(a.x - s.x) >= (a.width + s.width) / 2 || Math.abs(a.y - s.y) >= (16 + s.height) / 2).toBe(true);
    for (const b of labels.slice(0, i)) expect(Math.abs(a.x - b.x) >= (a.width + b.width) / 2 || Math.abs(a.y - b.y) >= 16).toBe(true);
  });
});

test("places on a line keep order and room, and stay put where there is room", () => {
  const wish = [0, 1, 2, 100];
  const width = [10, 20, 10, 10];
  const x = spread(wish, width, 5, [1, 1, 1, 1]);
  for (let i = 1; i < 4; i++) expect(x[i]! - x[i - 1]!).toBeGreaterThanOrEqual((width[i]! + width[i - 1]!) / 2 + 5 - 1e-9);
  expect(x[3]).toBeCloseTo(100, 9);
  expect(x[0]! + x[1]! + x[2]!).toBeCloseTo(3, 9);
});

test("text is cut and broken to fit", () => {
  const font = "600 13px Inter";
  for (const text of ["say a capital city of a state", "Donaudampfschifffahrtsgesellschaft", "x", "", "東京都庁舎の展望台から見える景色はとても美しい"]) {
    const lines = wrap(text, 100, font, 2);
    expect(lines.length).toBeLessThanOrEqual(2);
    for (const line of lines) expect(textWidth(line, font)).toBeLessThanOrEqual(100);
    expect(textWidth(cut(text, 40, font), font)).toBeLessThanOrEqual(40);
  }
});
