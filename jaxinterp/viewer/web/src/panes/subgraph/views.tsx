// Named views of a graph, and notes on it.

import { useState } from "preact/hooks";
import type { PaneProps } from "../../app";
import { Icon } from "../../draw/icons";
import { usePopup } from "../../frame/popup";
import { deleteView, openView, renameView, saveView } from "./actions";

export function Views({ session }: PaneProps) {
  const { open, setOpen, anchor } = usePopup();
  const [name, setName] = useState("");
  const [renamed, setRenamed] = useState<string | null>(null);
  const views = session.view.value.views;
  const save = (): void => {
    const text = name.trim() || `view ${views.length + 1}`;
    saveView(session, text);
    session.say(`Saved this subgraph as “${text}”.`, false);
    setName("");
  };
  return (
    <div class="anchor" ref={anchor}>
      <button class="button small" type="button" data-action="views" aria-haspopup="dialog" aria-expanded={open} title="Named views of this graph" onClick={() => setOpen(!open)}>
        Views{views.length > 0 && <span class="muted number"> {views.length}</span>}
        <Icon name="down" size={11} />
      </button>
      {open && (
        <div class="menu right sg-views" role="dialog" aria-label="Named views">
          {views.length === 0 && <p class="muted sg-pad">No view is saved yet. A view keeps pins, groups, labels and places.</p>}
          <ul class="list">
            {views.map((view) => (
              <li class="row" key={view.name}>
                {renamed === view.name ? (
                  <input
                    class="field grow"
                    aria-label={`New name of the view ${view.name}`}
                    maxLength={190}
                    value={view.name}
                    ref={(field) => field?.focus()}
                    onKeyDown={(event) => {
                      if (event.key !== "Enter") return;
                      renameView(session, view.name, event.currentTarget.value);
                      setRenamed(null);
                    }}
                  />
                ) : (
                  <button
                    class="menu-item"
                    type="button"
                    data-action="view-open"
                    data-view={view.name}
                    title="Open this view"
                    onClick={() => {
                      openView(session, view.name);
                      setOpen(false);
                    }}
                  >
                    <span class="grow ellipsis">{view.name}</span>
                    <span class="muted number">{new Set(view.view.pinned ?? []).size} pinned</span>
                  </button>
                )}
                <button class="button small" type="button" data-action="view-rename" aria-label={`Rename the view ${view.name}`} onClick={() => setRenamed(renamed === view.name ? null : view.name)}>
                  Rename
                </button>
                <button class="icon-button" type="button" data-action="view-delete" aria-label={`Delete the view ${view.name}`} title="Delete (can be undone)" onClick={() => deleteView(session, view.name)}>
                  <Icon name="close" size={12} />
                </button>
              </li>
            ))}
          </ul>
          <div class="row sg-views-save">
            <input class="field grow" data-field="view-name" aria-label="Name of a new view" placeholder={`view ${views.length + 1}`} maxLength={190} value={name} onInput={(event) => setName(event.currentTarget.value)} onKeyDown={(event) => event.key === "Enter" && save()} />
            <button class="button" type="button" data-action="view-save" onClick={save}>
              Save as
            </button>
          </div>
        </div>
      )}
    </div>
  );
}

export function Notes({ session }: PaneProps) {
  const { open, setOpen, anchor } = usePopup();
  const notes = session.view.value.notes;
  return (
    <div class="anchor" ref={anchor}>
      <button class="button small" type="button" data-action="notes" aria-haspopup="dialog" aria-expanded={open} title="Notes on this graph, kept with it" onClick={() => setOpen(!open)}>
        Notes{notes.trim() && <span class="sg-dot" aria-label="there are notes" />}
      </button>
      {open && (
        <div class="menu right sg-notes" role="dialog" aria-label="Notes">
          <textarea
            class="field"
            data-field="notes"
            aria-label="Notes on this graph"
            placeholder="What you found. Kept with the graph and in shared files."
            rows={8}
            maxLength={100_000}
            value={notes}
            ref={(field) => field?.focus()}
            onInput={(event) => {
              const text = event.currentTarget.value;
              session.change("notes", (view) => ({ ...view, notes: text }), "notes");
            }}
          />
        </div>
      )}
    </div>
  );
}
