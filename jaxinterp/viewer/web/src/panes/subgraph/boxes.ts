// What the subgraph pane draws: one box for a group, one for each pinned node that is in no group.

import { sizeText } from "../../draw/colour";
import { BIAS, EMBEDDING, TARGET, type GraphData, tame, visible } from "../../model/bundle";
import type { View } from "../../model/view";

export const MOST_BOXES = 200;

export interface Box {
  /** "n<node>" or "g:<group name>": also the key of its place in a View. */
  key: string;
  name: string;
  /** What stands below the name. */
  note: string;
  group: boolean;
  members: number[];
  /** Kind of all members, -1 where they differ. */
  kind: number;
  /** Where it belongs from bottom to top: embeddings -1, layers, then targets. */
  level: number;
  /** Token position, the mean for a group. */
  position: number;
  /** Sum over members, NaN where none has one. */
  activation: number;
  influence: number;
  /** Part of what reaches the targets that passes through it, added up over members; a target's probability. NaN where unknown. */
  share: number;
}

/** Boxes of a view, at most `most`; `left` counts those that are not drawn, the least influential ones. */
export function boxesOf(graph: GraphData, view: View, label: (node: number) => string, most = MOST_BOXES): { boxes: Box[]; left: number } {
  const grouped = new Set(view.groups.flatMap((g) => g.members));
  const all: Box[] = [];
  for (const g of view.groups) if (g.members.length) all.push(box(graph, `g:${g.name}`, g.members, true, g.name, label));
  for (const node of view.pinned) if (!grouped.has(node)) all.push(box(graph, `n${node}`, [node], false, "", label));
  if (all.length <= most) return { boxes: all, left: 0 };
  const rank = (b: Box): number => (b.kind === TARGET ? 2 : b.group ? 1 : 0) * 1e9 + b.influence;
  const kept = new Set([...all].sort((a, b) => rank(b) - rank(a)).slice(0, most));
  return { boxes: all.filter((b) => kept.has(b)), left: all.length - most };
}

/** The level of a node: parts of one layer follow each other. */
export function levelOf(graph: GraphData, node: number): number {
  const layer = graph.layer[node]!;
  const kind = graph.kind[node]!;
  if (kind === EMBEDDING) return -1;
  if (kind === BIAS && layer < 0) return -0.5;
  if (kind === TARGET && layer >= graph.header.n_layers) return graph.header.n_layers;
  return layer + graph.part[node]! / 4;
}

function box(graph: GraphData, key: string, members: number[], group: boolean, name: string, label: (node: number) => string): Box {
  let activation = Number.NaN;
  let influence = 0;
  let level = 0;
  let position = 0;
  let weights = 0;
  for (const i of members) {
    const a = graph.activation[i]!;
    if (Number.isFinite(a)) activation = (Number.isFinite(activation) ? activation : 0) + a;
    const q = graph.influence[i]! > 0 ? graph.influence[i]! : 0;
    influence += q;
    const w = q + 1e-9;
    weights += w;
    level += w * levelOf(graph, i);
    position += w * graph.position[i]!;
  }
  const first = members[0]!;
  const kinds = new Set(members.map((i) => graph.kind[i]!));
  const kind = kinds.size === 1 ? graph.kind[first]! : -1;
  const probability = graph.probability[first]!;
  const share = kind === TARGET ? (members.length === 1 ? probability : Number.NaN) : graph.targetWeight > 0 && graph.influenceTotal > 0 ? influence / graph.targetWeight : Number.NaN;
  const found: Box = { key, name, note: "", group, members, kind, level: level / weights, position: position / weights, activation, influence, share };
  found.name = tame(name);
  if (!group) found.name = nodeName(graph, first, label);
  found.note = group ? groupNote(graph, found) : nodeNote(graph, first, label);
  return found;
}

/** A label without the probability that targets' labels end with, and without blanks around it. */
export const plainLabel = (text: string): string => text.replace(/\s*\(p ?= ?[\d.e-]+\)\s*$/i, "").trim();

/** A node's name in a box. Probabilities stand below, so those at the end of a target's label go. */
function nodeName(graph: GraphData, node: number, label: (node: number) => string): string {
  const own = tame(label(node));
  const kind = graph.kind[node]!;
  if (kind === TARGET) {
    return plainLabel(own || graph.place(node)) || visible(own || graph.place(node));
  }
  if (kind === EMBEDDING && (!own || own === graph.header.labels[String(node)])) return tokenOf(graph, graph.position[node]!);
  return own || graph.place(node);
}

const tokenOf = (graph: GraphData, position: number): string => {
  const token = graph.tokens[position];
  return token === undefined ? "" : `“${visible(token.trim() || token)}”`;
};

function nodeNote(graph: GraphData, node: number, label: (node: number) => string): string {
  const kind = graph.kind[node]!;
  const at = graph.position[node]!;
  if (kind === EMBEDDING) return `token ${at}`;
  if (kind === TARGET) {
    const p = graph.probability[node]!;
    return Number.isFinite(p) && p > 0 ? `p = ${p >= 0.001 ? p.toFixed(3) : p.toExponential(1)}` : "target";
  }
  const place = label(node) ? `L${graph.layer[node]}` : "";
  return [place, tokenOf(graph, at)].filter(Boolean).join(" · ");
}

function groupNote(graph: GraphData, b: Box): string {
  const layers = b.members.map((i) => graph.layer[i]!);
  const [low, high] = [Math.min(...layers), Math.max(...layers)];
  const level = b.kind === EMBEDDING || b.kind === TARGET ? "" : low === high ? `L${low}` : `L${low}–${high}`;
  // Names that are made from layers say those already.
  const named = /^layers? \d|^L\d/.test(b.name);
  return [named ? "" : level, `${b.members.length} nodes`, Number.isFinite(b.activation) ? `act. ${sizeText(b.activation)}` : ""].filter(Boolean).join(" · ");
}
