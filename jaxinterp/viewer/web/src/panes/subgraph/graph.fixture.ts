// A small graph for the tests of this pane: two tokens, four features in three layers, an error, two targets.

import { GraphData, type Header } from "../../model/bundle";

const EDGES: [target: number, source: number, weight: number][] = [
  [0, 5, 2], [1, 6, 1], [1, 5, -1], [2, 0, 3], [2, 1, 1], [2, 4, 1], [3, 2, 2], [7, 3, 4], [7, 2, -1], [8, 3, 1],
];

/** Features 0-3 (layers 0, 0, 1, 2; token 1), error 4, tokens 5 and 6, targets 7 and 8. */
export function smallGraph(header: Partial<Header> = {}): GraphData {
  const n = 9;
  const byTarget = [...EDGES].sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const inStart = new Array<number>(n + 1).fill(0);
  for (const [t] of byTarget) inStart[t + 1]!++;
  for (let i = 0; i < n; i++) inStart[i + 1]! += inStart[i]!;
  const bySource = byTarget.map((e, i) => [e[1], i] as const).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const outStart = new Array<number>(n + 1).fill(0);
  for (const [s] of bySource) outStart[s + 1]!++;
  for (let i = 0; i < n; i++) outStart[i + 1]! += outStart[i]!;
  const total = new Array<number>(n).fill(0);
  for (const [t, , w] of byTarget) total[t]! += Math.abs(w);
  const nan = Number.NaN;
  const values: Record<string, ["u1" | "i4" | "f4" | "f8", number[]]> = {
    kind: ["u1", [0, 0, 0, 0, 1, 3, 3, 4, 4]], part: ["u1", new Array(n).fill(1)], layer: ["i4", [0, 0, 1, 2, 0, -1, -1, 3, 3]],
    position: ["i4", [1, 1, 1, 1, 1, 0, 1, 1, 1]], index: ["f8", [10, 11, 12, 13, -1, 0, 0, 0, 1]],
    activation: ["f4", [1, 2, 3, 4, nan, nan, nan, nan, nan]], influence: ["f4", [0.3, 0.2, 0.6, 0.8, 0.1, 0.3, 0.1, 0, 0]],
    share: ["f4", new Array(n).fill(0)], probability: ["f4", [nan, nan, nan, nan, nan, nan, nan, 0.7, 0.2]], value: ["f4", new Array(n).fill(nan)],
    constant: ["f4", new Array(n).fill(0)], left_out: ["f4", new Array(n).fill(0)], input_total: ["f4", total], in_start: ["i4", inStart],
    in_source: ["i4", byTarget.map((e) => e[1])], weight: ["f4", byTarget.map((e) => e[2])], out_start: ["i4", outStart],
    out_edge: ["i4", bySource.map((e) => e[1])], strong: ["i4", byTarget.map((_, i) => i)],
  };
  const arrays: Header["arrays"] = {};
  let offset = 0;
  for (const [name, [dtype, list]] of Object.entries(values)) {
    arrays[name] = { dtype, length: list.length, offset };
    offset += 8 * Math.ceil((list.length * 8) / 8);
  }
  const buffer = new ArrayBuffer(offset);
  const kinds = { u1: Uint8Array, i4: Int32Array, f4: Float32Array, f8: Float64Array };
  for (const [name, [dtype, list]] of Object.entries(values)) new kinds[dtype](buffer, arrays[name]!.offset, list.length).set(list);
  const known = {
    file: "small.jigraph", slug: "small", scan: "", prompt: "the city", tokens: ["the", " city"], token_ids: [1, 2], n_layers: 3, parts: ["attention", "mlp", "residual"],
    bias_names: [], labels: { "2": "a city", "7": " Austin (p=0.700)" }, ids: values.kind![1].map((_, i) => `id${i}`), n_edges: EDGES.length, view: {}, saved_from: "none", revision: 0,
    has_heads: false, has_features: false, live: false, writable: true, counts: {}, pruned: null, repairs: [], loose_links: 0, convention: "paper", dialect: null, arrays,
  };
  return new GraphData({ ...known, ...header } as Header, buffer, 0);
}
