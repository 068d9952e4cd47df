// What the server answers, beside the bundle (see docs/viewer.md).

export interface FileEntry {
  id: number;
  file: string;
  slug: string;
  prompt: string;
  nodes: number;
  edges: number;
  error: string | null;
}

export interface Files {
  files: FileEntry[];
  live: boolean;
  version: string;
}

export interface Report {
  reading: { text: string; stops: [string, number[]][]; nodes: number[]; share: number | null; error_share: number | null; target: number | null };
  automatic: { pinned: number[]; groups: { name: string; members: number[] }[] };
  scores: Record<string, number | null>;
  checks: { name: string; text: string; value: number | null; ok: boolean | null }[];
  error_share: { total: number | null; by_layer: [number, string, number][]; by_position: number[] } | null;
  pruned: string[];
  caps: string[];
  provenance: [string, string][];
  settings: [string, string][];
  reproduce: string | null;
  warnings: string[];
}

export interface Example {
  tokens: string[];
  values: number[];
  at: number;
  where: string | null;
  repeats: number;
}

export interface Feature {
  source: string;
  layer: number;
  part: string;
  index: number;
  label: string;
  explanations: { text: string; by: string; score: number | null }[];
  frequency: number | null;
  max_activation: number | null;
  histogram: { edges: number[]; counts: number[]; log: boolean } | null;
  quantiles: number[] | null;
  examples: { name: string; examples: Example[] }[];
  top_logits: [string, number | null][];
  bottom_logits: [string, number | null][];
  decoder_norms: [number, number][];
  neighbours: { layer: number; index: number; cosine: number; label: string }[];
  coactive: { layer: number; index: number; value: number }[];
}

export interface Rows {
  inputs: [number, number][];
  outputs: [number, number][];
  input_total: number;
  n_inputs?: number;
  n_outputs?: number;
}

export interface Heads {
  heads: [number, number, number][];
  /** What the heads that are not listed carry together. */
  rest: number;
  /** What passes no head, where that is told apart from rest. */
  direct?: number;
}

export interface Comparison {
  pairs: [number, number][];
  only_a: number[];
  only_b: number[];
  edges: [number, number, number, number, number, number][];
  notes: string[];
}

export interface Proposal {
  name: string;
  members: number[];
  cohesion: number;
  weakest: number;
  influence: number;
}

export interface Proposed {
  groups: Proposal[];
  single: number[];
  hidden_influence: number;
}

export interface Job {
  state: "queued" | "running" | "done" | "failed" | "cancelled";
  stage: string;
  fraction: number | null;
  graph: number | null;
  error: string | null;
}

export interface LiveInfo {
  model: string;
  dictionary: string;
  context: number;
  steering: boolean;
}
