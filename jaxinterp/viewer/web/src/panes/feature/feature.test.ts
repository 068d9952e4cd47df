import { describe, expect, it } from "vitest";
import type { Feature } from "../../io/types";
import { sample } from "../edges/sample";
import { areWords, cellsOf, inText, tokenText } from "./bytes";
import { errorShares, nodesOf, passing, passingOf, rankOf } from "./facts";
import { Memory } from "./load";
import { alongBins, heights, percentile, percentileText } from "./percentile";

const texts = (tokens: string[]): string[] => cellsOf(tokens, []).map((cell) => cell.text);

describe("byte tokens", () => {
  it("joins the bytes of a character, over one token or several", () => {
    expect(texts(["a", "\\xe2\\x80\\x94", "b"])).toEqual(["a", "—", "b"]);
    expect(texts(["\\xf0", "\\x9f\\x98", "\\x80", "!"])).toEqual(["😀", "!"]);
    expect(texts(["<0xE2>", "<0x80>", "<0x94>"])).toEqual(["—"]);
    expect(texts([" \\xc3", "\\xa9t\\xc3\\xa9"])).toEqual([" été"]);
  });

  it("leaves what makes no character", () => {
    expect(texts(["\\xe2\\x80", "x", "\\x94"])).toEqual(["\\xe2\\x80", "x", "\\x94"]);
    expect(texts(["\\xff", "\\xff"])).toEqual(["\\xff", "\\xff"]);
    expect(texts(["\\x41", "<0x0A>", "C:\\xen"])).toEqual(["\\x41", "<0x0A>", "C:\\xen"]);
  });

  it("keeps every token once, with the largest activation of those joined", () => {
    const tokens = ["\\xe2", "\\x80\\x94", " and", "\\xff", "\\xe2\\x80", "\\x94"];
    const cells = cellsOf(tokens, [1, 3, 0, 2, 5, 4]);
    expect(cells.map((cell) => [cell.from, cell.to, cell.value])).toEqual([[0, 2, 3], [2, 3, 0], [3, 4, 2], [4, 6, 5]]);
  });

  it("knows words from pieces of text", () => {
    expect(areWords(["the", "capital", "of"])).toBe(true);
    expect(areWords(["The", " capital"])).toBe(false);
    expect(areWords(["a", "b", "c"])).toBe(false);
    expect(areWords([])).toBe(false);
  });

  it("shows line ends and control characters inside text", () => {
    expect(inText("a\n\tb\u0007")).toBe("a⏎⇥b\\x07");
    expect(tokenText("\\xc3\\xa9")).toBe("é");
  });
});

describe("percentiles", () => {
  const quantiles = Array.from({ length: 100 }, (_, i) => i + 1);

  it("counts the quantiles below", () => {
    expect(percentile({ quantiles, histogram: null }, 50.5)).toBe(50);
    expect(percentile({ quantiles, histogram: null }, 0.1)).toBe(0);
    expect(percentile({ quantiles, histogram: null }, 101)).toBe(100);
  });

  it("reads the histogram where there are no quantiles", () => {
    const histogram = { edges: [0, 1, 2, 4], counts: [6, 2, 2], log: false };
    expect(percentile({ quantiles: null, histogram }, 1)).toBe(60);
    expect(percentile({ quantiles: null, histogram }, 3)).toBe(90);
    expect(percentile({ quantiles: null, histogram }, 9)).toBe(100);
    expect(percentile({ quantiles: null, histogram: { edges: [0, 1], counts: [0], log: false } }, 1)).toBeNull();
    expect(percentile({ quantiles: null, histogram: null }, 1)).toBeNull();
    expect(percentile({ quantiles, histogram }, Number.NaN)).toBeNull();
  });

  it("says it in words", () => {
    expect(percentileText(97.4)).toBe("higher than 97 % of its activations");
    expect(percentileText(99.2)).toBe("among the highest 1 % of its activations");
    expect(percentileText(100)).toBe("higher than any activation that was seen");
    expect(percentileText(0)).toBe("among the lowest 1 % of its activations");
    expect(percentileText(null)).toBe("");
  });

  it("finds a value's place along bins of equal width", () => {
    expect(alongBins([1, 10, 100], Math.sqrt(1000), true)).toBeCloseTo(0.75, 6);
    expect(alongBins([0, 10, 100], 5, false)).toBeCloseTo(0.25, 6);
    expect([alongBins([1, 10], 0.5, true), alongBins([1, 10], 20, true), alongBins([0, 2], 0, true)]).toEqual([0, 1, 0]);
  });

  it("lets one count be seen beside a million", () => {
    const found = heights([0, 1, 1e6]);
    expect(found[0]).toBe(0);
    expect(found[1]).toBeGreaterThan(0.02);
    expect(found[2]).toBe(1);
    expect(heights([0, 0])).toEqual([0, 0]);
  });
});

