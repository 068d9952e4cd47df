// The page's frame: bar, panes, messages. Each pane is a component of its own that reads the session.

import type { ComponentType } from "preact";
import type { Session } from "./model/session";
import { ComparePane } from "./panes/compare";
import { EdgesPane } from "./panes/edges";
import { ExportMenu } from "./panes/export";
import { FeaturePane } from "./panes/feature";
import { GraphPane } from "./panes/graph";
import { LivePane } from "./panes/live";
import { SearchBar } from "./panes/search";
import { SubgraphPane } from "./panes/subgraph";
import { TrustCard } from "./panes/trust";

export interface PaneProps {
  session: Session;
}

interface Pane {
  id: string;
  title: string;
  view: ComponentType<PaneProps>;
}

const PANES: Pane[] = [
  { id: "graph", title: "Graph", view: GraphPane },
  { id: "edges", title: "Inputs and outputs", view: EdgesPane },
  { id: "subgraph", title: "Subgraph", view: SubgraphPane },
  { id: "feature", title: "Node", view: FeaturePane },
];

export function App({ session }: PaneProps) {
  return (
    <div class="page">
      <header class="bar">
        <SearchBar session={session} />
        <ExportMenu session={session} />
        <ComparePane session={session} />
        <TrustCard session={session} />
        <LivePane session={session} />
      </header>
      <main class="panes">
        {PANES.map(({ id, title, view: View }) => (
          <section class="pane" id={`pane-${id}`} aria-label={title} key={id}>
            <View session={session} />
          </section>
        ))}
      </main>
    </div>
  );
}
