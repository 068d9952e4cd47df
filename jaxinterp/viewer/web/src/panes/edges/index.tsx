// Inputs and outputs of the clicked node, side by side, or behind tabs where there is little room.

import { signal, useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { PaneProps } from "../../app";
import { count as countText, percent, sizeText } from "../../draw/colour";
import type { GraphData } from "../../model/bundle";
import type { Session } from "../../model/session";
import "./edges.css";
import { NodeHead } from "./head";
import { EdgeList, type Controls } from "./list";
import { sideOf, sideOfRows, sums, type Direction, type Grouping, type Side, type Sorting } from "./rows";

const TWO_COLUMNS = 640;
const SIDES: Direction[] = ["inputs", "outputs"];
const TITLE = { inputs: "Inputs", outputs: "Outputs" };

const GROUPINGS: [Grouping, string][] = [["none", "no groups"], ["token", "by token"], ["layer", "by layer"]];
const SORTINGS: [Sorting, string][] = [["share", "↓ share"], ["weight", "↓ weight"], ["position", "→ position"]];

const controls = signal<Controls>({ grouping: "none", sorting: "share", text: "" });

/** How the lists are grouped, sorted and filtered: for the pane's heading. */
export function EdgesTools(_: PaneProps) {
  const { grouping, sorting, text } = controls.value;
  const set = (part: Partial<Controls>): void => {
    controls.value = { ...controls.value, ...part };
  };
  return (
    <div class="edge-tools">
      <Choice name="Group" action="group-by" value={grouping} options={GROUPINGS} set={(value) => set({ grouping: value as Grouping })} />
      <Choice name="Sort" action="sort-by" value={sorting} options={SORTINGS} set={(value) => set({ sorting: value as Sorting })} />
      <input type="search" class="field" data-action="filter-edges" placeholder="Filter" aria-label="Filter inputs and outputs by label, token or layer" value={text} onInput={(event) => set({ text: event.currentTarget.value })} />
    </div>
  );
}

export function EdgesPane({ session }: PaneProps) {
  const graph = session.graph.value;
  const node = session.clicked.value;
  if (!graph) return <div class="edges" />;
  if (node === null || node >= graph.n) {
    return (
      <div class="edges">
        <p class="empty">Click a node to see what leads to it and where it leads.</p>
      </div>
    );
  }
  return <Opened session={session} graph={graph} node={node} />;
}

function Opened({ session, graph, node }: { session: Session; graph: GraphData; node: number }) {
  const box = useRef<HTMLDivElement>(null);
  const wide = useSignal(true);
  const tab = useSignal<Direction>("inputs");
  const { fetched, fetch } = useAllEdges(session, graph, node);
  const sides = useMemo(() => {
    const rows = fetched?.rows;
    return SIDES.map((direction) => (rows ? sideOfRows(graph, rows, direction) : sideOf(graph, node, direction)));
  }, [graph, node, fetched?.rows]);

  useLayoutEffect(() => {
    const observer = new ResizeObserver(() => (wide.value = (box.current?.clientWidth ?? 0) >= TWO_COLUMNS));
    observer.observe(box.current!);
    return () => observer.disconnect();
  }, []);
  // A target has inputs alone, a token outputs alone: show the tab that has something.
  useEffect(() => {
    const [into, out] = sides;
    if (!into!.node.length && out!.node.length) tab.value = "outputs";
    else if (into!.node.length && !out!.node.length) tab.value = "inputs";
  }, [node]);

  const listed = wide.value ? sides : sides.filter((side) => side.direction === tab.value);
  return (
    <div class="edges" ref={box}>
      <NodeHead session={session} graph={graph} node={node} />
      {!wide.value && (
        <div class="edge-tabs-row">
          <div class="edge-tabs" role="tablist" aria-label="Side">
            {sides.map((side) => (
              <button
                key={side.direction} type="button" role="tab" class="edge-tab" data-action={`tab-${side.direction}`} aria-selected={tab.value === side.direction}
                tabIndex={tab.value === side.direction ? 0 : -1}
                onClick={() => (tab.value = side.direction)}
                onKeyDown={(event) => {
                  if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
                  tab.value = tab.value === "inputs" ? "outputs" : "inputs";
                  (event.currentTarget.parentElement?.querySelector(`[data-action=tab-${tab.value}]`) as HTMLElement | null)?.focus();
                  event.stopPropagation();
                }}
              >
                {TITLE[side.direction]} <span class="number muted">{countText(side.of ?? side.node.length)}</span>
              </button>
            ))}
          </div>
          {tab.value === "inputs" && <Balance side={sides[0]!} />}
        </div>
      )}
      {graph.header.n_edges > graph.m && !fetched?.rows && (
        <p class="edge-note">
          <span class="muted">{`${countText(graph.header.n_edges - graph.m)} of the graph's ${countText(graph.header.n_edges)} edges ${session.source.mode === "server" ? "were not sent to this page" : "are not in this page; `jaxinterp view` shows all"}. `}</span>
          {fetched?.error && <span class="bad">{fetched.error} </span>}
          {fetched?.busy && <span class="muted">Fetching all of this node's…</span>}
          {session.source.mode === "server" && !fetched?.busy && (
            <button type="button" class="link-button" data-action="fetch-edges" onClick={fetch}>
              Fetch all of this node's
            </button>
          )}
        </p>
      )}
      <div class={`edge-columns${wide.value ? layoutClass(sides) : ""}`}>
        {listed.map((side) => (
          <section class="edge-column" key={side.direction} aria-label={TITLE[side.direction]} role={wide.value ? undefined : "tabpanel"}>
            {wide.value && (
              <div class="edge-column-head">
                <h2>
                  {TITLE[side.direction]} <span class="number muted">{countText(side.of ?? side.node.length)}</span>
                </h2>
                {side.direction === "inputs" && <Balance side={side} />}
              </div>
            )}
            <EdgeList session={session} graph={graph} node={node} side={side} controls={controls.value} />
          </section>
        ))}
      </div>
    </div>
  );
}

/** A side without edges takes little room. */
function layoutClass([into, out]: Side[]): string {
  if (!into!.node.length && out!.node.length) return " two no-inputs";
  return into!.node.length && !out!.node.length ? " two no-outputs" : " two";
}

/** How much of the inputs is positive, how much negative. */
function Balance({ side }: { side: Side }) {
  const { positive, negative, size } = useMemo(() => sums(side), [side]);
  if (!(size > 0)) return null;
  const text = `positive ${sizeText(positive)} (${percent(positive / size)}), negative ${sizeText(negative)} (${percent(-negative / size)})`;
  return (
    <div class="edge-balance" role="img" aria-label={text} title={text}>
      <span class="positive" style={{ flexGrow: String(positive / size) }} />
      <span class="negative" style={{ flexGrow: String(-negative / size) }} />
    </div>
  );
}

interface ChoiceProps {
  name: string;
  action: string;
  value: string;
  options: [string, string][];
  set: (value: string) => void;
}

function Choice({ name, action, value, options, set }: ChoiceProps) {
  return (
    <select class="field" data-action={action} aria-label={`${name} inputs and outputs`} title={name} value={value} onChange={(event) => set(event.currentTarget.value)}>
      {options.map(([option, text]) => (
        <option key={option} value={option}>
          {text}
        </option>
      ))}
    </select>
  );
}

type Fetched = { busy: boolean; rows?: Awaited<ReturnType<Session["source"]["rows"]>>; error?: string } | null;

/** All edges of the node, once they have been asked for. */
function useAllEdges(session: Session, graph: GraphData, node: number): { fetched: Fetched; fetch: () => void } {
  const [state, setState] = useState<{ graph: GraphData; node: number; fetched: Fetched }>({ graph, node, fetched: null });
  const here = useRef({ graph, node });
  here.current = { graph, node };
  const set = (fetched: Fetched): void => {
    if (here.current.graph === graph && here.current.node === node) setState({ graph, node, fetched });
  };
  const fetch = (): void => {
    const id = session.current.value;
    if (id === null) return;
    set({ busy: true });
    session.source.rows(id, node).then(
      (rows) => set({ busy: false, rows }),
      (error: unknown) => set({ busy: false, error: error instanceof Error ? error.message : String(error) }),
    );
  };
  // At once: sums and counts are of all edges then. Should it fail, a button asks again.
  useEffect(() => {
    if (graph.header.n_edges > graph.m && session.source.mode === "server") fetch();
  }, [graph, node]);
  return { fetched: state.graph === graph && state.node === node ? state.fetched : null, fetch };
}
