import { expect, test } from "vitest";
import type { Comparison } from "../../io/types";
import type { GraphData } from "../../model/bundle";
import { difference, edgeRows, matches, nodeRows, sorted, tokenOf } from "./rows";

const graph = (kind: number[], influence: number[], activation: number[], total: number[]): GraphData =>
  ({
    n: kind.length, kind, influence, activation, inputTotal: total, tokens: [" the", "\n"], position: kind.map((_, i) => i), probability: kind.map((k) => (k === 4 ? 0.5 : Number.NaN)),
    passing: (i: number) => influence[i]! / 4, place: (i: number) => `node ${i}`,
  }) as unknown as GraphData;

const a = graph([0, 0, 3, 4], [3, 1, 0, 0], [2, 5, Number.NaN, Number.NaN], [1, 4, 0, 10]);
const b = graph([0, 3, 4], [1, 1, 0], [2.5, Number.NaN, Number.NaN], [2, 0, 20]);
const comparison: Comparison = { pairs: [[0, 0], [2, 1], [3, 2], [9, 0]], only_a: [1], only_b: [], edges: [[3, 0, 2, 0, 5, -4], [3, 2, 2, 1, 1, 0]], notes: [] };
const name = (i: number): string => ["texas", "city", "Dallas", "Austin"][i]!;

test("matched nodes with what they are in both graphs; pairs that no graph has are left out", () => {
  const rows = nodeRows(a, b, comparison, name);
  expect(rows.map((r) => [r.a, r.b])).toEqual([[0, 0], [2, 1], [3, 2]]);
  expect(rows[0]).toMatchObject({ name: "texas", activationA: 2, activationB: 2.5, influenceA: 0.75, influenceB: 0.25 });
  expect(rows[2]!.influenceA).toBe(0.5);
  expect(difference(rows[0]!, "influence")).toBeCloseTo(-0.5, 9);
  expect(difference(rows[1]!, "activation")).toBe(0);
});

test("the token that a node stands at", () => {
  expect(tokenOf(a, 0)).toBe("the");
  expect(tokenOf(a, 1)).toBe("⏎");
  expect(tokenOf(a, 2)).toBe("");
});

test("edges with the part of the target's input that they are in each graph", () => {
  const [first, second] = edgeRows(a, b, comparison, name);
  expect(first).toMatchObject({ name: "texas → Austin", shareA: 0.5, shareB: -0.2 });
  expect(second!.shareB).toBe(0);
});

test("rows by a column, unknown values last", () => {
  const rows = nodeRows(a, b, comparison, name);
  expect(sorted(rows, "influence").map((r) => r.name)).toEqual(["texas", "Dallas", "Austin"]);
  expect(sorted(rows, "activationB")[0]!.name).toBe("texas");
  expect(sorted(rows, "name").map((r) => r.name)).toEqual(["Austin", "Dallas", "texas"]);
});

test("a filter finds words in any order", () => {
  expect(matches("L3 Texas city", "city te")).toBe(true);
  expect(matches("L3 Texas city", "city paris")).toBe(false);
  expect(matches("anything", "")).toBe(true);
});
