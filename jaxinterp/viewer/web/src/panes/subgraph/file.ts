// A subgraph as a file to pass on: `<slug>.view.json`. It names nodes by their ids, so that it fits the same graph
// pruned in another way, and says which nodes a graph does not have.

import type { GraphData } from "../../model/bundle";
import { complete, EMPTY, type View } from "../../model/view";

export const FORMAT = "jaxinterp-view";
const VERSION = 1;
const MOST_BYTES = 8_000_000;

type Inner = Omit<View, "views">;

/** The text of a view file. */
export function viewFile(graph: GraphData, view: View): string {
  const { header } = graph;
  const id = (node: number): string => header.ids[node]!;
  const inner = (v: Inner): Record<string, unknown> => ({
    pinned: v.pinned.map(id),
    groups: v.groups.map((g) => ({ name: g.name, members: g.members.map(id) })),
    labels: Object.fromEntries(Object.entries(v.labels).map(([node, text]) => [id(Number(node)), text])),
    clicked: v.clicked === null ? null : id(v.clicked),
    positions: Object.entries(v.positions).map(([key, at]) => [key.startsWith("g:") ? { group: key.slice(2) } : { node: id(Number(key.slice(1))) }, at]),
    hidden: v.hidden.map(id),
    link_type: v.link_type,
    notes: v.notes,
  });
  const body = {
    format: FORMAT,
    version: VERSION,
    slug: header.slug,
    scan: header.scan,
    prompt: header.prompt,
    view: inner(view),
    views: view.views.map(({ name, view: v }) => ({ name, view: inner(complete(v, graph.n)) })),
  };
  return `${JSON.stringify(body, null, 1)}\n`;
}

export function viewFileName(graph: GraphData): string {
  return `${fileSlug(graph)}.view.json`;
}

/** A file name's first part from the slug, else from the graph's own file. */
export function fileSlug(graph: GraphData): string {
  const text = graph.header.slug || graph.header.file.replace(/\.(json|jigraph|pt)(\.gz)?$/i, "") || "graph";
  return text.replace(/[^\p{L}\p{N}._-]+/gu, "-").replace(/^[-.]+|-+$/g, "").slice(0, 80) || "graph";
}

/**
 * The view in the text of a view file, for this graph, and what of it does not fit (one line each).
 *
 * Throws an Error of one line for what is no view file. Every value is checked: the file may be anybody's.
 */
export function readViewFile(graph: GraphData, text: string): { view: View; notes: string[] } {
  if (text.length > MOST_BYTES) throw new Error(`the file has ${text.length} characters: a view has at most ${MOST_BYTES}`);
  let found: unknown;
  try {
    found = JSON.parse(text);
  } catch {
    throw new Error("the file is no JSON: expected a .view.json file of this viewer");
  }
  const file = object(found, "the file");
  if (file.format !== FORMAT) throw new Error(`the file is no subgraph of this viewer: its "format" should be "${FORMAT}"`);
  if (file.version !== VERSION) throw new Error(`the file's version is ${short(file.version)}: this page reads version ${VERSION}`);
  const reader = new Reader(graph);
  const view = { ...reader.view(file.view, "view"), views: [] as View["views"] };
  for (const entry of list(file.views, "views", 200)) {
    const { name, view: inner } = object(entry, "views");
    view.views.push({ name: string(name, "views.name", 200), view: reader.view(inner, "views.view") });
  }
  const notes: string[] = [];
  if (typeof file.prompt === "string" && file.prompt !== graph.header.prompt) notes.push(`it was made for another prompt, “${short(file.prompt)}”`);
  if (reader.unknown.size) {
    const names = [...reader.unknown].slice(0, 3).map(short).join(", ");
    notes.push(`${reader.unknown.size} of its ${reader.named.size} nodes ${reader.unknown.size === 1 ? "is" : "are"} not in this graph: ${names}${reader.unknown.size > 3 ? ", …" : ""}`);
  }
  return { view, notes };
}

class Reader {
  readonly named = new Set<string>();
  readonly unknown = new Set<string>();
  private readonly number: Map<string, number>;

  constructor(private readonly graph: GraphData) {
    this.number = new Map(graph.header.ids.map((id, i) => [id, i]));
  }

  private node(value: unknown, where: string): number {
    const id = string(value, where, 400);
    this.named.add(id);
    const found = this.number.get(id);
    if (found === undefined) this.unknown.add(id);
    return found ?? -1;
  }

  private nodes(value: unknown, where: string): number[] {
    return list(value, where, 1_000_000).map((id) => this.node(id, where)).filter((i) => i >= 0);
  }

  view(value: unknown, where: string): Inner {
    const found = object(value, where);
    const labels: Record<string, string> = {};
    for (const [id, text] of Object.entries(object(found.labels ?? {}, `${where}.labels`))) {
      const node = this.node(id, `${where}.labels`);
      const own = string(text, `${where}.labels`, 2000);
      if (node >= 0) labels[String(node)] = own;
    }
    const positions: View["positions"] = {};
    for (const entry of list(found.positions, `${where}.positions`, 100_000)) {
      const [of, at] = list(entry, `${where}.positions`, 2);
      const { group, node } = object(of, `${where}.positions`);
      const place = list(at, `${where}.positions`, 2).map((x) => (typeof x === "number" && x >= 0 && x <= 1 ? x : Number.NaN));
      if (place.length !== 2 || place.some(Number.isNaN)) throw new Error(`${where}.positions: expected places [x, y] from 0 to 1`);
      const key = group === undefined ? this.node(node, `${where}.positions`) : string(group, `${where}.positions`, 200);
      if (key !== -1) positions[typeof key === "number" ? `n${key}` : `g:${key}`] = [place[0]!, place[1]!];
    }
    const groups = list(found.groups, `${where}.groups`, 100_000).map((entry) => {
      const { name, members } = object(entry, `${where}.groups`);
      return { name: string(name, `${where}.groups`, 200), members: this.nodes(members, `${where}.groups`) };
    });
    const clicked = found.clicked === null || found.clicked === undefined ? -1 : this.node(found.clicked, `${where}.clicked`);
    const { views: _, ...view } = complete(
      {
        pinned: this.nodes(found.pinned, `${where}.pinned`),
        hidden: this.nodes(found.hidden, `${where}.hidden`),
        groups,
        labels,
        positions,
        clicked: clicked < 0 ? null : clicked,
        link_type: found.link_type === undefined ? EMPTY.link_type : string(found.link_type, `${where}.link_type`, 40),
        notes: found.notes === undefined ? "" : string(found.notes, `${where}.notes`, 100_000),
      },
      this.graph.n,
    );
    return view;
  }
}

const short = (value: unknown): string => {
  const text = typeof value === "string" ? value : (JSON.stringify(value) ?? "missing");
  return text.length > 60 ? `${text.slice(0, 59)}…` : text;
};

function object(value: unknown, where: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Error(`${where}: expected an object, found ${short(value)}`);
  return value as Record<string, unknown>;
}

function list(value: unknown, where: string, most: number): unknown[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw new Error(`${where}: expected a list, found ${short(value)}`);
  if (value.length > most) throw new Error(`${where}: ${value.length} entries, at most ${most}`);
  return value;
}

function string(value: unknown, where: string, most: number): string {
  if (typeof value !== "string") throw new Error(`${where}: expected a text, found ${short(value)}`);
  if (value.length > most) throw new Error(`${where}: a text of ${value.length} characters, at most ${most}`);
  return value;
}
