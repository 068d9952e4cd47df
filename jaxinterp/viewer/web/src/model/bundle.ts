// The graph as the server sends it: a JSON header and typed arrays over one buffer (viewer/bundle.py).

import type { View } from "./view";

export const FEATURE = 0;
export const ERROR = 1;
export const BIAS = 2;
export const EMBEDDING = 3;
export const TARGET = 4;
export const KINDS = ["feature", "error", "bias", "embedding", "target"] as const;

const MAGIC = "JIPAGE01";

export interface Header {
  file: string;
  slug: string;
  scan: string;
  prompt: string;
  tokens: string[];
  token_ids: number[];
  n_layers: number;
  convention: string;
  dialect: string | null;
  parts: string[];
  bias_names: string[];
  counts: Record<string, number>;
  n_edges: number;
  pruned: { node_threshold?: number; edge_threshold?: number; hidden_nodes?: Record<string, number>; hidden_edges?: number } | null;
  repairs: string[];
  loose_links: number;
  ids: string[];
  labels: Record<string, string>;
  has_heads: boolean;
  has_features: boolean;
  live: boolean;
  writable: boolean;
  view: Partial<View>;
  saved_from: "file" | "sidecar" | "none";
  revision: number;
  arrays: Record<string, { dtype: "u1" | "i4" | "f4" | "f8"; length: number; offset: number }>;
}

/** An edge seen from one of its ends. share: signed part of the target's input, weight over the sum of sizes. */
export interface Link {
  edge: number;
  source: number;
  target: number;
  weight: number;
  share: number;
}

export class GraphData {
  readonly header: Header;
  readonly n: number;
  /** Number of edges here; `header.n_edges` counts those of the whole graph. */
  readonly m: number;
  readonly kind: Uint8Array;
  readonly part: Uint8Array;
  readonly layer: Int32Array;
  readonly position: Int32Array;
  readonly index: Float64Array;
  readonly activation: Float32Array;
  readonly influence: Float32Array;
  readonly share: Float32Array;
  readonly probability: Float32Array;
  readonly value: Float32Array;
  readonly constant: Float32Array;
  readonly leftOut: Float32Array;
  readonly inputTotal: Float32Array;
  readonly inStart: Int32Array;
  readonly inSource: Int32Array;
  readonly weight: Float32Array;
  readonly outStart: Int32Array;
  readonly outEdge: Int32Array;
  /** Edge numbers, strongest first; at most 20,000. */
  readonly strong: Int32Array;
  /** Target of every edge. */
  readonly edgeTarget: Int32Array;
  /** Targets by descending probability. */
  readonly targets: number[];
  /** Sum of influence over nodes that are no targets. */
  readonly influenceTotal: number;
  /** Weight of all targets: what influence is a part of. */
  readonly targetWeight: number;

  constructor(header: Header, buffer: ArrayBuffer, base: number) {
    this.header = header;
    const array = (name: string): Uint8Array | Int32Array | Float32Array | Float64Array => {
      const entry = header.arrays[name];
      if (!entry) throw new Error(`the bundle lacks the array ${name}`);
      const at = base + entry.offset;
      switch (entry.dtype) {
        case "u1":
          return new Uint8Array(buffer, at, entry.length);
        case "i4":
          return new Int32Array(buffer, at, entry.length);
        case "f4":
          return new Float32Array(buffer, at, entry.length);
        default:
          return new Float64Array(buffer, at, entry.length);
      }
    };
    this.kind = array("kind") as Uint8Array;
    this.part = array("part") as Uint8Array;
    this.layer = array("layer") as Int32Array;
    this.position = array("position") as Int32Array;
    this.index = array("index") as Float64Array;
    this.activation = array("activation") as Float32Array;
    this.influence = array("influence") as Float32Array;
    this.share = array("share") as Float32Array;
    this.probability = array("probability") as Float32Array;
    this.value = array("value") as Float32Array;
    this.constant = array("constant") as Float32Array;
    this.leftOut = array("left_out") as Float32Array;
    this.inputTotal = array("input_total") as Float32Array;
    this.inStart = array("in_start") as Int32Array;
    this.inSource = array("in_source") as Int32Array;
    this.weight = array("weight") as Float32Array;
    this.outStart = array("out_start") as Int32Array;
    this.outEdge = array("out_edge") as Int32Array;
    this.strong = array("strong") as Int32Array;
    this.n = this.kind.length;
    this.m = this.weight.length;
    this.edgeTarget = new Int32Array(this.m);
    for (let t = 0; t < this.n; t++) this.edgeTarget.fill(t, this.inStart[t], this.inStart[t + 1]);
    const targets: number[] = [];
    let total = 0;
    for (let i = 0; i < this.n; i++) {
      if (this.kind[i] === TARGET) targets.push(i);
      else if (this.influence[i]! > 0) total += this.influence[i]!;
    }
    this.targets = targets.sort((a, b) => (this.probability[b] || 0) - (this.probability[a] || 0) || a - b);
    this.influenceTotal = total;
    const known = targets.filter((i) => Number.isFinite(this.probability[i]!));
    this.targetWeight = known.length ? known.reduce((sum, i) => sum + this.probability[i]!, 0) : targets.length;
  }

