// Live mode: trace a prompt with the model that the server holds.

import { useEffect, useRef, useState } from "preact/hooks";
import type { PaneProps } from "../../app";
import type { LiveInfo } from "../../io/types";
import { Form } from "./form";
import "./live.css";
import { useTrace } from "./trace";

export function LivePane({ session }: PaneProps) {
  const [open, setOpen] = useState(false);
  const [info, setInfo] = useState<LiveInfo | null>(null);
  const dialog = useRef<HTMLDialogElement>(null);
  const live = session.live.value;
  const trace = useTrace(session, () => dialog.current?.close());

  useEffect(() => {
    if (!live) return;
    let gone = false;
    session.source.liveInfo().then(
      (found) => !gone && setInfo(found),
      () => undefined, // the form says what is wrong when it is sent
    );
    return () => {
      gone = true;
    };
  }, [live]);
  useEffect(() => {
    if (!open) return;
    dialog.current?.showModal();
    dialog.current?.querySelector<HTMLElement>("#live-prompt")?.focus();
  }, [open]);

  if (!live) return null;
  const running = trace.state.kind === "running";
  return (
    <>
      <button type="button" class="button live-button" data-action="live" aria-haspopup="dialog" onClick={() => setOpen(true)}>
        {running ? <span class="live-spin" aria-hidden="true" /> : null}
        {running ? "Tracing" : "Trace a prompt"}
      </button>
      {open && (
        <dialog
          ref={dialog} class="dialog live-dialog" aria-labelledby="live-title"
          onClose={() => setOpen(false)}
          onKeyDown={(event) => event.stopPropagation()}
        >
          <header class="dialog-head">
            <h2 id="live-title">Trace a prompt</h2>
            {info && <span class="live-model muted ellipsis" title={`${info.model} with ${info.dictionary}`}>{`${info.model} with ${info.dictionary}, up to ${info.context} tokens`}</span>}
            <button type="button" class="icon-button" data-action="close-live" aria-label="Close; a running trace goes on" title="Close; a running trace goes on" onClick={() => dialog.current?.close()}>
              ✕
            </button>
          </header>
          <div class="dialog-body">
            <Form session={session} trace={trace} />
          </div>
        </dialog>
      )}
    </>
  );
}
