// The state of the page. Panes read signals and call the functions here; nothing else changes state.

import { batch, computed, effect, signal } from "@preact/signals";
import { Refusal, type Source } from "../io/source";
import type { Comparison, FileEntry, Report } from "../io/types";
import { type GraphData, tame, visible } from "./bundle";
import { EVERYTHING, type Filter, maskOf } from "./filter";
import { History } from "./history";
import { forget, keep, keptView } from "./kept";
import { complete, EMPTY, setGroups, pin, type View } from "./view";

export type SaveState = { kind: "clean" } | { kind: "changed" } | { kind: "saving" } | { kind: "saved"; where: string } | { kind: "failed"; why: string; local: boolean };

type Write = (id: number, revision: number, view: View) => Promise<{ revision: number; where: string }>;

export class Session {
  readonly files = signal<FileEntry[]>([]);
  readonly live = signal(false);
  readonly current = signal<number | null>(null);
  readonly graph = signal<GraphData | null>(null);
  readonly report = signal<Report | null>(null);
  readonly loading = signal<string | null>(null);
  /** A message to the user; errors stay until they are closed. */
  readonly message = signal<{ text: string; error: boolean } | null>(null);

  private history = new History<View>(EMPTY);
  readonly view = signal<View>(EMPTY);
  readonly undoName = signal<string | null>(null);
  readonly redoName = signal<string | null>(null);
  readonly saveState = signal<SaveState>({ kind: "clean" });
  private revision = 0;
  private timer = 0;

  readonly hovered = signal<number | null>(null);
  /** An edge under the pointer or opened, by its ends. */
  readonly edge = signal<{ target: number; source: number } | null>(null);
  /** Nodes marked for grouping. */
  readonly marked = signal<Set<number>>(new Set());
  readonly filter = signal<Filter>(EVERYTHING);
  /** How many of the strongest edges the graph pane draws. */
  readonly edgeCount = signal(1000);
  readonly maximised = signal<string | null>(null);
  readonly other = signal<{ id: number; graph: GraphData; comparison: Comparison } | null>(null);

  readonly clicked = computed(() => this.view.value.clicked);
  /** Parts of the view by themselves: a click leaves them as they are, and what depends on them alone stays too. */
  private readonly hidden = computed(() => this.view.value.hidden);
  private readonly ownLabels = computed(() => this.view.value.labels);

  /** 1 for nodes that the filter and the user's hiding let through. */
  readonly shown = computed<Uint8Array>(() => {
    const graph = this.graph.value;
    return graph ? maskOf(graph, this.filter.value, this.hidden.value, (i) => this.searchText(i)) : new Uint8Array(0);
  });

  /** How many nodes are not drawn, and why: by the filter or by hand. */
  readonly hiddenCounts = computed(() => {
    const graph = this.graph.value;
    const mask = this.shown.value;
    let all = 0;
    for (let i = 0; i < mask.length; i++) all += mask[i] ? 0 : 1;
    const byHand = this.hidden.value.length;
    return { all: graph ? all : 0, byHand, byFilter: graph ? all - byHand : 0 };
  });

  /** How many of the ranked edges run between nodes that are drawn. */
  readonly shownStrong = computed(() => {
    const graph = this.graph.value;
    const mask = this.shown.value;
    if (!graph || this.hiddenCounts.value.all === 0) return graph?.strong.length ?? 0;
    return graph.strong.reduce((sum, e) => sum + (mask[graph.inSource[e]!] && mask[graph.edgeTarget[e]!] ? 1 : 0), 0);
  });

  constructor(readonly source: Source) {
    effect(() => {
      document.title = this.graph.value ? `${this.graph.value.header.prompt || this.graph.value.header.file} · jaxinterp` : "jaxinterp";
    });
  }

  /** The user's label of a node, else the file's, else "". */
  label(node: number): string {
    return this.ownLabels.value[String(node)] ?? this.graph.value?.header.labels[String(node)] ?? "";
  }

  /** What to call a node: its label, else what and where it is. */
  name(node: number): string {
    const graph = this.graph.value;
    if (!graph) return "";
    const label = this.label(node);
    // A token may be nothing but blanks.
    return label === "" ? graph.place(node) : label.trim() === "" ? visible(label) : tame(label);
  }

