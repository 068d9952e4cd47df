import type { Session } from "../model/session";
import { pin, unpin } from "../model/view";

/** Pin nodes, or unpin them if all of them are pinned. */
export function togglePin(session: Session, nodes: number[]): void {
  const pinned = new Set(session.view.value.pinned);
  const all = nodes.every((node) => pinned.has(node));
  session.change(all ? "unpin" : "pin", (view) => (all ? unpin(view, nodes) : pin(view, nodes)));
}
