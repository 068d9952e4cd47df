// What is clicked: its name, which can be changed in place, where it is, and what can be done with it.

import { useRef, useState } from "preact/hooks";
import { percent } from "../../draw/colour";
import { EMBEDDING, TARGET, visible, type GraphData } from "../../model/bundle";
import type { Session } from "../../model/session";
import { hide, pin, show, unpin } from "../../model/view";
import { Glyph } from "./glyph";
import { NodeName } from "./name";

const MOST = 50;

interface HeadProps {
  session: Session;
  graph: GraphData;
  node: number;
}

export function NodeHead({ session, graph, node }: HeadProps) {
  const view = session.view.value;
  const name = session.name(node);
  const pinned = view.pinned.includes(node);
  const hidden = view.hidden.includes(node);
  const p = graph.probability[node]!;
  const back = useBack(session, graph, node);
  const where = whereabouts(session, graph, node);
  return (
    <header class="node-head">
      <button type="button" class="icon-button" data-action="back" disabled={back === null} aria-label="Back to the node before" title="Back to the node before" onClick={() => back?.()}>
        <svg viewBox="0 0 16 16" width="14" height="14" aria-hidden="true">
          <path d="M10 3 5 8l5 5" fill="none" stroke="currentColor" stroke-width="1.6" />
        </svg>
      </button>
      <Glyph kind={graph.kind[node]!} pinned={pinned} />
      <div class="node-title grow">
        <NodeName session={session} graph={graph} node={node} id="node-label" />
        <span class="node-where ellipsis muted" title={where}>
          {where}
        </span>
        {graph.kind[node] === TARGET && Number.isFinite(p) && (
          <span class="node-probability number" title="probability of this next token">
            {percent(p)}
          </span>
        )}
      </div>
      <button type="button" class="button small" data-action={pinned ? "unpin" : "pin"} onClick={() => session.change(`${pinned ? "unpin" : "pin"} ${name}`, (old) => (pinned ? unpin(old, [node]) : pin(old, [node])))}>
        {pinned ? "Unpin" : "Pin"}
      </button>
      <button type="button" class="button small" data-action={hidden ? "unhide" : "hide"} onClick={() => session.change(`${hidden ? "show" : "hide"} ${name}`, (old) => (hidden ? show(old, [node]) : hide(old, [node])))}>
        {hidden ? "Show" : "Hide"}
      </button>
    </header>
  );
}

/** Where a node is, beside its name: what the name does not say yet. */
export function whereabouts(session: Session, graph: GraphData, node: number): string {
  const kind = graph.kind[node]!;
  const place = graph.place(node);
  const token = graph.tokens[graph.position[node]!];
  const at = token === undefined ? "" : `at ${visible(token)} (${graph.position[node]})`;
  if (kind === TARGET) return graph.layer[node]! < graph.header.n_layers ? `${place} ${at}` : "next token";
  if (kind === EMBEDDING) return `token ${graph.position[node]}`;
  return session.name(node) === place ? at : `${place} ${at}`;
}

/** Back to nodes seen before in this graph, latest first. */
function useBack(session: Session, graph: GraphData, node: number): (() => void) | null {
  const [, again] = useState(0);
  const trail = useRef<{ graph: GraphData; nodes: number[]; now: number }>({ graph, nodes: [], now: node });
  if (trail.current.graph !== graph) trail.current = { graph, nodes: [], now: node };
  const { nodes, now } = trail.current;
  if (now !== node) {
    nodes.push(now);
    if (nodes.length > MOST) nodes.shift();
    trail.current.now = node;
  }
  if (!nodes.length) return null;
  return () => {
    const before = nodes.pop()!;
    trail.current.now = before;
    session.click(before);
    again((x) => x + 1);
  };
}
