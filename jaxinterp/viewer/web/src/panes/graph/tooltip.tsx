// What is said of the node under the pointer.

import type { Signal } from "@preact/signals";
import type { PaneProps } from "../../app";
import { percent, sizeText } from "../../draw/colour";
import { FEATURE, type GraphData, KINDS, TARGET, visible } from "../../model/bundle";
import type { Session } from "../../model/session";

const WIDTH = 260;

export function Tooltip({ session, at }: PaneProps & { at: Signal<[number, number] | null> }) {
  const graph = session.graph.value;
  const node = session.hovered.value;
  const place = at.value;
  if (!graph || node === null || !place) return null;
  const host = document.querySelector(".graph-host");
  const width = host?.clientWidth ?? 800;
  const height = host?.clientHeight ?? 400;
  const x = place[0] + WIDTH + 24 > width ? Math.max(4, place[0] - WIDTH - 14) : place[0] + 14;
  const low = place[1] > height * 0.55;
  return (
    <div class="tooltip" role="tooltip" style={{ left: `${x}px`, top: low ? "auto" : `${place[1] + 12}px`, bottom: low ? `${height - place[1] + 12}px` : "auto" }}>
      <strong class="tooltip-name">{session.name(node)}</strong>
      <span class="muted">{where(graph, node)}</span>
      <dl class="tooltip-facts">
        {facts(session, graph, node).map(([name, value, sign]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd class={`number${sign > 0 ? " plus" : sign < 0 ? " minus" : ""}`}>{value}</dd>
          </div>
        ))}
      </dl>
    </div>
  );
}

function where(graph: GraphData, node: number): string {
  const position = graph.position[node]!;
  const token = graph.tokens[position];
  const kind = KINDS[graph.kind[node]!] ?? "node";
  const at = token === undefined ? "" : ` · token ${position} “${visible(token)}”`;
  return `${kind} ${graph.place(node) === visible(token ?? "") ? "" : graph.place(node)}${at}`;
}

function facts(session: Session, graph: GraphData, node: number): [string, string, number][] {
  const found: [string, string, number][] = [];
  const value = graph.activation[node]!;
  if (graph.kind[node] === FEATURE && Number.isFinite(value)) found.push(["activation", sizeText(value), 0]);
  if (graph.kind[node] === TARGET && graph.probability[node]! > 0) found.push(["probability", percent(graph.probability[node]!), 0]);
  const influence = graph.passing(node);
  if (Number.isFinite(influence)) found.push([graph.header.pruned ? "influence before pruning" : "influence", percent(influence), 0]);
  const clicked = session.clicked.value;
  if (clicked !== null && clicked !== node) {
    const into = graph.edgeBetween(clicked, node);
    const out = graph.edgeBetween(node, clicked);
    if (into >= 0) {
      const { share, weight } = graph.link(into);
      found.push(["into the selected", `${percent(share)} (weight ${sizeText(weight)})`, share]);
    }
    if (out >= 0) {
      const { share, weight } = graph.link(out);
      found.push(["from the selected", `${percent(share)} (weight ${sizeText(weight)})`, share]);
    }
  }
  const left = graph.leftOut[node]!;
  if (left) found.push(["input left out", sizeText(left), 0]);
  return found;
}
