// The bar at the top: files, prompt, search, undo, saving, and the buttons of the panes' own dialogs.

import type { PaneProps } from "../app";
import { count } from "../draw/colour";
import { Icon } from "../draw/icons";
import { visible } from "../model/bundle";
import type { SaveState } from "../model/session";
import { ComparePane } from "../panes/compare";
import { ExportMenu } from "../panes/export";
import { LivePane } from "../panes/live";
import { SearchBar } from "../panes/search";
import { TrustCard } from "../panes/trust";
import { fileBeside } from "./file-name";
import { helpOpen } from "./help";
import { usePopup } from "./popup";
import { theme, toggleTheme } from "./theme";

export function Bar({ session }: PaneProps) {
  return (
    <header class="bar">
      <Files session={session} />
      <Prompt session={session} />
      <SearchBar session={session} />
      <Steps session={session} />
      <Saving session={session} />
      <div class="bar-group">
        <TrustCard session={session} />
        <ComparePane session={session} />
        {session.live.value && <LivePane session={session} />}
        <ExportMenu session={session} />
      </div>
      <div class="bar-group tight">
        <button
          class="icon-button"
          type="button"
          data-action="theme"
          aria-label={theme.value === "dark" ? "Light colours" : "Dark colours"}
          title={theme.value === "dark" ? "Light colours" : "Dark colours"}
          onClick={toggleTheme}
        >
          <Icon name={theme.value === "dark" ? "sun" : "moon"} />
        </button>
        <button
          class="icon-button"
          type="button"
          data-action="help"
          aria-label="Help and keys"
          title="Help and keys (?)"
          onClick={() => {
            helpOpen.value = true;
          }}
        >
          <Icon name="help" />
        </button>
      </div>
    </header>
  );
}

function Files({ session }: PaneProps) {
  const { open, setOpen, anchor } = usePopup();
  const files = session.files.value;
  const current = files.find((file) => file.id === session.current.value);
  const broken = files.filter((file) => file.error !== null).length;
  return (
    <div class="anchor" ref={anchor}>
      <button
        class="button files-button"
        type="button"
        data-action="files"
        aria-haspopup="menu"
        aria-expanded={open}
        title={current ? current.file : "Graphs"}
        onClick={() => setOpen(!open)}
      >
        <span class="ellipsis">{current ? current.slug || current.file : "Graphs"}</span>
        {files.length > 1 && <span class="faint number">{files.length}</span>}
        {broken > 0 && (
          <span class="warn" title={`${broken} of them cannot be opened`}>
            <Icon name="warning" size={13} />
          </span>
        )}
        <Icon name="down" size={12} />
      </button>
      {open && (
        <div class="menu files-menu" role="menu">
          {files.length === 0 && <p class="files-none muted">No graphs.</p>}
          {files.map((file) => (
            <button
              key={file.id}
              class="menu-item files-item"
              type="button"
              role="menuitem"
              data-file={file.id}
              disabled={file.error !== null}
              aria-current={file.id === session.current.value}
              onClick={() => {
                setOpen(false);
                void session.open(file.id);
              }}
            >
              <span class="row">
                <span class="grow ellipsis">
                  <span class="files-name">{file.slug || file.file}</span>
                  {fileBeside(file) && <span class="faint"> {fileBeside(file)}</span>}
                </span>
                {file.error === null && (
                  <span class="muted number">
                    {count(file.nodes)} nodes · {count(file.edges)} edges
                  </span>
                )}
              </span>
              {file.error === null ? (
                <span class="muted ellipsis">{visible(file.prompt || file.file)}</span>
              ) : (
                <span class="bad files-error">{file.error}</span>
              )}
            </button>
          ))}
        </div>
      )}
    </div>
  );
}

function Prompt({ session }: PaneProps) {
  const graph = session.graph.value;
  const text = graph ? graph.header.prompt || graph.tokens.join("") : "";
  return (
    <p class="prompt ellipsis grow" title={text}>
      {text && visible(text)}
    </p>
  );
}

function Steps({ session }: PaneProps) {
  const undo = session.undoName.value;
  const redo = session.redoName.value;
  return (
    <div class="bar-group tight">
      <button
        class="icon-button"
        type="button"
        data-action="undo"
        disabled={undo === null}
        aria-label={undo === null ? "Nothing to undo" : `Undo: ${undo}`}
        title={undo === null ? "Nothing to undo" : `Undo: ${undo} (ctrl-z)`}
        onClick={() => session.undo()}
      >
        <Icon name="undo" />
      </button>
      <button
        class="icon-button"
        type="button"
        data-action="redo"
        disabled={redo === null}
        aria-label={redo === null ? "Nothing to redo" : `Redo: ${redo}`}
        title={redo === null ? "Nothing to redo" : `Redo: ${redo} (ctrl-shift-z)`}
        onClick={() => session.redo()}
      >
        <Icon name="redo" />
      </button>
    </div>
  );
}

function Saving({ session }: PaneProps) {
  if (session.source.mode !== "server") return null;
  const state = session.saveState.value;
  const { word, tip } = describe(state);
  return (
    <button
      class={`button save-button ${state.kind}`}
      type="button"
      data-action="save"
      disabled={!session.graph.value || state.kind === "saving"}
      title={`${tip} Click to write pins, groups and labels into the graph file (ctrl-s).`}
      onClick={() => void session.save()}
    >
      <span class="save-dot" aria-hidden="true" />
      <span id="save-state" role="status">
        {word}
      </span>
    </button>
  );
}

function describe(state: SaveState): { word: string; tip: string } {
  switch (state.kind) {
    case "clean":
      return { word: "Save", tip: "Nothing has been changed." };
    case "changed":
      return { word: "Changed", tip: "Changes are kept in a moment." };
    case "saving":
      return { word: "Saving", tip: "Writing." };
    case "saved":
      return state.where === "sidecar"
        ? { word: "Kept", tip: "Changes are kept beside the graph file." }
        : { word: "Saved", tip: "Changes are in the graph file." };
    default:
      return { word: state.local ? "In browser" : "Not saved", tip: `${state.why}${/[.?!]$/.test(state.why) ? "" : "."}` };
  }
}
