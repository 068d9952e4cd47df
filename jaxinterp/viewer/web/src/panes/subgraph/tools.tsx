// The subgraph's buttons, in the head of its pane.

import type { PaneProps } from "../../app";
import { Icon } from "../../draw/icons";
import { usePopup } from "../../frame/popup";
import { boxOf, groupMarked, pinNode, renaming, tidyUp, toAutomatic, ungroupBox, unpinBox } from "./actions";
import { startProposal } from "./proposal";
import { openFile, shareFile } from "./share";
import { preview } from "./state";
import { Notes, Views } from "./views";

export function SubgraphTools({ session }: PaneProps) {
  const view = session.view.value;
  const clicked = session.clicked.value;
  const box = boxOf(view, clicked);
  const group = box?.startsWith("g:") ? box : null;
  const marked = session.marked.value.size;
  const busy = preview.value !== null;
  return (
    <div class="sg-tools">
      {box ? (
        <button class="button small" type="button" data-action="unpin" disabled={busy} title={group ? "Take the whole group out of the subgraph" : "Take it out of the subgraph (p)"} onClick={() => unpinBox(session, box)}>
          Unpin
        </button>
      ) : (
        <button class="button small" type="button" data-action="pin" disabled={busy || clicked === null} title="Put the selected node into the subgraph (p)" onClick={() => clicked !== null && pinNode(session, clicked)}>
          <Icon name="pin" size={12} /> Pin
        </button>
      )}
      <button class="button small" type="button" data-action="group" disabled={busy} aria-disabled={marked < 2} title="Make one group of the marked boxes (g). Mark: alt-click, or shift and drag a frame" onClick={() => groupMarked(session)}>
        Group{marked > 0 && <span class="muted number"> {marked}</span>}
      </button>
      <button class="button small" type="button" data-action="ungroup" disabled={busy || !group} title="Dissolve the selected group" onClick={() => group && ungroupBox(session, group)}>
        Ungroup
      </button>
      <button class="button small" type="button" data-action="rename" disabled={busy || !box} title="Rename the selected box (double click, F2)" onClick={() => (renaming.value = box)}>
        Rename
      </button>
      <span class="grow" />
      <button class="button small" type="button" data-action="propose" aria-expanded={busy} disabled={!session.graph.value} title="Find groups of nodes that do the same" onClick={() => startProposal(session)}>
        Find groups…
      </button>
      <Views session={session} />
      <Notes session={session} />
      <More session={session} />
    </div>
  );
}

function More({ session }: PaneProps) {
  const { open, setOpen, anchor } = usePopup();
  const item = (action: string, text: string, work: () => void, disabled = false) => (
    <button
      class="menu-item"
      type="button"
      role="menuitem"
      data-action={action}
      disabled={disabled}
      onClick={() => {
        setOpen(false);
        work();
      }}
    >
      {text}
    </button>
  );
  return (
    <div class="anchor" ref={anchor}>
      <button class="icon-button" type="button" data-action="subgraph-more" aria-haspopup="menu" aria-expanded={open} aria-label="More for the subgraph" title="More" onClick={() => setOpen(!open)}>
        <svg class="icon" viewBox="0 0 16 16" width={14} height={14} fill="currentColor" aria-hidden="true">
          <circle cx="3" cy="8" r="1.4" />
          <circle cx="8" cy="8" r="1.4" />
          <circle cx="13" cy="8" r="1.4" />
        </svg>
      </button>
      {open && (
        <div class="menu right" role="menu">
          {item("subgraph-tidy", "Lay out again", () => tidyUp(session), !Object.keys(session.view.value.positions).length)}
          {item("subgraph-reset", "Reset to the automatic subgraph", () => toAutomatic(session), !session.report.value)}
          {item("view-share", "Share as a file", () => shareFile(session))}
          {item("view-file", "Open a shared file…", () => openFile(session))}
        </div>
      )}
    </div>
  );
}
