// Small graphs for unit tests, made the way the server makes them: a header and arrays in one buffer.

import { EMBEDDING, ERROR, FEATURE, GraphData, type Header, TARGET } from "../model/bundle";

export interface Node {
  kind?: number;
  layer?: number;
  position?: number;
  index?: number;
  influence?: number;
  share?: number;
  probability?: number;
  label?: string;
}

const NODE_ARRAYS = ["index", "activation", "influence", "share", "probability", "value", "constant", "left_out"] as const;

/** A graph of nodes and of edges [source, target, weight]. */
export function graphOf(nodes: Node[], links: [number, number, number][], tokens: string[], layers: number): GraphData {
  const sorted = [...links].sort((a, b) => a[1] - b[1] || a[0] - b[0]);
  const n = nodes.length;
  const starts = (ends: number[]): number[] => {
    const found = new Array<number>(n + 1).fill(0);
    for (const end of ends) found[end + 1]!++;
    for (let i = 0; i < n; i++) found[i + 1]! += found[i]!;
    return found;
  };
  const total = new Array<number>(n).fill(0);
  for (const [, target, weight] of sorted) total[target]! += Math.abs(weight);
  const bySource = sorted.map((_, e) => e).sort((a, b) => sorted[a]![0] - sorted[b]![0] || a - b);
  const strong = sorted.map((_, e) => e).sort((a, b) => Math.abs(sorted[b]![2]) - Math.abs(sorted[a]![2]) || a - b);
  const column = (name: (typeof NODE_ARRAYS)[number]): number[] => nodes.map((node) => (node as Record<string, number | undefined>)[name] ?? (name === "index" ? 0 : Number.NaN));
  const arrays: Record<string, Uint8Array | Int32Array | Float32Array | Float64Array> = {
    kind: Uint8Array.from(nodes, (node) => node.kind ?? FEATURE),
    part: new Uint8Array(n).fill(1),
    layer: Int32Array.from(nodes, (node) => node.layer ?? 0),
    position: Int32Array.from(nodes, (node) => node.position ?? 0),
    ...Object.fromEntries(NODE_ARRAYS.map((name) => [name, name === "index" ? Float64Array.from(column(name)) : Float32Array.from(column(name))])),
    input_total: Float32Array.from(total),
    in_start: Int32Array.from(starts(sorted.map((link) => link[1]))),
    in_source: Int32Array.from(sorted, (link) => link[0]),
    weight: Float32Array.from(sorted, (link) => link[2]),
    out_start: Int32Array.from(starts(sorted.map((link) => link[0]))),
    out_edge: Int32Array.from(bySource),
    strong: Int32Array.from(strong),
  };
  const layout: Header["arrays"] = {};
  let size = 0;
  for (const [name, values] of Object.entries(arrays)) {
    const dtype = values instanceof Uint8Array ? "u1" : values instanceof Int32Array ? "i4" : values instanceof Float32Array ? "f4" : "f8";
    layout[name] = { dtype, length: values.length, offset: size };
    size += Math.ceil(values.byteLength / 8) * 8;
  }
  const buffer = new ArrayBuffer(size);
  for (const [name, values] of Object.entries(arrays)) {
    new Uint8Array(buffer).set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), layout[name]!.offset);
  }
  const header: Header = {
    file: "test.json", slug: "test", scan: "", prompt: tokens.join(""), tokens, token_ids: [], n_layers: layers, convention: "paper", dialect: null,
    parts: ["attention", "mlp", "residual"], bias_names: ["decoder"], counts: {}, n_edges: links.length, pruned: null, repairs: [], loose_links: 0,
    ids: nodes.map((_, i) => `n${i}`), labels: Object.fromEntries(nodes.flatMap((node, i) => (node.label ? [[String(i), node.label]] : []))),
    has_heads: false, has_features: false, live: false, writable: true, view: {}, saved_from: "none", revision: 0, arrays: layout,
  };
  return new GraphData(header, buffer, 0);
}

/** Two tokens, two layers: 0 and 1 features at (0, 0), 2 a feature at (1, 1), 3 an error, 4 and 5 embeddings, 6 the target. */
export function small(): GraphData {
  return graphOf(
    [
      { layer: 0, position: 0, index: 7, influence: 0.5, share: 0.4, label: "Texas" },
      { layer: 0, position: 0, index: 8, influence: 0.1, share: 0.9 },
      { layer: 1, position: 1, index: 9, influence: 0.8, share: 0.2, label: "say Austin" },
      { kind: ERROR, layer: 1, position: 1, influence: 0.2, share: 0.7 },
      { kind: EMBEDDING, layer: -1, position: 0, index: 100, influence: 0.3 },
      { kind: EMBEDDING, layer: -1, position: 1, index: 101, influence: 0.2 },
      { kind: TARGET, layer: 2, position: 1, index: 5, probability: 0.9, label: " Austin" },
    ],
    [
      [4, 0, 2],
      [4, 1, -1],
      [0, 2, 3],
      [1, 2, -1],
      [5, 2, 0.5],
      [2, 6, 4],
      [3, 6, -2],
    ],
    ["Dallas", " is"],
    2,
  );
}
