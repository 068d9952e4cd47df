// What the page has to say: passing notes, errors that stay until they are closed, and the question after a conflict.

import { useEffect, useRef } from "preact/hooks";
import type { PaneProps } from "../app";
import { Icon } from "../draw/icons";

const NOTE_MS = 5000;

export function ErrorBar({ session }: PaneProps) {
  const message = session.message.value;
  if (!message?.error) return null;
  return (
    <div class="error-bar" role="alert">
      <Icon name="warning" />
      <span class="grow">{message.text}</span>
      <button
        class="icon-button"
        type="button"
        data-action="dismiss"
        aria-label="Close this message"
        onClick={() => {
          session.message.value = null;
        }}
      >
        <Icon name="close" />
      </button>
    </div>
  );
}

export function Note({ session }: PaneProps) {
  const message = session.message.value;
  const note = message && !message.error ? message : null;
  useEffect(() => {
    if (!note) return;
    const timer = setTimeout(() => {
      if (session.message.peek() === note) session.message.value = null;
    }, NOTE_MS);
    return () => clearTimeout(timer);
  }, [note, session]);
  return (
    <div class="notes" role="status" aria-live="polite">
      {note && (
        <button
          class="note"
          type="button"
          title="Close"
          onClick={() => {
            session.message.value = null;
          }}
        >
          {note.text}
        </button>
      )}
    </div>
  );
}

export function Conflict({ session }: PaneProps) {
  const box = useRef<HTMLDialogElement>(null);
  const open = session.conflict.value !== null;
  useEffect(() => {
    if (open && !box.current?.open) {
      box.current?.showModal();
      // By hand: browsers complain of the attribute autofocus inside a notebook's frame.
      box.current?.querySelector<HTMLElement>("[data-action=keep-mine]")?.focus();
    } else if (!open) box.current?.close();
  }, [open]);
  return (
    <dialog class="dialog conflict" ref={box} aria-label="Changed in another window" onCancel={(event) => event.preventDefault()}>
      <div class="dialog-head">Changed in another window</div>
      <div class="dialog-body">
        <p>Another window, or another user, has saved this graph since it was opened here. Which pins, groups and labels should be kept?</p>
      </div>
      <div class="dialog-foot">
        <button class="button" type="button" data-action="take-theirs" onClick={() => void session.settle(false)}>
          Take theirs
        </button>
        <button class="button primary" type="button" data-action="keep-mine" onClick={() => void session.settle(true)}>
          Keep mine
        </button>
      </div>
    </dialog>
  );
}

/** A line at the top while something is under way. */
export function Busy({ session }: PaneProps) {
  return session.loading.value && session.graph.value ? <div class="busy" role="progressbar" aria-label={session.loading.value} /> : null;
}

/** What is under way, where nothing can be shown yet. */
export function Loading({ session }: PaneProps) {
  const what = session.loading.value;
  if (!what || session.graph.value) return null;
  return (
    <div class="loading" role="status">
      <span class="spinner" aria-hidden="true" />
      {what[0]!.toUpperCase() + what.slice(1)}…
    </div>
  );
}
