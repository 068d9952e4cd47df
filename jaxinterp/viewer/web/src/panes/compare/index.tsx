// Two graphs side by side: what they share, what differs, and by how much.

import { useEffect, useRef, useState } from "preact/hooks";
import type { PaneProps } from "../../app";
import { count } from "../../draw/colour";
import { Icon } from "../../draw/icons";
import { usePopup } from "../../frame/popup";
import { fileTitle } from "../../frame/file-name";
import { visible } from "../../model/bundle";
import type { Session } from "../../model/session";
import { Both } from "./both";
import "./compare.css";

export function ComparePane({ session }: PaneProps) {
  const { open, setOpen, anchor } = usePopup();
  const [waiting, setWaiting] = useState(false);
  const current = session.current.value;
  const others = session.files.value.filter((file) => file.id !== current);
  const usable = others.filter((file) => file.error === null);
  const other = session.other.value;
  if (session.source.mode === "embedded" && !usable.length) return null;
  const choose = async (id: number): Promise<void> => {
    setOpen(false);
    setWaiting(true);
    await compareWith(session, id);
    setWaiting(false);
  };
  return (
    <div class="anchor" ref={anchor}>
      <button
        class="button"
        type="button"
        data-action="compare"
        aria-haspopup="menu"
        aria-expanded={open}
        disabled={current === null || !usable.length || waiting}
        title={usable.length ? "Compare with another graph" : "There is no second graph to compare with: open several files or a folder"}
        onClick={() => setOpen(!open)}
      >
        {waiting ? "Comparing…" : "Compare"}
      </button>
      {open && (
        <div class="menu right compare-menu" role="menu" aria-label="Compare with">
          <p class="caption">Compare with</p>
          {others.map((file) => (
            <button class="menu-item compare-item" type="button" role="menuitem" key={file.id} data-compare={file.id} disabled={file.error !== null} title={file.error ?? file.file} onClick={() => void choose(file.id)}>
              <span class="row">
                <span class="grow ellipsis">{fileTitle(file)}</span>
                <span class="muted number">{file.error === null ? `${count(file.nodes)} nodes` : "cannot be opened"}</span>
              </span>
              {file.error === null && <span class="muted ellipsis">{visible(file.prompt || file.file)}</span>}
            </button>
          ))}
        </div>
      )}
      {other && session.graph.value && <Overlay session={session} onChoose={choose} />}
    </div>
  );
}

async function compareWith(session: Session, id: number): Promise<void> {
  const current = session.current.value;
  if (current === null) return;
  try {
    const [graph, comparison] = await Promise.all([session.source.graph(id), session.source.compare(current, id)]);
    if (session.current.value === current) session.other.value = { id, graph, comparison };
  } catch (error) {
    session.say(error instanceof Error ? error.message : String(error), true);
  }
}

function Overlay({ session, onChoose }: PaneProps & { onChoose: (id: number) => Promise<void> }) {
  const { id, graph, comparison } = session.other.value!;
  const first = session.graph.value!;
  const button = useRef<HTMLButtonElement>(null);
  const close = (): void => {
    session.other.value = null;
    // After the overlay has gone, which holds the focus.
    setTimeout(() => document.querySelector<HTMLElement>("[data-action=compare]")?.focus());
  };
  useEffect(() => {
    const escape = (event: KeyboardEvent): void => {
      if (event.key !== "Escape" || document.querySelector("dialog[open], .compare-overlay .menu")) return;
      event.preventDefault();
      event.stopPropagation();
      close();
    };
    // The page below is covered: the focus stays above it.
    const inside = (event: FocusEvent): void => {
      if (!(event.target as Element).closest(".compare-overlay, dialog")) button.current?.focus();
    };
    document.addEventListener("keydown", escape, true);
    document.addEventListener("focusin", inside);
    button.current?.focus();
    return () => {
      document.removeEventListener("keydown", escape, true);
      document.removeEventListener("focusin", inside);
    };
  }, []);
  const files = session.files.value.filter((file) => file.error === null && file.id !== session.current.value);
  const own = session.files.value.find((file) => file.id === session.current.value);
  return (
    <section class="compare-overlay" role="dialog" aria-modal="true" aria-label="Comparison of two graphs">
      <header class="compare-head">
        <div class="compare-title">
          <span class="compare-side">A</span>
          <span class="ellipsis">
            <strong>{fileTitle(own ?? first.header)}</strong> <span class="muted">{visible(first.header.prompt)}</span>
          </span>
        </div>
        <div class="compare-title">
          <span class="compare-side">B</span>
          <select class="field" aria-label="Second graph" data-action="compare-other" value={String(id)} onChange={(event) => void onChoose(Number(event.currentTarget.value))}>
            {files.map((file) => (
              <option key={file.id} value={String(file.id)}>
                {fileTitle(file)}
              </option>
            ))}
          </select>
          <span class="ellipsis muted">{visible(graph.header.prompt)}</span>
        </div>
        <button class="button" type="button" data-action="compare-close" ref={button} onClick={close}>
          <Icon name="close" size={12} /> Close
        </button>
      </header>
      <Both session={session} a={first} b={graph} comparison={comparison} key={`${session.current.value} ${id}`} />
    </section>
  );
}
