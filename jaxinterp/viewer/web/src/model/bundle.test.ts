import { describe, expect, it } from "vitest";
import { readBundle, tame, visible, type GraphData, type Header } from "./bundle";

type Values = Record<string, ["u1" | "i4" | "f4" | "f8", number[]]>;
const SIZE = { u1: 1, i4: 4, f4: 4, f8: 8 };

/** A bundle as the server packs it. */
function pack(header: Partial<Header>, arrays: Values): ArrayBuffer {
  const layout: Header["arrays"] = {};
  let offset = 0;
  for (const [name, [dtype, values]] of Object.entries(arrays)) {
    layout[name] = { dtype, length: values.length, offset };
    offset += Math.ceil((SIZE[dtype] * values.length) / 8) * 8;
  }
  const text = new TextEncoder().encode(JSON.stringify({ ...header, arrays: layout }));
  const base = Math.ceil((16 + text.length) / 8) * 8;
  const buffer = new ArrayBuffer(base + offset);
  const bytes = new Uint8Array(buffer);
  bytes.set(new TextEncoder().encode("JIPAGE01"));
  const view = new DataView(buffer);
  view.setUint32(8, text.length, true);
  bytes.set(text, 16);
  for (const [name, [dtype, values]] of Object.entries(arrays)) {
    values.forEach((value, i) => {
      const at = base + layout[name]!.offset + i * SIZE[dtype];
      if (dtype === "u1") view.setUint8(at, value);
      else if (dtype === "i4") view.setInt32(at, value, true);
      else if (dtype === "f4") view.setFloat32(at, value, true);
      else view.setFloat64(at, value, true);
    });
  }
  return buffer;
}

// 0 feature, 1 error, 2 bias, 3 embedding "Dallas", 4 and 5 targets. Edges: 0<-3 (2), 4<-0 (3), 4<-1 (-1), 5<-0 (-4).
function example(): ArrayBuffer {
  const zero = [0, 0, 0, 0, 0, 0];
  const header = {
    tokens: ["<bos>", " Dallas"],
    n_layers: 2,
    parts: ["attention", "mlp", "residual"],
    bias_names: ["output", "norm"],
    labels: { "4": " Austin" },
    ids: ["a", "b", "c", "d", "e", "f"],
  };
  return pack(header, {
    kind: ["u1", [0, 1, 2, 3, 4, 4]],
    part: ["u1", [1, 0, 1, 1, 1, 1]],
    layer: ["i4", [1, 0, -1, -1, 2, 2]],
    position: ["i4", [1, 1, 0, 1, 1, 1]],
    index: ["f8", [12928, -1, 1, 7, 3, 4]],
    activation: ["f4", zero],
    influence: ["f4", [0.5, 0.2, 0, 0.3, 0.9, 0.9]],
    share: ["f4", zero],
    probability: ["f4", [NaN, NaN, NaN, NaN, 0.2, 0.6]],
    value: ["f4", zero],
    constant: ["f4", zero],
    left_out: ["f4", zero],
    input_total: ["f4", [2, 0, 0, 0, 4, 4]],
    in_start: ["i4", [0, 1, 1, 1, 1, 3, 4]],
    in_source: ["i4", [3, 0, 1, 0]],
    weight: ["f4", [2, 3, -1, -4]],
    out_start: ["i4", [0, 2, 3, 3, 4, 4, 4]],
    out_edge: ["i4", [1, 3, 2, 0]],
    strong: ["i4", [0, 3, 1, 2]],
  });
}

describe("a bundle", () => {
  const graph: GraphData = readBundle(example());

  it("knows its sizes and the target of every edge", () => {
    expect([graph.n, graph.m]).toEqual([6, 4]);
    expect([...graph.edgeTarget]).toEqual([0, 4, 4, 5]);
  });

  it("orders targets by probability", () => {
    expect(graph.targets).toEqual([5, 4]);
  });

  it("counts the influence of what is no target", () => {
    expect(graph.influenceTotal).toBeCloseTo(1, 6);
    const weight = graph.probability[4]! + graph.probability[5]!;
    expect(graph.passing(0)).toBeCloseTo(graph.influence[0]! / weight, 6);
    expect(graph.passing(5)).toBeNaN();
  });

  it("lists inputs by size, with signed shares of what comes in", () => {
    expect(graph.inputs(4).map((l) => [l.source, l.weight, l.share])).toEqual([
      [0, 3, 0.75],
      [1, -1, -0.25],
    ]);
    expect(graph.inputs(2)).toEqual([]);
  });

  it("lists outputs by share of their target's input", () => {
    expect(graph.outputs(0).map((l) => [l.target, l.weight, l.share])).toEqual([
      [5, -4, -1],
      [4, 3, 0.75],
    ]);
  });

  it("finds an edge by its ends", () => {
    expect([graph.edgeBetween(4, 1), graph.edgeBetween(4, 3), graph.edgeBetween(2, 0)]).toEqual([2, -1, -1]);
  });

  it("says what a node is", () => {
    expect([0, 1, 2, 3, 4].map((i) => graph.place(i))).toEqual(["L1 #12928", "error L0 attention", "norm bias", "·Dallas", "·Austin"]);
  });

  it("refuses bytes that are no bundle", () => {
    expect(() => readBundle(new TextEncoder().encode("<html>not a bundle</html>").buffer as ArrayBuffer)).toThrow(/no graph bundle/);
  });

  it("names an array that is not there", () => {
    expect(() => readBundle(pack({}, { kind: ["u1", [0]] }))).toThrow(/lacks the array part/);
  });
});

describe("visible text", () => {
  it.each([
    ["", "∅"],
    [" Dallas", "·Dallas"],
    ["a b", "a b"],
    ["\n\n", "⏎⏎"],
    ["\u0000x\u007f", "\\x00x\\x7f"],
    ["\u202etxt.exe", "\\u202etxt.exe"],
    ["\ufeffa\u200b", "\\ufeffa\\u200b"],
    ["\u{1f468}\u200d\u{1f469}", "\u{1f468}\u200d\u{1f469}"],
    ['"', '"'],
    ["<b>", "<b>"],
    [" שלום", "\u2068·שלום\u2069"],
  ])("%j is shown as %s", (text, shown) => {
    expect(visible(text)).toBe(shown);
  });

  it("labels turn nothing around them and keep their own marks", () => {
    expect(tame("\u202etxt\u200f")).toBe("\\u202etxt");
    expect(tame("line\nשלום 🙂")).toBe("line\nשלום 🙂");
  });
});
