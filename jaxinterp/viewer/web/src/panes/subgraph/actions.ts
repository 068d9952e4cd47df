// What one can do to the subgraph: edits of the view, each one step of undo. Called by buttons and by keys.

import { signal } from "@preact/signals";
import { EMBEDDING, visible } from "../../model/bundle";
import type { Session } from "../../model/session";
import { plainLabel } from "./boxes";
import { addToGroup, complete, group, label, pin, place, renameGroup, setGroups, ungroup, unpin, type View } from "../../model/view";

/** The box whose name is being edited: "n<node>" or "g:<group>". */
export const renaming = signal<string | null>(null);

const groupAt = (view: View, node: number) => view.groups.find((g) => g.members.includes(node));

/** The box of a node, null where it is not pinned. */
export function boxOf(view: View, node: number | null): string | null {
  if (node === null) return null;
  const found = groupAt(view, node);
  return found ? `g:${found.name}` : view.pinned.includes(node) ? `n${node}` : null;
}

/** The nodes of a box. */
export function membersOf(view: View, key: string): number[] {
  return key.startsWith("g:") ? (view.groups.find((g) => `g:${g.name}` === key)?.members ?? []) : [Number(key.slice(1))];
}

/** Places of boxes that are no more go too; members of a group keep theirs for when it is dissolved. */
function tidy(view: View): View {
  const real = new Set([...view.groups.map((g) => `g:${g.name}`), ...view.pinned.map((i) => `n${i}`)]);
  const kept = Object.entries(view.positions).filter(([key]) => real.has(key));
  return kept.length === Object.keys(view.positions).length ? view : { ...view, positions: Object.fromEntries(kept) };
}

/** The commonest label of nodes, the text of tokens, else the name of the most influential node. */
export function nameFor(session: Session, nodes: readonly number[]): string {
  const graph = session.graph.value;
  if (!graph) return "group";
  const token = (i: number): string => visible((graph.tokens[graph.position[i]!] ?? "").trim() || (graph.tokens[graph.position[i]!] ?? "")).replace(/[\u2068\u2069]/g, "");
  if (nodes.every((i) => graph.kind[i] === EMBEDDING)) {
    const sorted = [...nodes].sort((a, b) => graph.position[a]! - graph.position[b]!);
    return `${sorted.slice(0, 5).map(token).join(" ")}${sorted.length > 5 ? " …" : ""}`.slice(0, 190);
  }
  const counts = new Map<string, number>();
  for (const i of nodes) {
    const text = plainLabel(session.label(i));
    if (text) counts.set(text, (counts.get(text) ?? 0) + 1);
  }
  const common = [...counts].sort((a, b) => b[1] - a[1])[0];
  if (common) return common[0].slice(0, 190);
  const top = [...nodes].sort((a, b) => (graph.influence[b] || 0) - (graph.influence[a] || 0))[0];
  return top === undefined ? "group" : `${graph.kind[top] === EMBEDDING ? token(top) : session.name(top).trim()} and others`.slice(0, 190);
}

/** Put the marked nodes into a group. Says what to do where fewer than two are marked. */
export function groupMarked(session: Session): void {
  const nodes = [...session.marked.value];
  if (nodes.length < 2) return session.say("Mark two or more boxes first: alt-click them, or drag a frame around them with shift held.", false);
  const name = nameFor(session, nodes);
  session.change("group", (view) => {
    const keys = new Set(nodes.map((i) => boxOf(view, i)));
    const places = [...keys].map((key) => (key ? view.positions[key] : undefined)).filter((at) => at !== undefined);
    const next = tidy(group(view, name, nodes));
    if (!places.length) return next;
    const mean = (i: 0 | 1): number => places.reduce((sum, at) => sum + at[i], 0) / places.length;
    return place(next, `g:${next.groups.at(-1)!.name}`, mean(0), mean(1));
  });
  session.marked.value = new Set();
}

export function ungroupBox(session: Session, key: string): void {
  if (key.startsWith("g:")) session.change("ungroup", (view) => tidy(ungroup(view, key.slice(2))));
}