  searchText(node: number): string {
    const graph = this.graph.value!;
    const token = graph.tokens[graph.position[node]!] ?? "";
    return `${this.label(node)} ${graph.place(node)} ${token} ${graph.header.ids[node] ?? ""}`.toLowerCase();
  }

  async start(): Promise<void> {
    await this.try("reading the list of graphs", async () => {
      const files = await this.source.files();
      batch(() => {
        this.files.value = files.files;
        this.live.value = files.live;
      });
      const wanted = this.wanted();
      const first = wanted?.error === null ? wanted : files.files.find((file) => file.error === null);
      if (first) await this.open(first.id);
      else if (files.files.length) this.say(files.files[0]!.error ?? "no graph can be opened", true);
      if (first && wanted?.error) this.say(wanted.error, true);
    });
  }

  /** The file that the address names. */
  private wanted(): FileEntry | undefined {
    const id = new URLSearchParams(location.hash.slice(1)).get("graph");
    return id === null ? undefined : this.files.value.find((file) => String(file.id) === id);
  }

  /** The address was changed by hand, or by going back. */
  async follow(): Promise<void> {
    const wanted = this.wanted();
    if (wanted?.error) this.say(wanted.error, true);
    else if (wanted && wanted.id !== this.current.value) await this.open(wanted.id);
  }

  private opening = 0;

  async open(id: number): Promise<void> {
    const ticket = ++this.opening;
    await this.try("opening the graph", async () => {
      await this.flush();
      const graph = await this.source.graph(id);
      if (ticket !== this.opening) return; // another one was chosen meanwhile
      const local = keptView(graph);
      const view = complete(local?.view ?? graph.header.view, graph.n);
      const top = graph.targets[0] ?? null;
      batch(() => {
        this.current.value = id;
        this.graph.value = graph;
        this.report.value = null;
        this.filter.value = EVERYTHING;
        this.marked.value = new Set();
        this.hovered.value = null;
        this.edge.value = null;
        this.other.value = null;
        // Kept changes are of the state that they were made from: if another window has saved since, that is said.
        this.revision = local?.base ?? graph.header.revision;
        this.saveState.value = { kind: "clean" };
        this.reset(view.clicked === null ? { ...view, clicked: top } : view);
      });
      if (this.source.mode === "server") history.replaceState(null, "", `#graph=${id}`);
      if (local) {
        this.say("Your changes from last time, kept in this browser, are back.", false);
        if (graph.header.writable) this.touch();
        else this.saveState.value = { kind: "failed", why: "The graph's folder cannot be written", local: true };
      }
    });
    if (this.current.value !== id || ticket !== this.opening) return;
    await this.try("reading the report", async () => {
      const report = await this.source.report(id);
      if (this.current.value !== id) return;
      batch(() => {
        this.report.value = report;
        const view = this.view.value;
        // Kept changes without a pin are the user's wish.
        const kept = this.graph.value?.header.saved_from === "sidecar";
        if (!view.pinned.length && !kept && this.undoName.value === null) {
          // A first sight of the graph: the automatic subgraph, which is no change of the user's.
          this.reset(pin(setGroups(view, report.automatic.groups), report.automatic.pinned));
        }
      });
    });
  }

  private reset(view: View): void {
    this.history = new History(view);
    this.sync();
  }

  private sync(): void {
    batch(() => {
      this.view.value = this.history.current;
      this.undoName.value = this.history.undoName;
      this.redoName.value = this.history.redoName;
    });
  }

  /** A change that can be undone. name: what undo calls it. */
  change(name: string, edit: (view: View) => View, merge = ""): void {
    const next = edit(this.history.current);
    if (next === this.history.current) return;
    this.history.push(name, next, merge);
    this.sync();
    this.touch();
  }

  /** Select a node: kept in the view, but no step of its own in the history. */
  click(node: number | null): void {
    this.history.current = { ...this.history.current, clicked: node };
    this.edge.value = null;
    this.sync();
  }

  undo(): void {
    const clicked = this.view.value.clicked;
    if (this.history.undo()) this.click(clicked);
    this.touch();
  }

  redo(): void {
    const clicked = this.view.value.clicked;
    if (this.history.redo()) this.click(clicked);
    this.touch();
  }

