// Keys that work everywhere in the page, except where text is typed. Panes add none of their own for the same letters.

import { hide } from "../model/view";
import type { Session } from "../model/session";
import { camera } from "../panes/graph/camera";
import { neighbour, strongestInput, strongestOutput, type Direction } from "../panes/graph/neighbours";
import { groupMarked } from "../panes/subgraph/actions";
import { helpOpen } from "./help";
import { togglePin } from "./pins";
import { toggleTheme } from "./theme";

const ARROWS: Record<string, Direction> = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down" };

/** Elements with keys of their own: arrows belong to them. */
const OWN_ARROWS = "input, textarea, select, [role=separator], [role=listbox], [role=menu], [role=tablist], [role=slider], [role=tree], [role=grid]";

export function listen(session: Session): () => void {
  const onKey = (event: KeyboardEvent): void => {
    if (event.defaultPrevented || event.isComposing) return;
    if (document.querySelector("dialog[open]") && event.key !== "Escape") return;
    if (handle(session, event)) event.preventDefault();
  };
  document.addEventListener("keydown", onKey);
  return () => document.removeEventListener("keydown", onKey);
}

function typing(target: EventTarget | null): boolean {
  const element = target as HTMLElement | null;
  return !!element?.closest?.("input:not([type=range]):not([type=checkbox]):not([type=radio]), textarea, select, [contenteditable=true]");
}

/** Whether the key meant something. */
export function handle(session: Session, event: KeyboardEvent): boolean {
  const control = event.ctrlKey || event.metaKey;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (control && key === "s") return done(() => void session.save());
  if (typing(event.target)) return false;
  if (control && key === "z") return done(() => (event.shiftKey ? session.redo() : session.undo()));
  if (control && key === "y") return done(() => session.redo());
  if (control || event.altKey) return false;
  if (key === "Escape") return escape(session);
  if (key === "?") return done(() => (helpOpen.value = true));
  // A comparison covers the graph: nothing may change below it unseen.
  if (session.other.value) return key === "d" && done(toggleTheme);
  if (key === "/") return done(() => document.querySelector<HTMLInputElement>("[data-action=search]")?.focus());
  if (key === "d") return done(toggleTheme);
  if (!session.graph.value) return false;
  const direction = ARROWS[key];
  if (direction) {
    if ((event.target as HTMLElement | null)?.closest?.(OWN_ARROWS)) return false;
    return done(() => walk(session, direction));
  }
  return letter(session, key, event.target);
}

function letter(session: Session, key: string, target: EventTarget | null): boolean {
  const node = session.clicked.value;
  const graph = session.graph.value!;
  switch (key) {
    case "f": {
      const inside = (target as HTMLElement | null)?.closest?.(".pane")?.id.replace("pane-", "") ?? "graph";
      return done(() => (session.maximised.value = session.maximised.value ? null : inside));
    }
    case "0":
      return done(() => camera.reset());
    case "z":
      return done(() => camera.toSelection());
    case "+":
    case "=":
      return done(() => camera.zoom(1.5));
    case "-":
      return done(() => camera.zoom(1 / 1.5));
    case "g":
      return done(() => groupMarked(session));
    case "h":
      return done(() => hideMarked(session));
  }
  if (node === null) return false;
  switch (key) {
    case "p":
      return done(() => togglePin(session, [node]));
    case "m":
      return done(() => session.mark(node));
    case "i":
      return go(session, strongestInput(graph, node, session.shown.value));
    case "o":
      return go(session, strongestOutput(graph, node, session.shown.value));
  }
  return false;
}

function done(work: () => unknown): true {
  work();
  return true;
}

function go(session: Session, node: number | null): true {
  if (node !== null) {
    session.click(node);
    camera.reveal(node);
  }
  return true;
}

function walk(session: Session, direction: Direction): void {
  const graph = session.graph.value!;
  const from = session.clicked.value;
  const next = from === null ? (graph.targets[0] ?? 0) : neighbour(graph, from, direction, session.shown.value, camera.across);
  go(session, next);
}

function escape(session: Session): boolean {
  if (helpOpen.value) return done(() => (helpOpen.value = false));
  if (session.maximised.value) return done(() => (session.maximised.value = null));
  if (session.marked.value.size) return done(() => (session.marked.value = new Set()));
  if (session.message.value) return done(() => (session.message.value = null));
  if (session.clicked.value !== null) return done(() => session.click(null));
  return false;
}

function hideMarked(session: Session): void {
  const marked = [...session.marked.value];
  const clicked = session.clicked.value;
  const nodes = marked.length ? marked : clicked === null ? [] : [clicked];
  if (!nodes.length) return;
  session.change("hide", (view) => hide(view, nodes));
  session.marked.value = new Set();
  session.say(nodes.length === 1 ? `Hidden: ${session.name(nodes[0]!)}. Undo with ctrl-z.` : `${nodes.length} nodes hidden. Undo with ctrl-z.`, false);
}