/** A group's name, or a node's label. */
export function renameBox(session: Session, key: string, name: string): void {
  if (key.startsWith("g:")) session.change("rename", (view) => renameGroup(view, key.slice(2), name.slice(0, 190)));
  else session.change("rename", (view) => label(view, Number(key.slice(1)), name.slice(0, 2000)));
}

/** Let the nodes of one box join another. */
export function join(session: Session, from: string, onto: string): void {
  const view = session.view.value;
  const nodes = membersOf(view, from);
  if (!nodes.length || from === onto) return;
  if (onto.startsWith("g:")) return session.change("join a group", (v) => tidy(addToGroup(v, onto.slice(2), nodes)));
  const both = [...membersOf(view, onto), ...nodes];
  // A group dragged onto a node keeps its name.
  const name = from.startsWith("g:") ? from.slice(2) : nameFor(session, both);
  session.change("group", (v) => {
    const at = v.positions[onto];
    const next = tidy(group({ ...v, groups: v.groups.filter((g) => `g:${g.name}` !== from) }, name, both));
    return at ? place(next, `g:${next.groups.at(-1)!.name}`, at[0], at[1]) : next;
  });
}

export function removeMember(session: Session, node: number): void {
  session.change("take out of the group", (view) =>
    tidy({ ...view, groups: view.groups.map((g) => ({ ...g, members: g.members.filter((i) => i !== node) })).filter((g) => g.members.length) }),
  );
}

export function pinNode(session: Session, node: number): void {
  session.change("pin", (view) => (view.pinned.includes(node) ? view : pin(view, [node])));
}

export function unpinBox(session: Session, key: string): void {
  session.change("unpin", (view) => tidy(unpin(view, membersOf(view, key))));
}

export function moveBox(session: Session, key: string, x: number, y: number, merge = ""): void {
  const inside = (v: number): number => Math.round(Math.max(0, Math.min(1, v)) * 1e5) / 1e5;
  session.change("move a box", (view) => place(view, key, inside(x), inside(y)), merge);
}

/** Let the automatic layout place every box again. */
export function tidyUp(session: Session): void {
  session.change("automatic layout", (view) => (Object.keys(view.positions).length ? { ...view, positions: {} } : view));
}

/** Back to the subgraph that the report proposes. */
export function toAutomatic(session: Session): void {
  const automatic = session.report.value?.automatic;
  if (!automatic) return;
  session.change("automatic subgraph", (view) => pin(setGroups({ ...view, pinned: [], groups: [], positions: {} }, automatic.groups), automatic.pinned));
}

/** Groups in place of the ones there are; other pins stay. */
export function applyGroups(session: Session, groups: { name: string; members: number[] }[]): void {
  session.change("automatic groups", (view) => tidy(setGroups(view, groups.map(({ name, members }) => ({ name: name.slice(0, 190), members })))));
}

export function saveView(session: Session, name: string): void {
  session.change("save a view", (view) => {
    const { views, ...rest } = view;
    return { ...view, views: [...views.filter((v) => v.name !== name), { name, view: rest }] };
  });
}

export function openView(session: Session, name: string): void {
  const n = session.graph.value?.n ?? 0;
  session.change(`open “${name}”`, (view) => {
    const found = view.views.find((v) => v.name === name);
    if (!found) return view;
    const next = complete(found.view, n);
    // Notes are on the graph: a view saved before they were written does not take them away.
    return { ...next, clicked: view.clicked, views: view.views, notes: next.notes || view.notes };
  });
}

export function deleteView(session: Session, name: string): void {
  session.change("delete a view", (view) => ({ ...view, views: view.views.filter((v) => v.name !== name) }));
}

/** Rename a saved view; a name that is taken says so. */
export function renameView(session: Session, old: string, name: string): void {
  const wanted = name.trim().slice(0, 190);
  if (!wanted || wanted === old) return;
  if (session.view.value.views.some((v) => v.name === wanted)) return session.say(`There is a view called “${wanted}” already.`, true);
  session.change("rename a view", (view) => ({ ...view, views: view.views.map((v) => (v.name === old ? { ...v, name: wanted } : v)) }));
}