  mark(node: number, on?: boolean): void {
    const next = new Set(this.marked.value);
    if (on ?? !next.has(node)) next.add(node);
    else next.delete(node);
    this.marked.value = next;
  }

  setFilter(part: Partial<Filter>): void {
    this.filter.value = { ...this.filter.value, ...part };
  }

  showAll(): void {
    this.filter.value = EVERYTHING;
    if (this.view.value.hidden.length) this.change("show hidden nodes", (view) => ({ ...view, hidden: [] }));
  }

  private touch(): void {
    if (this.source.mode !== "server") return;
    this.saveState.value = { kind: "changed" };
    clearTimeout(this.timer);
    this.timer = window.setTimeout(() => void this.flush(), 500);
  }

  /** Write what has changed now; ends when everything is written. */
  async flush(): Promise<void> {
    clearTimeout(this.timer);
    if (this.saveState.value.kind === "changed") {
      await this.write((id, revision, view) => this.source.autosave(id, revision, view), true);
    } else await this.writing;
  }

  /** The window is closing: write; what has to wait for another write is kept in the browser. */
  leave(): void {
    if (this.busy && this.saveState.value.kind === "changed" && this.graph.value) keep(this.graph.value, this.view.value, null);
    else void this.flush();
  }

  /** Write the view into the graph's own file. */
  async save(): Promise<void> {
    clearTimeout(this.timer);
    if (this.source.mode !== "server") return this.say("A page without a server cannot save into the file: export it instead.", true);
    await this.write((id, revision, view) => this.source.save(id, revision, view), false);
    const state = this.saveState.value;
    if (state.kind === "saved") this.say(`Saved into ${this.graph.value?.header.file}.`, false);
  }

  /** Writes follow each other: one that overtook another would look like another window's. */
  private writing: Promise<void> = Promise.resolve();
  private busy = false;

  private write(how: Write, ifChanged: boolean): Promise<void> {
    this.writing = this.writing.then(async () => {
      if (ifChanged && this.saveState.value.kind !== "changed") return;
      this.busy = true;
      await this.writeNow(how);
      this.busy = false;
    });
    return this.writing;
  }

  private async writeNow(how: Write): Promise<void> {
    const id = this.current.value;
    const graph = this.graph.value;
    if (id === null || !graph) return;
    const view = this.view.value;
    const first = this.saveState.value.kind !== "failed";
    this.saveState.value = { kind: "saving" };
    try {
      const answer = await how(id, this.revision, view);
      if (this.current.value !== id) return;
      this.revision = answer.revision;
      forget(graph);
      // What changed while this was on its way is written next.
      if (this.view.value === view) this.saveState.value = { kind: "saved", where: answer.where };
      else this.touch();
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      if (error instanceof Refusal && error.status === 409) {
        this.saveState.value = { kind: "failed", why, local: false };
        this.conflict.value = Number(error.body.revision ?? this.revision);
        return;
      }
      const local = keep(graph, view, this.revision);
      this.saveState.value = { kind: "failed", why, local };
      if (first) this.say(`${why}${/[.?!]$/.test(why) ? "" : "."} ${local ? "Your changes are kept in this browser." : "Your changes are only in this window."}`, true);
    }
  }

  /** The revision of another window that was faster; null if there is none. */
  readonly conflict = signal<number | null>(null);

  /** After a conflict: keep what this window has, or take what the file has. */
  async settle(mine: boolean): Promise<void> {
    const theirs = this.conflict.value;
    this.conflict.value = null;
    if (theirs === null || this.current.value === null) return;
    if (mine) {
      this.revision = theirs;
      this.saveState.value = { kind: "changed" };
      await this.flush();
    } else {
      this.saveState.value = { kind: "clean" };
      if (this.graph.value) forget(this.graph.value);
      await this.open(this.current.value);
    }
  }

  say(text: string, error: boolean): void {
    this.message.value = { text, error };
  }

  private async try(what: string, work: () => Promise<void>): Promise<void> {
    this.loading.value = what;
    try {
      await work();
    } catch (error) {
      this.say(error instanceof Error ? error.message : String(error), true);
    } finally {
      this.loading.value = null;
    }
  }
}
