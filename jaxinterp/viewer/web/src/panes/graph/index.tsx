// The graph pane: the canvases, the tooltip, the foot with the number of edges and of hidden nodes.

import { effect, useSignal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";
import type { PaneProps } from "../../app";
import { palette } from "../../draw/colour";
import { Icon } from "../../draw/icons";
import { handle } from "../../handle";
import { visible } from "../../model/bundle";
import type { Session } from "../../model/session";
import { LEFT } from "./axes";
import { camera } from "./camera";
import { emphasised, sortEdges } from "./edges";
import { Foot } from "./foot";
import { bind } from "./gestures";
import "./graph.css";
import { Legend } from "./legend";
import { ALL, Painter, TOP } from "./painter";
import { Tooltip } from "./tooltip";

/** A width that every paper has, in CSS pixels. */
const PAPER = 680;

export function GraphPane({ session }: PaneProps) {
  const host = useRef<HTMLDivElement>(null);
  const plot = useRef<HTMLDivElement>(null);
  const axes = useRef<HTMLCanvasElement>(null);
  const edges = useRef<HTMLCanvasElement>(null);
  const nodes = useRef<HTMLCanvasElement>(null);
  const focus = useRef<HTMLCanvasElement>(null);
  const top = useRef<HTMLCanvasElement>(null);
  const pointer = useSignal<[number, number] | null>(null);

  useLayoutEffect(() => {
    const sheets = { axes: axes.current!, edges: edges.current!, nodes: nodes.current!, focus: focus.current!, top: top.current! };
    const painter = new Painter(session, sheets);
    const fitPlot = (): void => {
      plot.current!.style.width = `${painter.view.width}px`;
      plot.current!.style.height = `${painter.view.height}px`;
    };
    const measure = (): boolean => painter.setSize(host.current!.clientWidth, host.current!.clientHeight);
    measure();
    const stops = [
      effect(() => {
        painter.setGraph(session.graph.value);
        fitPlot();
        camera.across = painter.layout;
        camera.jump();
      }),
      whenChanged(() => session.shown.value, () => painter.setShown()),
      whenChanged(() => session.edgeCount.value, () => painter.setEdges()),
      whenChanged(
        () => session.clicked.value,
        () => {
          painter.setFocus(true);
          void completeFocus(session, painter);
        },
      ),
      effect(() => {
        void session.hovered.value;
        void session.edge.value;
        void session.marked.value;
        void session.view.value;
        painter.ask(TOP);
      }),
      effect(() => {
        void palette.value;
        painter.ask(ALL);
      }),
      bind(session, painter, plot.current!, (at) => {
        pointer.value = at;
      }),
    ];
    const observer = new ResizeObserver(() => {
      if (!measure()) return;
      fitPlot();
      camera.across = painter.layout;
      camera.jump();
      painter.draw();
    });
    observer.observe(host.current!);
    const redraw = (): void => {
      measure();
      fitPlot();
      painter.ask(ALL);
      painter.draw(true);
    };
    const print = (): void => {
      host.current!.style.width = `${PAPER}px`;
      redraw();
    };
    const printed = (): void => {
      host.current!.style.width = "";
      redraw();
    };
    window.addEventListener("beforeprint", print);
    window.addEventListener("afterprint", printed);
    handle.places.graph = (node) => {
      const at = painter.placeOf(node);
      const box = plot.current?.getBoundingClientRect();
      return at && box && session.shown.peek()[node] ? [at[0] + box.left, at[1] + box.top] : null;
    };
    painter.draw();
    return () => {
      for (const stop of stops) stop();
      observer.disconnect();
      window.removeEventListener("beforeprint", print);
      window.removeEventListener("afterprint", printed);
      painter.stop();
    };
  }, [session, pointer]);

  return (
    <div class="graph">
      <Legend />
      <div class="graph-host" ref={host}>
        <canvas ref={axes} class="graph-sheet" aria-hidden="true" />
        <div
          ref={plot}
          class="graph-plot"
          id="graph-plot"
          tabIndex={0}
          role="application"
          aria-roledescription="attribution graph"
          aria-label="Attribution graph: tokens across, layers up. Arrow keys move between nodes, question mark lists all keys."
          aria-describedby="graph-selection"
          style={{ left: `${LEFT}px` }}
        >
          <canvas ref={edges} class="graph-sheet" aria-hidden="true" />
          <canvas ref={nodes} class="graph-sheet" aria-hidden="true" />
          <canvas ref={focus} class="graph-sheet" aria-hidden="true" />
        </div>
        <canvas ref={top} class="graph-sheet graph-top" aria-hidden="true" />
        <Tooltip session={session} at={pointer} />
        <Selection session={session} />
      </div>
      <Foot session={session} />
    </div>
  );
}

/** Calls `act` when what `read` gives has become another value, not at once. */
function whenChanged<T>(read: () => T, act: () => void): () => void {
  let first = true;
  let last: T;
  return effect(() => {
    const value = read();
    if (!first && value !== last) act();
    first = false;
    last = value;
  });
}

/** Where the page holds only the strongest edges, the server tells all those of the selected node. */
async function completeFocus(session: Session, painter: Painter): Promise<void> {
  const graph = session.graph.peek();
  const node = session.clicked.peek();
  const id = session.current.peek();
  if (!graph || node === null || id === null || graph.m >= graph.header.n_edges || session.source.mode !== "server") return;
  try {
    const { inputs, outputs } = await session.source.rows(id, node);
    if (session.clicked.peek() !== node || session.graph.peek() !== graph) return;
    const shown = session.shown.peek();
    const part = (weight: number, target: number): number => (graph.inputTotal[target]! > 0 ? weight / graph.inputTotal[target]! : 0);
    const links = [
      ...inputs.filter(([source]) => shown[source]).map(([source, weight]) => [source, node, part(weight, node)] as const),
      ...outputs.filter(([target]) => shown[target]).map(([target, weight]) => [node, target, part(weight, target)] as const),
    ];
    const list = sortEdges(
      Int32Array.from(links, (link) => link[0]),
      Int32Array.from(links, (link) => link[1]),
      Float32Array.from(links, (link) => link[2]),
    );
    painter.setFocus(false, emphasised(list));
  } catch {
    // The edges that the page holds are drawn already; the list of inputs and outputs says what is missing.
  }
}

/** The selected node in words, read aloud when it changes. */
function Selection({ session }: PaneProps) {
  const graph = session.graph.value;
  const node = session.clicked.value;
  let text = "No node is selected.";
  if (graph && node !== null && node < graph.n) {
    const token = graph.tokens[graph.position[node]!];
    const links = `${graph.inStart[node + 1]! - graph.inStart[node]!} inputs, ${graph.outStart[node + 1]! - graph.outStart[node]!} outputs`;
    const place = session.label(node) ? `, ${graph.place(node)}` : "";
    text = `${session.name(node)}${place}${token === undefined ? "" : ` at token ${graph.position[node]} ${visible(token)}`}, ${links}${session.view.value.pinned.includes(node) ? ", pinned" : ""}`;
  }
  return (
    <p class="hidden-text" id="graph-selection" aria-live="polite">
      {text}
    </p>
  );
}

/** Zoom buttons in the pane's heading. */
export function GraphTools(_: PaneProps) {
  return (
    <div class="graph-tools">
      <button class="icon-button" type="button" data-action="zoom-out" aria-label="Zoom out" title="Zoom out (−)" onClick={() => camera.zoom(1 / 1.6)}>
        <Icon name="minus" size={14} />
      </button>
      <button class="icon-button" type="button" data-action="zoom-in" aria-label="Zoom in" title="Zoom in (+)" onClick={() => camera.zoom(1.6)}>
        <Icon name="plus" size={14} />
      </button>
      <button class="icon-button" type="button" data-action="zoom-reset" aria-label="The whole graph" title="The whole graph (0, double click)" onClick={() => camera.reset()}>
        <Icon name="fit" size={14} />
      </button>
    </div>
  );
}
