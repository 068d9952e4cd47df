// The subgraph: what is pinned and grouped, as boxes with the edges between them.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { PaneProps } from "../../app";
import { count, palette, percent } from "../../draw/colour";
import { Icon } from "../../draw/icons";
import type { GraphData } from "../../model/bundle";
import { pinNode, renaming, toAutomatic } from "./actions";
import { dropped, openFile } from "./share";
import { Members } from "./members";
import { shapeOfPane } from "./geometry";
import { measure, MOST_EDGES, picture, type Picture } from "./model";
import { ProposalPanel } from "./proposal";
import { Rename } from "./rename";
import { Sheet } from "./sheet";
import { camera, edgeLimit, preview, shape, showWeights } from "./state";
import "./subgraph.css";

export { SubgraphTools } from "./tools";

export function SubgraphPane({ session }: PaneProps) {
  const graph = session.graph.value;
  return graph ? <Pane session={session} graph={graph} key={session.current.value} /> : <p class="empty">No graph is open.</p>;
}

function Pane({ session, graph }: PaneProps & { graph: GraphData }) {
  const frame = useRef<HTMLDivElement>(null);
  const [size, setSize] = useState({ width: 0, height: 0 });
  const [at, setAt] = useState({ x: 0, y: 0, k: 1 });
  const [over, setOver] = useState(false);
  useEffect(() => {
    const watch = new ResizeObserver(([entry]) => setSize({ width: entry!.contentRect.width, height: entry!.contentRect.height }));
    watch.observe(frame.current!);
    return () => watch.disconnect();
  }, []);
  useEffect(() => {
    edgeLimit.value = null;
    renaming.value = null;
    return () => {
      preview.value = null;
    };
  }, []);

  const shown = preview.value;
  const view = shown?.view ?? session.view.value;
  const { font } = palette.value;
  const measured = useMemo(() => measure(graph, view, (i) => session.label(i)), [graph, view.pinned, view.groups, view.labels]);
  const limit = edgeLimit.value;
  const { aspect, compact } = shapeOfPane(size.width, size.height);
  const made = useMemo(() => picture(measured, view, limit, { aspect, compact }, font), [measured, view.positions, limit, aspect, compact, font]);
  useEffect(() => {
    shape.value = { aspect, compact };
  }, [aspect, compact]);

  const empty = made.boxes.length === 0;
  return (
    <div
      class={over ? "sg dropping" : "sg"}
      onDragOver={(event) => {
        if (!event.dataTransfer?.types.includes("Files")) return;
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={(event) => {
        setOver(false);
        void dropped(session, event);
      }}
    >
      <div class="sg-frame-outer" ref={frame}>
        {empty && !shown ? (
          <Empty session={session} />
        ) : (
          size.width > 0 && <Sheet session={session} graph={graph} drawing={made.drawing} width={size.width} height={size.height} fixed={shown !== null} onTransform={setAt} />
        )}
        {!shown && <Rename session={session} drawing={made.drawing} at={at} />}
        {!shown && <Members session={session} graph={graph} drawing={made.drawing} at={at} size={size} />}
        {shown && <p class="sg-banner">Preview: nothing is changed yet</p>}
        {over && <p class="sg-drop">Drop a .view.json file to open that subgraph</p>}
      </div>
      {shown && <ProposalPanel session={session} graph={graph} />}
      {!empty && <Foot made={made} graph={graph} />}
    </div>
  );
}

function Empty({ session }: PaneProps) {
  const clicked = session.clicked.value;
  return (
    <div class="empty">
      <p>Nothing is pinned. Pin nodes to see how they feed each other.</p>
      <div class="row">
        {clicked !== null && (
          <button class="button" type="button" onClick={() => pinNode(session, clicked)}>
            Pin {session.name(clicked)}
          </button>
        )}
        <button class="button" type="button" disabled={!session.report.value} onClick={() => toAutomatic(session)}>
          Automatic subgraph
        </button>
        <button class="button" type="button" onClick={() => openFile(session)}>
          Open a file
        </button>
      </div>
    </div>
  );
}

function Zoom() {
  return (
    <div class="sg-zoom">
      <button class="icon-button" type="button" data-action="subgraph-zoom-in" aria-label="Zoom in" title="Zoom in" onClick={() => camera.zoom(1.3)}>
        <Icon name="plus" size={13} />
      </button>
      <button class="icon-button" type="button" data-action="subgraph-zoom-out" aria-label="Zoom out" title="Zoom out" onClick={() => camera.zoom(1 / 1.3)}>
        <Icon name="minus" size={13} />
      </button>
      <button class="icon-button" type="button" data-action="subgraph-fit" aria-label="Show everything" title="Show everything" onClick={() => camera.fit()}>
        <Icon name="fit" size={13} />
      </button>
    </div>
  );
}

/** What is drawn and what is not, and how many edges to draw. */
function Foot({ made, graph }: { made: Picture; graph: GraphData }) {
  const all = Math.min(made.weights.edges.length, MOST_EDGES);
  const { outside } = made.weights;
  const least = made.edges.at(-1)?.weight ?? 0;
  return (
    <footer class="sg-foot">
      <label class="row" title="How many of the strongest edges between boxes are drawn">
        <span class="hidden-text">Edges drawn</span>
        <input
          type="range"
          data-action="subgraph-edges"
          min={0}
          max={100}
          step={1}
          value={all > 1 ? Math.round((100 * Math.log1p(made.edges.length)) / Math.log1p(all)) : 100}
          onInput={(event) => {
            edgeLimit.value = Math.round(Math.expm1((Number(event.currentTarget.value) / 100) * Math.log1p(all)));
          }}
        />
        <span class="number">
          {count(made.edges.length)} of {count(made.weights.edges.length)} edges{made.edges.length < made.weights.edges.length && least !== 0 && ` ≥ ${percent(Math.abs(least))}`}
        </span>
      </label>
      <label class="row">
        <input type="checkbox" checked={showWeights.value} data-action="subgraph-weights" onChange={(event) => (showWeights.value = event.currentTarget.checked)} />
        weights
      </label>
      <span class="grow ellipsis muted" title={`Of a shown node's input, on average over them, ${percent(outside.share)} comes from nodes that have no box here, ${percent(outside.errors)} from error nodes.${graph.m < graph.header.n_edges ? " The weakest edges of this large graph are not in the page." : ""}`}>
        Edges from {count(outside.nodes)} nodes outside carry {percent(outside.share)} of the shown nodes’ input{outside.errors > 0.0005 && `, ${percent(outside.errors)} from errors`}
        {made.left > 0 && ` · ${count(made.left)} more boxes are not drawn`}
      </span>
      <Zoom />
    </footer>
  );
}
