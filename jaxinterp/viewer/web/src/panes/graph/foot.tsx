// Below the graph: how many of the edges are drawn, and every node that is not, with the reason.

import { useRef } from "preact/hooks";
import type { PaneProps } from "../../app";
import { count } from "../../draw/colour";
import { Icon } from "../../draw/icons";
import type { GraphData, Header } from "../../model/bundle";

const STEPS = 200;

/** Numbers of edges on a slider: even steps are even ratios, from 10 (or fewer) to all that are ranked. */
export function atStep(step: number, most: number): number {
  const least = Math.min(10, most);
  if (step >= STEPS) return most;
  return Math.round(least * (most / Math.max(1, least)) ** (step / STEPS));
}

export function stepOf(edges: number, most: number): number {
  const least = Math.min(10, most);
  if (most <= least || edges >= most) return STEPS;
  return Math.round((STEPS * Math.log(Math.max(edges, least) / least)) / Math.log(most / least));
}

export function Foot({ session }: PaneProps) {
  const graph = session.graph.value;
  if (!graph) return null;
  const most = graph.strong.length;
  const wanted = Math.min(session.edgeCount.value, most);
  // Edges of hidden nodes are not drawn.
  const drawn = Math.min(wanted, session.shownStrong.value);
  const all = graph.header.n_edges;
  return (
    <div class="graph-foot">
      <label class="row" title="The strongest edges by how much of the influence on the targets runs along them. Selecting a node draws all of its own.">
        <span class="hidden-text">Number of edges drawn</span>
        <input
          type="range"
          data-action="edge-slider"
          aria-valuetext={`${count(drawn)} of ${count(all)} edges`}
          min={0}
          max={STEPS}
          value={stepOf(wanted, most)}
          disabled={most < 2}
          onInput={(event) => {
            session.edgeCount.value = atStep(Number(event.currentTarget.value), most);
          }}
        />
        <span class="number" id="edge-count">
          {all === 0 ? "no edges in this graph" : `${count(drawn)} of ${count(all)} edges`}
        </span>
      </label>
      <Marked session={session} />
      <Hidden session={session} graph={graph} />
    </div>
  );
}

function Marked({ session }: PaneProps) {
  const size = session.marked.value.size;
  if (!size) return null;
  return (
    <span class="row number graph-marked">
      {count(size)} marked
      <button class="link-button" type="button" data-action="unmark" onClick={() => (session.marked.value = new Set())}>
        unmark
      </button>
    </span>
  );
}

function Hidden({ session, graph }: PaneProps & { graph: GraphData }) {
  const { all, byFilter, byHand } = session.hiddenCounts.value;
  const reasons = [byFilter > 0 && `by filter ${count(byFilter)}`, byHand > 0 && `by hand ${count(byHand)}`].filter(Boolean);
  const missing = missingFrom(graph.header, graph.m, session.source.mode === "server");
  return (
    <p class="graph-hidden row grow" id="hidden-count" role="status">
      {all > 0 ? (
        <span class="warn number">
          {count(all)} of {count(graph.n)} nodes hidden{reasons.length ? `: ${reasons.join(", ")}` : ""}{" "}
          <button class="link-button" type="button" data-action="show-hidden" onClick={() => session.showAll()}>
            show all
          </button>
        </span>
      ) : (
        <span class="muted number">all {count(graph.n)} nodes shown</span>
      )}
      {missing.length > 0 && <Missing lines={missing} />}
    </p>
  );
}

/** What the file lacks, in one line; a click gives all of it. */
function Missing({ lines }: { lines: string[] }) {
  const box = useRef<HTMLDialogElement>(null);
  return (
    <>
      <button class="link-button muted ellipsis" type="button" data-action="missing" title={lines.join("\n")} onClick={() => box.current?.showModal()}>
        {lines.join(" · ")}
      </button>
      <dialog class="dialog" ref={box} aria-label="What this file does not hold" onClick={(event) => event.target === box.current && box.current?.close()}>
        <div class="dialog-head">
          <span>What this file does not hold</span>
          <button class="icon-button" type="button" aria-label="Close" onClick={() => box.current?.close()}>
            <Icon name="close" />
          </button>
        </div>
        <div class="dialog-body">
          <ul class="list graph-missing">
            {lines.map((line) => (
              <li key={line}>{line}</li>
            ))}
          </ul>
        </div>
      </dialog>
    </>
  );
}

/** What the file itself lacks or the page was not sent, in words. */
export function missingFrom(header: Header, sent: number, server = true): string[] {
  const lines: string[] = [];
  const { pruned } = header;
  if (pruned) {
    const nodes = Object.values(pruned.hidden_nodes ?? {}).reduce((a, b) => a + b, 0);
    const parts = [nodes > 0 && `${count(nodes)} nodes`, (pruned.hidden_edges ?? 0) > 0 && `${count(pruned.hidden_edges!)} edges`].filter(Boolean);
    if (parts.length) lines.push(`pruned from the file: ${parts.join(", ")}`);
  }
  if (sent < header.n_edges) lines.push(`weakest ${count(header.n_edges - sent)} edges are ${server ? "fetched node by node" : "not in this page"}`);
  if (header.loose_links > 0) lines.push(`${count(header.loose_links)} links of the file lead nowhere`);
  lines.push(...header.repairs);
  return lines;
}
