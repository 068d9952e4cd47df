// A small graph for tests of the lists. In tests only.

import { GraphData, type Header } from "../../model/bundle";

/** One node: kind, layer, position, and what a test wants to say of it. */
export interface SampleNode {
  kind: number;
  layer: number;
  position: number;
  index?: number;
  activation?: number;
  influence?: number;
  share?: number;
  probability?: number;
  value?: number;
  constant?: number;
  leftOut?: number;
}

/** edges: [target, source, weight]. totals: the input of a node where it is more than these edges give. */
export function sample(nodes: SampleNode[], edges: [number, number, number][], header: Partial<Header> = {}, totals: Record<number, number> = {}): GraphData {
  const rows = [...edges].sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const n = nodes.length;
  const inStart = Array.from({ length: n + 1 }, (_, t) => rows.filter(([target]) => target < t).length);
  const bySource = rows.map((_, e) => e).sort((a, b) => rows[a]![1] - rows[b]![1] || a - b);
  const outStart = Array.from({ length: n + 1 }, (_, s) => rows.filter(([, source]) => source < s).length);
  const total = nodes.map((_, t) => totals[t] ?? rows.filter(([target]) => target === t).reduce((sum, [, , w]) => sum + Math.abs(w), 0));
  const of = (name: keyof SampleNode, otherwise: number): number[] => nodes.map((node) => node[name] ?? otherwise);
  const arrays: [string, "u1" | "i4" | "f4" | "f8", number[]][] = [
    ["kind", "u1", of("kind", 0)], ["part", "u1", nodes.map(() => 1)], ["layer", "i4", of("layer", 0)], ["position", "i4", of("position", 0)],
    ["index", "f8", of("index", -1)], ["activation", "f4", of("activation", NaN)], ["influence", "f4", of("influence", NaN)], ["share", "f4", of("share", NaN)],
    ["probability", "f4", of("probability", NaN)], ["value", "f4", of("value", NaN)], ["constant", "f4", of("constant", 0)], ["left_out", "f4", of("leftOut", 0)],
    ["input_total", "f4", total], ["in_start", "i4", inStart], ["in_source", "i4", rows.map(([, s]) => s)], ["weight", "f4", rows.map(([, , w]) => w)],
    ["out_start", "i4", outStart], ["out_edge", "i4", bySource], ["strong", "i4", []],
  ];
  const layout: Header["arrays"] = {};
  let offset = 0;
  for (const [name, dtype, values] of arrays) {
    layout[name] = { dtype, length: values.length, offset };
    offset += 8 * (values.length + 1);
  }
  const buffer = new ArrayBuffer(offset);
  const types = { u1: Uint8Array, i4: Int32Array, f4: Float32Array, f8: Float64Array };
  for (const [name, dtype, values] of arrays) new types[dtype](buffer, layout[name]!.offset, values.length).set(values);
  const known = {
    file: "g.json", slug: "g", prompt: "a b c", tokens: ["a", " b", " c"], token_ids: [1, 2, 3], n_layers: 4, n_edges: edges.length, parts: ["attention", "mlp", "residual"],
    bias_names: ["decoder"], labels: {}, ids: nodes.map((_, i) => `n${i}`), repairs: [], loose_links: 0, pruned: null, has_heads: false, has_features: false, view: {},
  };
  return new GraphData({ ...known, ...header, arrays: layout } as unknown as Header, buffer, 0);
}
