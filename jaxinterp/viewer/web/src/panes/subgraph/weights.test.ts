import { expect, test } from "vitest";
import { boxWeights } from "./weights";
import fixture from "./weights.fixture.json";

const n = fixture.kind.length;
const total = new Float32Array(n);
for (let t = 0; t < n; t++) for (let e = fixture.in_start[t]!; e < fixture.in_start[t + 1]!; e++) total[t]! += Math.abs(fixture.weight[e]!);
const rows = { n, inStart: fixture.in_start, inSource: fixture.in_source, weight: fixture.weight, inputTotal: total, kind: fixture.kind };

test("edges between boxes are those of jaxinterp.graphs.supernodes.grouped", () => {
  const { edges, inside } = boxWeights(rows, fixture.groups, true);
  const found = fixture.groups.map(() => fixture.groups.map(() => 0));
  for (const { source, target, weight } of edges) found[target]![source] = weight;
  let compared = 0;
  fixture.weights.forEach((row, t) =>
    row.forEach((weight, s) => {
      expect(Math.abs(found[t]![s]! - weight)).toBeLessThan(1e-12);
      compared += weight !== 0 ? 1 : 0;
    }),
  );
  expect(compared).toBeGreaterThan(20);
  expect(edges.length).toBe(compared);
  expect(inside).toBe(fixture.inside);
});

test("sums of sizes from the file stand in where not every edge is here", () => {
  const whole = boxWeights(rows, fixture.groups, true).edges;
  const sums = boxWeights(rows, fixture.groups, false).edges;
  expect(sums.length).toBe(whole.length);
  const at = new Map(sums.map((e) => [`${e.source},${e.target}`, e.weight]));
  for (const e of whole) expect(Math.abs(at.get(`${e.source},${e.target}`)! - e.weight)).toBeLessThan(1e-6);
});

test("single nodes: an edge is the signed share of the target's input, and the rest comes from outside", () => {
  const target = fixture.in_start.findIndex((_, t) => t < n && fixture.in_start[t + 1]! - fixture.in_start[t]! > 3);
  const source = fixture.in_source[fixture.in_start[target]!]!;
  const weight = fixture.weight[fixture.in_start[target]!]!;
  const { edges, outside } = boxWeights(rows, [[source], [target]], true);
  const edge = edges.find((e) => e.target === 1)!;
  expect(edge.weight).toBeCloseTo(weight / total[target]!, 6);
  const fed = fixture.in_start[source + 1]! > fixture.in_start[source]!;
  expect(outside.share).toBeCloseTo(fed ? (1 - Math.abs(edge.weight) + 1) / 2 : 1 - Math.abs(edge.weight), 6);
  expect(outside.nodes).toBeGreaterThan(2);
});

test("no boxes, and boxes without inputs", () => {
  expect(boxWeights(rows, [], true)).toEqual({ edges: [], inside: 0, outside: { nodes: 0, share: 0, errors: 0 } });
  const empty = fixture.kind.findIndex((_, t) => fixture.in_start[t] === fixture.in_start[t + 1]);
  expect(boxWeights(rows, [[empty]], true).outside).toEqual({ nodes: 0, share: 0, errors: 0 });
});
