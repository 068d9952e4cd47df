import { ERROR, FEATURE, type GraphData, KINDS } from "../../model/bundle";
import type { Filter } from "../../model/filter";

/** What of a filter hides anything, in words. */
export function active(filter: Filter): string[] {
  return [
    filter.text && `text “${filter.text}”`,
    filter.kinds.size < KINDS.length && "kinds",
    filter.layers && "layers",
    filter.positions && "tokens",
    filter.density < 1 && "influence",
  ].filter((word): word is string => Boolean(word));
}

/** The largest running share that a node has: files of other tools end far below 1. Null where none has one. */
export function largestShare(graph: GraphData): number | null {
  let most: number | null = null;
  for (let i = 0; i < graph.n; i++) {
    if (graph.kind[i] !== FEATURE && graph.kind[i] !== ERROR) continue;
    const share = graph.share[i]!;
    if (Number.isFinite(share) && (most === null || share > most)) most = share;
  }
  return most;
}
