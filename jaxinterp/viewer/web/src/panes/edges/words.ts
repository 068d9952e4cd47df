// What the lists say in words.

import { percent, sizeText } from "../../draw/colour";
import { BIAS, EMBEDDING, TARGET, tame, visible, type GraphData } from "../../model/bundle";
import type { Session } from "../../model/session";
import type { Side } from "./rows";
import { sums } from "./rows";

/** A node in a list: what to call it, and where it is. */
export function rowText(session: Session, graph: GraphData, node: number): { name: string; where: string } {
  const label = tame(session.label(node));
  const token = graph.tokens[graph.position[node]!];
  const quoted = token === undefined ? "" : visible(token);
  switch (graph.kind[node]) {
    case EMBEDDING:
      return { name: label || graph.place(node), where: `token ${graph.position[node]}` };
    case TARGET:
      return { name: graph.place(node) === label || !label ? graph.place(node) : label, where: target(graph, node) };
    case BIAS:
      return { name: label || graph.place(node), where: quoted };
    default:
      return label ? { name: label, where: `${graph.place(node)} · ${quoted}` } : { name: graph.place(node), where: quoted };
  }
}

function target(graph: GraphData, node: number): string {
  const p = graph.probability[node]!;
  return Number.isFinite(p) ? `target, ${percent(p)}` : "target";
}

/** A share with its sign: +12 %, −0.4 %. */
export function signedPercent(x: number): string {
  return x > 0 ? `+${percent(x)}` : percent(x);
}

/** A number with its sign: +1.23, −0.0041. */
export function signedSize(x: number): string {
  return x > 0 ? `+${sizeText(x)}` : sizeText(x);
}

/** A share in a column: as many decimals as the column's largest calls for, so that points are below each other. */
export function columnPercent(x: number, most: number): string {
  const size = Math.abs(x) * 100;
  if (!(size > 0)) return "0 %";
  const sign = x < 0 ? "−" : "+";
  const decimals = most >= 0.01 ? 1 : most >= 1e-3 ? 2 : 3;
  const least = 10 ** -decimals;
  return size < 0.5 * least ? `${sign}<${least.toFixed(decimals)} %` : `${sign}${size.toFixed(decimals)} %`;
}

/** A number in a column with as many decimals as the column's largest calls for. */
export function columnSize(x: number, most: number): string {
  const size = Math.abs(x);
  const decimals = most >= 1e4 ? 0 : Math.max(2, Math.min(6, 3 - Math.floor(Math.log10(most))));
  if (!(most >= 1e-4 && most < 1e6) || (size > 0 && size < 0.5 * 10 ** -decimals)) return signedSize(x);
  const text = size.toFixed(decimals).replace(/^(\d+)(\d{3})(?=\.|$)/, "$1,$2");
  return x === 0 ? "0" : `${x < 0 ? "−" : "+"}${text}`;
}

/** How the inputs make up the node's value, one sentence, "" for a node that has neither inputs nor a value. */
export function balance(graph: GraphData, node: number, side: Side): string {
  const { sum, size } = sums(side);
  const value = graph.value[node]!;
  const constant = graph.constant[node]!;
  const leftOut = graph.leftOut[node]!;
  const whole = graph.inputTotal[node]!;
  if (side.node.length === 0 && !Number.isFinite(value)) return "";
  const what = graph.kind[node] === TARGET && graph.layer[node]! >= graph.header.n_layers ? "logit (less the mean of all)" : "pre-activation";
  const parts: string[] = [];
  if (Number.isFinite(value)) {
    parts.push(`Inputs sum to ${sizeText(sum)} of the node's ${what} ${sizeText(value)}`);
    if (constant) parts.push(`constant ${sizeText(constant)}`);
    if (leftOut) parts.push(`left out ${sizeText(leftOut)}`);
    const rest = value - sum - (constant || 0) - (leftOut || 0);
    if (Math.abs(rest) > 2e-3 * Math.max(Math.abs(value), whole)) {
      parts.push(`${graph.header.pruned ? "edges pruned away" : "not among these edges"} ${sizeText(rest)}`);
    }
  } else {
    parts.push(`Inputs sum to ${sizeText(sum)}; the file does not say the node's ${what}`);
  }
  if (size < whole * (1 - 1e-4)) parts.push(`the edges listed carry ${percent(size / whole)} of all its input`);
  return `${parts.join("; ")}.`;
}
