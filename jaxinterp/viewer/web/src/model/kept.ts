// What could not be written beside the graph, kept in the browser until it can.

import type { GraphData } from "./bundle";
import type { View } from "./view";

const keyOf = (graph: GraphData): string => `jaxinterp:${graph.header.file}:${graph.header.slug}:${graph.n}`;

/** Whether there was room and permission. base: the revision that the view was made from, null while it is being written. */
export function keep(graph: GraphData, view: View, base: number | null): boolean {
  try {
    localStorage.setItem(keyOf(graph), JSON.stringify({ base, view }));
    return true;
  } catch {
    return false;
  }
}

export function forget(graph: GraphData): void {
  try {
    localStorage.removeItem(keyOf(graph));
  } catch {
    // no permission: there is nothing to forget
  }
}

export function keptView(graph: GraphData): { base: number | null; view: Partial<View> } | null {
  try {
    const text = localStorage.getItem(keyOf(graph));
    const kept = text ? (JSON.parse(text) as { base?: unknown; view?: Partial<View> }) : null;
    return kept?.view ? { base: typeof kept.base === "number" ? kept.base : null, view: kept.view } : null;
  } catch {
    return null;
  }
}
