import { describe, expect, it } from "vitest";
import { choose, layout, sideOf, sideOfRows, sorted, sums } from "./rows";
import { sample } from "./sample";
import { balance, columnPercent, columnSize } from "./words";

// 0 feature L0 at a, 1 feature L1 at b, 2 error L0 at b, 3 token a, 4 target. Inputs of 4: sizes 3 + 2 + 4 + 1 = 10.
const graph = sample(
  [
    { kind: 0, layer: 0, position: 0, index: 7 },
    { kind: 0, layer: 1, position: 1, index: 8, value: 3.3, constant: 0.5 },
    { kind: 1, layer: 0, position: 1 },
    { kind: 3, layer: -1, position: 0 },
    { kind: 4, layer: 4, position: 2, probability: 0.6, value: 2.5, constant: 0.1, leftOut: 0.4 },
  ],
  [[1, 0, 2], [1, 3, 0.8], [4, 0, 3], [4, 1, -2], [4, 2, 4], [4, 3, -1]],
);
const everything = new Uint8Array(graph.n).fill(1);
const nodes = (side: { node: Int32Array }, rows: Int32Array): number[] => [...rows].map((row) => side.node[row]!);

describe("sides", () => {
  it("holds inputs with shares of the node's own input", () => {
    const side = sideOf(graph, 4, "inputs");
    expect([...side.node]).toEqual([0, 1, 2, 3]);
    expect([...side.share].map((x) => Number(x.toFixed(6)))).toEqual([0.3, -0.2, 0.4, -0.1]);
  });

  it("holds outputs with shares of the input of where each leads", () => {
    const side = sideOf(graph, 0, "outputs");
    expect([...side.node]).toEqual([1, 4]);
    expect(side.share[0]).toBeCloseTo(2 / 2.8, 6);
    expect(side.share[1]).toBeCloseTo(0.3, 6);
  });

  it("takes what the server sends, and knows when that is not all", () => {
    const side = sideOfRows(graph, { inputs: [[2, 4], [0, 3], [99, 1]], outputs: [], input_total: 20, n_inputs: 7 }, "inputs");
    expect([...side.node]).toEqual([2, 0]);
    expect(side.share[0]).toBeCloseTo(0.2, 6);
    expect(side.of).toBe(7);
  });

  it("has no share where there is no input", () => {
    const empty = sample([{ kind: 0, layer: 0, position: 0 }, { kind: 4, layer: 4, position: 0 }], [[1, 0, 0]]);
    expect(sideOf(empty, 1, "inputs").share[0]).toBe(0);
  });
});

