// What is typed into the search: words, and terms for layer, place, kind and number. Pure.
//   dallas        in label, id or token           L3  layer:3  L3-7      layer or layers
//   @5  @5-9      token position or positions     error  kind:error     kind of node
//   #12928        feature number or token id      "two words"           words in this order

import { type GraphData, KINDS } from "../../model/bundle";

export interface Query {
  words: string[];
  kind: number | null;
  layers: [number, number] | null;
  positions: [number, number] | null;
  index: number | null;
}

const SYNONYMS: Record<string, number> = { token: 3, tokens: 3, logit: 4, logits: 4, output: 4, outputs: 4 };
KINDS.forEach((name, kind) => {
  SYNONYMS[name] = kind;
  SYNONYMS[`${name}s`] = kind;
});

export function parse(text: string): Query {
  const query: Query = { words: [], kind: null, layers: null, positions: null, index: null };
  const terms = text.match(/"[^"]*"|\S+/g) ?? [];
  for (const raw of terms) {
    const quoted = /^"([^"]*)"$/.exec(raw);
    if (quoted && quoted[1] !== "") {
      query.words.push(quoted[1]!.toLowerCase());
      continue;
    }
    const term = raw.toLowerCase();
    const layer = /^(?:l|layer:)(\d+)(?:-(\d+))?$/.exec(term);
    const at = /^(?:@|pos:|position:)(\d+)(?:-(\d+))?$/.exec(term);
    const number = /^(?:#|index:)(\d+)$/.exec(term);
    const kind = /^kind:(\w+)$/.exec(term);
    if (layer) query.layers = range(layer);
    else if (at) query.positions = range(at);
    else if (number) query.index = Number(number[1]);
    else if (kind && kind[1]! in SYNONYMS) query.kind = SYNONYMS[kind[1]!]!;
    else if (terms.length <= 3 && term in SYNONYMS && !query.kind) query.kind = SYNONYMS[term]!;
    else query.words.push(term);
  }
  return query;
}

function range(found: RegExpExecArray): [number, number] {
  const a = Number(found[1]);
  const b = found[2] === undefined ? a : Number(found[2]);
  return [Math.min(a, b), Math.max(a, b)];
}

const empty = (query: Query): boolean =>
  !query.words.length && query.kind === null && query.layers === null && query.positions === null && query.index === null;

export interface Found {
  nodes: number[];
  /** All that match; `nodes` holds the best of them. */
  total: number;
}

/** Nodes that match, best first: words at the start of the label before words within it, then by influence.
 * text: what a node can be found by, in lower case; label: its label. */
export function find(graph: GraphData, query: Query, text: (node: number) => string, label: (node: number) => string, most: number): Found {
  if (empty(query)) return { nodes: [], total: 0 };
  const found: { node: number; rank: number }[] = [];
  for (let i = 0; i < graph.n; i++) {
    if (query.kind !== null && graph.kind[i] !== query.kind) continue;
    if (query.layers && (graph.layer[i]! < query.layers[0] || graph.layer[i]! > query.layers[1])) continue;
    if (query.positions && (graph.position[i]! < query.positions[0] || graph.position[i]! > query.positions[1])) continue;
    if (query.index !== null && graph.index[i] !== query.index) continue;
    let rank = 0;
    if (query.words.length) {
      const all = text(i);
      if (!query.words.every((word) => all.includes(word))) continue;
      const own = label(i).toLowerCase();
      const first = query.words[0]!;
      rank = own === query.words.join(" ") ? 0 : own.startsWith(first) ? 1 : own.includes(first) ? 2 : 3;
    }
    found.push({ node: i, rank });
  }
  const weight = (i: number): number => graph.probability[i]! || graph.influence[i]! || 0;
  found.sort((a, b) => a.rank - b.rank || weight(b.node) - weight(a.node) || a.node - b.node);
  return { nodes: found.slice(0, most).map((entry) => entry.node), total: found.length };
}
