import { describe, expect, it } from "vitest";
import { ERROR } from "../../model/bundle";
import { small } from "../../testing/graphs";
import { active, largestShare } from "./filter-model";
import { find, parse } from "./query";

const graph = small();
const label = (i: number): string => graph.header.labels[String(i)] ?? "";
const text = (i: number): string => `${label(i)} ${graph.place(i)} ${graph.tokens[graph.position[i]!]} ${graph.header.ids[i]}`.toLowerCase();
const nodes = (query: string): number[] => find(graph, parse(query), text, label, 50).nodes;

describe("search", () => {
  it("reads terms", () => {
    expect(parse("L3-7 @5 error texas")).toMatchObject({ layers: [3, 7], positions: [5, 5], words: ["error", "texas"] });
    expect(parse("layer:3")).toMatchObject({ layers: [3, 3], words: [] });
    expect(parse("kind:error L1")).toMatchObject({ kind: ERROR, layers: [1, 1] });
    expect(parse("#12928")).toMatchObject({ index: 12928 });
    expect(parse('"say austin"')).toMatchObject({ words: ["say austin"] });
    expect(parse('"').words).toEqual(['"']);
  });

  it("finds by label, token, layer, kind, place, number and id", () => {
    expect(nodes("texas")).toEqual([0]);
    expect(nodes("L1")).toEqual([2, 3]);
    expect(nodes("error")).toEqual([3]);
    expect(nodes("@0 L0")).toEqual([0, 1]);
    expect(nodes("#9")).toEqual([2]);
    expect(nodes("n3")).toEqual([3]);
    expect(nodes("dallas").sort()).toEqual([0, 1, 4]);
    expect(nodes("nothing of this")).toEqual([]);
    expect(nodes("  ")).toEqual([]);
  });

  it("puts labels first and counts all", () => {
    expect(nodes("austin")[0]).toBe(6);
    expect(find(graph, parse("L0-1"), text, label, 2)).toMatchObject({ total: 4, nodes: [2, 0] });
  });
});

describe("filter", () => {
  const everything = { text: "", kinds: new Set([0, 1, 2, 3, 4]), layers: null, positions: null, density: 1 };

  it("says what it hides by", () => {
    expect(active(everything)).toEqual([]);
    expect(active({ ...everything, text: "a", kinds: new Set([0]), density: 0.5 })).toEqual(["text “a”", "kinds", "influence"]);
  });

  it("knows the largest share", () => {
    expect(largestShare(graph)).toBeCloseTo(0.9);
  });
});