describe("facts", () => {
  const graph = sample(
    [
      { kind: 0, layer: 1, position: 0, index: 7, influence: 0.3 },
      { kind: 0, layer: 1, position: 2, index: 7, influence: 0.6 },
      { kind: 1, layer: 1, position: 0, influence: 0.1 },
      { kind: 1, layer: 2, position: 0, influence: 0.2 },
      { kind: 4, layer: 4, position: 2, probability: 0.5, influence: 0.9 },
      { kind: 4, layer: 4, position: 2, probability: 0.25 },
    ],
    [],
  );

  it("ranks by influence, targets aside", () => {
    expect([0, 1, 2, 3, 4].map((i) => rankOf(graph, i)?.rank ?? null)).toEqual([2, 1, 4, 3, null]);
    expect(rankOf(graph, 1)!.of).toBe(4);
  });

  it("takes influence as a part of the targets' weight", () => {
    expect(passing(graph, 1)).toBeCloseTo(0.8, 6);
    expect(passing(graph, 4)).toBeNull();
    expect(passingOf(graph, 1)).toBeCloseTo(0.4, 6);
    const { all, layer } = errorShares(graph, 2);
    expect([all, layer].map((x) => Number(x.toFixed(5)))).toEqual([0.4, 0.13333]);
  });

  it("ranks by the running share where influence is not known", () => {
    const shares = sample([{ kind: 0, layer: 0, position: 0, share: 0.9 }, { kind: 0, layer: 0, position: 1, share: 0.4 }, { kind: 0, layer: 0, position: 2 }], []);
    expect([0, 1, 2].map((i) => rankOf(shares, i)?.rank ?? null)).toEqual([2, 1, null]);
    expect(passing(shares, 0)).toBeNull();
  });

  it("finds the nodes of a feature", () => {
    expect(nodesOf(graph, 1, 1, 7)).toEqual([0, 1]);
    expect(nodesOf(graph, 0, 1, 7)).toEqual([]);
  });
});

describe("memory of features", () => {
  const feature = (index: number): Feature => ({ index }) as Feature;

  it("asks once, and forgets what was used least recently", async () => {
    const memory = new Memory(2);
    const asked: number[] = [];
    const read = (i: number) => memory.get(String(i), async () => (asked.push(i), feature(i)));
    for (const i of [1, 2, 1, 3, 1, 2]) expect((await read(i))!.index).toBe(i);
    expect(asked).toEqual([1, 2, 3, 2]);
    expect(memory.size).toBe(2);
  });

  it("asks again after a failure, and keeps that there is none", async () => {
    const memory = new Memory();
    await expect(memory.get("a", () => Promise.reject(new Error("gone")))).rejects.toThrow("gone");
    expect(await memory.get("a", async () => null)).toBeNull();
    expect(await memory.get("a", () => Promise.reject(new Error("asked again")))).toBeNull();
  });
});
