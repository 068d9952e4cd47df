import { expect, test } from "vitest";
import type { Comparison } from "./types";
import { turned } from "./source";

test("a comparison can be turned round, and back", () => {
  const known: Comparison = { pairs: [[1, 2], [3, 4]], only_a: [5], only_b: [6, 7], edges: [[1, 3, 2, 4, 0.5, -0.25]], notes: [] };
  const other = turned(known);
  expect(other).toEqual({ pairs: [[2, 1], [4, 3]], only_a: [6, 7], only_b: [5], edges: [[2, 4, 1, 3, -0.25, 0.5]], notes: [] });
  expect(turned(other)).toEqual(known);
  expect(turned({ ...known, notes: ["features: 5 and 3"] }).notes[0]).toContain("B comes first");
});
