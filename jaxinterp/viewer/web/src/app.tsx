// The page's frame: bar, reading, panes, messages. Each pane is a component of its own that reads the session.

import type { ComponentType } from "preact";
import { useEffect } from "preact/hooks";
import "./theme.css";
import "./frame/frame.css";
import "./frame/print.css";
import { Bar } from "./frame/bar";
import { Help } from "./frame/help";
import { listen } from "./frame/keys";
import { Busy, Conflict, ErrorBar, Loading, Note } from "./frame/messages";
import { Panes } from "./frame/panes";
import { Reading } from "./frame/reading";
import type { Session } from "./model/session";
import { EdgesPane, EdgesTools } from "./panes/edges";
import { FeaturePane } from "./panes/feature";
import { GraphPane, GraphTools } from "./panes/graph";
import { SubgraphPane, SubgraphTools } from "./panes/subgraph";

export interface PaneProps {
  session: Session;
}

/** A pane brings its body; the frame gives it a heading, a place for tools there, and a button to maximise it. */
export interface Pane {
  id: string;
  title: string;
  view: ComponentType<PaneProps>;
  tools?: ComponentType<PaneProps>;
}

const PANES: Pane[] = [
  { id: "graph", title: "Graph", view: GraphPane, tools: GraphTools },
  { id: "edges", title: "Inputs and outputs", view: EdgesPane, tools: EdgesTools },
  { id: "subgraph", title: "Subgraph", view: SubgraphPane, tools: SubgraphTools },
  { id: "feature", title: "Node", view: FeaturePane },
];

export function App({ session }: PaneProps) {
  useEffect(() => listen(session), [session]);
  return (
    <div class="page">
      <Busy session={session} />
      <Bar session={session} />
      <ErrorBar session={session} />
      <Reading session={session} />
      {session.graph.value ? <Panes session={session} panes={PANES} /> : <Nothing session={session} />}
      <Note session={session} />
      <Conflict session={session} />
      <Help />
    </div>
  );
}

/** No graph: one is on its way, or none could be opened. */
function Nothing({ session }: PaneProps) {
  const files = session.files.value;
  if (session.loading.value) return <Loading session={session} />;
  return (
    <main class="nothing">
      <h1>No graph is open</h1>
      {files.length === 0 ? (
        <p class="muted">Start with `jaxinterp view FILE…` or with a folder of graphs.</p>
      ) : (
        <ul class="list nothing-files">
          {files.map((file) => (
            <li key={file.id}>
              <span class="mono">{file.file}</span>
              <span class={file.error === null ? "muted" : "bad"}>{file.error ?? "can be opened"}</span>
            </li>
          ))}
        </ul>
      )}
    </main>
  );
}