  /** A node's influence as the page shows it: the part of what reaches the targets that passes through the node; NaN for
   * targets and where it is unknown. */
  passing(node: number): number {
    return this.kind[node] !== TARGET && this.targetWeight > 0 ? this.influence[node]! / this.targetWeight : Number.NaN;
  }

  get tokens(): string[] {
    return this.header.tokens;
  }

  /** Edges into a node, largest share first. */
  inputs(target: number): Link[] {
    const found: Link[] = [];
    for (let e = this.inStart[target]!; e < this.inStart[target + 1]!; e++) found.push(this.link(e));
    return found.sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight) || a.source - b.source);
  }

  /** Edges out of a node, largest share of their target's input first. */
  outputs(source: number): Link[] {
    const found: Link[] = [];
    for (let i = this.outStart[source]!; i < this.outStart[source + 1]!; i++) found.push(this.link(this.outEdge[i]!));
    return found.sort((a, b) => Math.abs(b.share) - Math.abs(a.share) || a.target - b.target);
  }

  link(edge: number): Link {
    const target = this.edgeTarget[edge]!;
    const weight = this.weight[edge]!;
    const total = this.inputTotal[target]!;
    return { edge, source: this.inSource[edge]!, target, weight, share: total > 0 ? weight / total : 0 };
  }

  /** The number of the edge from source to target, -1 if there is none here. */
  edgeBetween(target: number, source: number): number {
    let low = this.inStart[target]!;
    let high = this.inStart[target + 1]! - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      const at = this.inSource[middle]!;
      if (at === source) return middle;
      if (at < source) low = middle + 1;
      else high = middle - 1;
    }
    return -1;
  }

  /** What a node is, in a few words, without any label: L3 #12928, error L4, the token's text. */
  place(node: number): string {
    const layer = this.layer[node]!;
    const part = this.part[node] === 1 ? "" : ` ${this.header.parts[this.part[node]!]}`;
    switch (this.kind[node]) {
      case FEATURE:
        return `L${layer}${part} #${this.index[node]}`;
      case ERROR:
        return `error L${layer}${part}`;
      case BIAS:
        return `${this.header.bias_names[this.index[node]!] ?? "bias"} bias${layer < 0 ? "" : ` L${layer}`}`;
      case EMBEDDING:
        return visible(this.tokens[this.position[node]!] ?? "");
      default:
        return layer < this.header.n_layers ? `L${layer} #${this.index[node]} (target)` : visible(this.header.labels[node] ?? "target");
    }
  }
}

/** Scripts that run from right to left; such texts are isolated, so that the numbers after them stay where they belong. */
const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/;

/** A token's text with blanks, line ends and control characters made visible. */
export function visible(text: string): string {
  if (text === "") return "∅";
  const shown = text
    .replace(/\n/g, "⏎")
    .replace(/\t/g, "⇥")
    // Control characters, and those that change the direction of what follows or are not seen at all.
    .replace(/[\u0000-\u001f\u007f-\u009f]/g, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`)
    .replace(/[\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, (c) => `\\u${c.charCodeAt(0).toString(16)}`)
    .replace(/^ +| +$/g, (blanks) => "·".repeat(blanks.length));
  return RIGHT_TO_LEFT.test(shown) ? `\u2068${shown}\u2069` : shown;
}

/** A label without what would turn or hide text around it. */
export const tame = (label: string): string =>
  label.replace(/[\u200b\u200e\u200f\u2060\ufeff]/g, "").replace(/[\u202a-\u202e\u2061-\u2069]/g, (c) => `\\u${c.charCodeAt(0).toString(16)}`);

/** Read a bundle. Throws an Error that says what is wrong with it. */
export function readBundle(buffer: ArrayBuffer): GraphData {
  const bytes = new Uint8Array(buffer);
  const magic = String.fromCharCode(...bytes.subarray(0, 8));
  if (magic !== MAGIC) throw new Error("this is no graph bundle of this viewer's version");
  const length = new DataView(buffer).getUint32(8, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(16, 16 + length))) as Header;
  return new GraphData(header, buffer, Math.ceil((16 + length) / 8) * 8);
}
