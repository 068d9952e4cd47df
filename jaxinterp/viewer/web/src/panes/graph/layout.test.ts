import { describe, expect, it } from "vitest";
import { EMBEDDING, TARGET } from "../../model/bundle";
import { graphOf, type Node, small } from "../../testing/graphs";
import { Grid } from "./hit";
import { place, share } from "./layout";

function crowd(count: number, layers: number, tokens: number): Node[] {
  const nodes: Node[] = [];
  for (let i = 0; i < count; i++) nodes.push({ layer: (i * 7) % layers, position: (i * 13) % tokens, index: i, influence: ((i * 31) % 101) / 100 });
  for (let t = 0; t < tokens; t++) nodes.push({ kind: EMBEDDING, layer: -1, position: t });
  for (let t = 0; t < 10; t++) nodes.push({ kind: TARGET, layer: layers, position: tokens - 1, index: t, probability: 0.1 });
  return nodes;
}

const words = (count: number): string[] => Array.from({ length: count }, (_, i) => ` w${i}`);

describe("layout", () => {
  it("puts embeddings lowest, targets highest and tokens in order", () => {
    const graph = small();
    const { x, y } = place(graph, 800, 400, 50);
    expect(y[4]!).toBeGreaterThan(y[0]!);
    expect(y[0]!).toBeGreaterThan(y[2]!);
    expect(y[2]!).toBeGreaterThan(y[6]!);
    expect(x[4]!).toBeLessThan(x[5]!);
  });

  for (const [count, layers, tokens] of [
    [3, 1, 1],
    [400, 12, 12],
    [6000, 80, 200],
    [900, 1, 3],
  ] as const) {
    it(`keeps ${count} nodes of ${layers} layers and ${tokens} tokens inside, apart, and in their cells`, () => {
      const graph = graphOf(crowd(count, layers, tokens), [], words(tokens), layers);
      const layout = place(graph, 900, 420, 50);
      const seen = new Set<string>();
      const wrong: number[] = [];
      for (let i = 0; i < graph.n; i++) {
        const [x, y] = [layout.x[i]!, layout.y[i]!];
        let right = x >= 0 && x <= 900 && y >= 0 && y <= 420 && layout.r[i]! > 0;
        if (graph.kind[i] !== TARGET) {
          const row = graph.kind[i] === EMBEDDING ? 0 : graph.layer[i]! + 1;
          const column = graph.position[i]!;
          right &&= y <= layout.rows[row]! + 0.01 && y >= layout.rows[row + 1]! - 0.01;
          right &&= x >= layout.columns[column]! - 0.01 && x <= layout.columns[column + 1]! + 0.01;
        }
        if (!right) wrong.push(i);
        seen.add(`${x.toFixed(3)} ${y.toFixed(3)}`);
      }
      expect(wrong).toEqual([]);
      expect(seen.size).toBe(graph.n);
    });
  }

  it("does not let glyphs of a cell overlap", () => {
    const graph = graphOf(crowd(400, 12, 12), [], words(12), 12);
    const { x, y, r } = place(graph, 900, 420, 50);
    const overlaps: string[] = [];
    for (let i = 0; i < graph.n; i++) {
      for (let j = i + 1; j < graph.n; j++) if (Math.hypot(x[i]! - x[j]!, y[i]! - y[j]!) < (r[i]! + r[j]!) * 0.95) overlaps.push(`${i} ${j}`);
    }
    expect(overlaps).toEqual([]);
  });

  it("takes places and layers that do not exist to the nearest that do", () => {
    const graph = graphOf([{ layer: 9, position: 5 }, { layer: -3, position: -1 }], [], ["a"], 2);
    const layout = place(graph, 300, 200, 40);
    expect(layout.firstPosition).toBe(-1);
    expect([...layout.x, ...layout.y].every(Number.isFinite)).toBe(true);
  });

  it("shares room out whole", () => {
    for (const size of [50, 500]) {
      const found = share(Float32Array.of(10, 100, 40), size);
      expect(found.reduce((a, b) => a + b)).toBeCloseTo(size, 3);
      expect(found[1]!).toBeGreaterThan(found[2]!);
    }
  });
});

describe("hit testing", () => {
  it("finds what a search through all nodes finds", () => {
    const graph = graphOf(crowd(700, 9, 14), [], words(14), 9);
    const { x, y } = place(graph, 900, 420, 50);
    const mask = Uint8Array.from({ length: graph.n }, (_, i) => (i % 5 ? 1 : 0));
    const grid = new Grid(x, y, mask, 900, 420);
    for (let k = 0; k < 300; k++) {
      const [px, py, reach] = [(k * 37.7) % 920 - 10, (k * 91.3) % 440 - 10, 4 + (k % 20)];
      let least = reach;
      for (let i = 0; i < graph.n; i++) if (mask[i]) least = Math.min(least, Math.hypot(x[i]! - px, y[i]! - py));
      const found = grid.nearest(px, py, reach);
      if (found === null) expect(least).toBe(reach);
      else expect(Math.hypot(x[found]! - px, y[found]! - py)).toBeCloseTo(least, 3);
    }
    const inside = grid.within(100, 100, 400, 300);
    const expected = [...x.keys()].filter((i) => mask[i] && x[i]! >= 100 && x[i]! <= 400 && y[i]! >= 100 && y[i]! <= 300);
    expect(inside).toEqual(expected);
  });
});
