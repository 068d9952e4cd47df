// Whether the graph can be trusted: a few words in the bar, and all that is known in a dialog.

import { useEffect, useRef, useState } from "preact/hooks";
import type { PaneProps } from "../../app";
import { Card } from "./card";
import { score, state } from "./state";
import "./trust.css";

export function TrustCard({ session }: PaneProps) {
  const [open, setOpen] = useState(false);
  const dialog = useRef<HTMLDialogElement>(null);
  const graph = session.graph.value;
  const report = session.report.value;
  useEffect(() => {
    if (open) dialog.current?.showModal();
  }, [open]);
  if (!graph) return null;
  const { level, why } = report ? state(report, graph.header.n_edges) : { level: "unknown", why: "The report is being made." };
  const replacement = score(report?.scores.replacement);
  const completeness = score(report?.scores.completeness);
  return (
    <>
      <button
        type="button" class="button trust-button" data-action="trust" aria-haspopup="dialog" disabled={!report}
        aria-label={`Trust: replacement ${replacement}, completeness ${completeness}. ${why}`} title={why}
        onClick={() => setOpen(true)}
      >
        <span class={`trust-dot ${level}`} aria-hidden="true" />
        <span class="trust-word">replacement</span>
        <span class="number">{replacement}</span>
        <span class="trust-word">completeness</span>
        <span class="number">{completeness}</span>
      </button>
      {open && report && (
        <dialog
          ref={dialog} class="dialog trust-dialog" aria-labelledby="trust-title"
          onClose={() => setOpen(false)}
          onClick={(event) => event.target === event.currentTarget && event.currentTarget.close()}
          onKeyDown={(event) => event.stopPropagation()}
        >
          <header class="dialog-head">
            <span class={`trust-dot ${level}`} aria-hidden="true" />
            <h2 id="trust-title">Can this graph be trusted?</h2>
            <span class={`trust-why ${level === "unknown" ? "muted" : level}`}>{why}</span>
            <button type="button" class="icon-button" data-action="close-trust" aria-label="Close" title="Close" onClick={() => dialog.current?.close()}>
              ✕
            </button>
          </header>
          <div class="dialog-body">
            <Card graph={graph} report={report} />
          </div>
        </dialog>
      )}
    </>
  );
}