describe("rows", () => {
  const side = sideOf(graph, 4, "inputs");

  it("counts what it leaves out, each row for one reason", () => {
    const shown = everything.slice();
    shown[2] = 0;
    const chosen = choose({ ...side, weight: Float32Array.of(3, 0, 0, -1) }, shown, false, null);
    expect(nodes(side, chosen.rows)).toEqual([0, 3]);
    expect([chosen.hidden, chosen.zero, chosen.unmatched]).toEqual([1, 1, 0]);
    expect(choose(side, shown, true, null).rows.length).toBe(4);
    expect(choose(side, everything, false, (node) => node === 3).unmatched).toBe(3);
  });

  it("sorts by size, and by place in the prompt", () => {
    const all = choose(side, everything, false, null).rows;
    expect(nodes(side, sorted(graph, side, all, "share"))).toEqual([2, 0, 1, 3]);
    expect(nodes(side, sorted(graph, side, all, "position"))).toEqual([3, 0, 2, 1]);
  });

  it("sorts outputs by weight in another order than by share", () => {
    const out = sideOf(graph, 0, "outputs");
    const all = choose(out, everything, false, null).rows;
    expect(nodes(out, sorted(graph, out, all, "share"))).toEqual([1, 4]);
    expect(nodes(out, sorted(graph, out, all, "weight"))).toEqual([4, 1]);
  });

  it("groups with sums that add up to those of the whole", () => {
    const all = sorted(graph, side, choose(side, everything, false, null).rows, "share");
    for (const grouping of ["token", "layer"] as const) {
      const { lines, groups } = layout(graph, side, all, grouping, "share", new Set());
      expect(lines.length).toBe(4 + groups.length);
      expect(groups.reduce((sum, g) => sum + g.weight, 0)).toBeCloseTo(4, 6);
      expect(groups.reduce((sum, g) => sum + g.weightSize, 0)).toBeCloseTo(10, 6);
      expect(groups.reduce((sum, g) => sum + g.shareSize, 0)).toBeCloseTo(1, 6);
      expect(groups.reduce((sum, g) => sum + g.count, 0)).toBe(4);
      const sizes = groups.map((g) => g.shareSize);
      expect([...sizes].sort((a, b) => b - a)).toEqual(sizes);
    }
  });

  it("names groups, and leaves out the rows of folded ones", () => {
    const all = sorted(graph, side, choose(side, everything, false, null).rows, "position");
    const { lines, groups } = layout(graph, side, all, "layer", "position", new Set([-1]));
    expect(groups.map((g) => g.name)).toEqual(["Tokens", "Layer 0", "Layer 1"]);
    expect([...lines].filter((line) => line < 0)).toEqual([-1, -2, -3]);
    expect(lines.length).toBe(6);
    const out = sideOf(graph, 0, "outputs");
    expect(layout(graph, out, Int32Array.of(1), "layer", "share", new Set()).groups[0]!.name).toBe("Targets");
  });

  it("sorts ten thousand rows to the same order as a plain sort", () => {
    const n = 10_000;
    const weight = Float32Array.from({ length: n }, (_, i) => Math.sin(i * 12.9898) * 43758.5453 % 1);
    const many = { direction: "inputs" as const, node: Int32Array.from({ length: n }, (_, i) => i), weight, share: weight, of: null };
    const rows = sorted(graph, many, many.node, "share");
    const plain = [...many.node].sort((a, b) => Math.abs(weight[b]!) - Math.abs(weight[a]!) || a - b);
    expect([...rows]).toEqual(plain);
  });
});

describe("words", () => {
  it("adds up with signs apart", () => {
    expect(sums(sideOf(graph, 4, "inputs"))).toEqual({ sum: 4, positive: 7, negative: -3, size: 10 });
  });

  it("says how inputs make up the value", () => {
    const text = balance(graph, 1, sideOf(graph, 1, "inputs"));
    expect(text).toBe("Inputs sum to 2.8 of the node's pre-activation 3.3; constant 0.5.");
  });

  it("says what is not accounted for", () => {
    const text = balance(graph, 4, sideOf(graph, 4, "inputs"));
    expect(text).toBe("Inputs sum to 4 of the node's logit (less the mean of all) 2.5; constant 0.1; left out 0.4; not among these edges −2.");
  });

  it("says so when the value is not known, and when edges are missing", () => {
    const part = sample([{ kind: 0, layer: 0, position: 0 }, { kind: 0, layer: 1, position: 0 }], [[1, 0, -3]], {}, { 1: 12 });
    expect(balance(part, 1, sideOf(part, 1, "inputs"))).toBe("Inputs sum to −3; the file does not say the node's pre-activation; the edges listed carry 25 % of all its input.");
    expect(balance(part, 0, sideOf(part, 0, "inputs"))).toBe("");
  });

  it("writes columns with points below each other", () => {
    expect([0.525, -0.0841, 0.0001, 0].map((x) => columnPercent(x, 0.5))).toEqual(["+52.5 %", "−8.4 %", "+<0.1 %", "0 %"]);
    expect(columnPercent(-0.00042, 0.0009)).toBe("−0.042 %");
    expect([6.531, -0.25, 0].map((x) => columnSize(x, 6.531))).toEqual(["+6.531", "−0.250", "0"]);
    expect(columnSize(1234.5, 5000)).toBe("+1,234.50");
    expect(columnSize(0.00001, 6)).toBe("+1.0e-5");
    expect(columnSize(3e-9, 4e-9)).toBe("+3.0e-9");
  });
});
