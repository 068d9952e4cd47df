// Where graphs come from: our server, or data inside this very page (a single HTML file, a notebook).

import { readBundle, type GraphData } from "../model/bundle";
import type { View } from "../model/view";
import type { Comparison, Feature, Files, Heads, Job, LiveInfo, Proposed, Report, Rows } from "./types";

/** An answer that says no, with the server's one line. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly body: Record<string, unknown> = {},
  ) {
    super(message);
  }
}

export interface Source {
  /** Whether changes can be kept in a file, a graph traced, and so on. */
  readonly mode: "server" | "embedded";
  files(): Promise<Files>;
  graph(id: number): Promise<GraphData>;
  report(id: number): Promise<Report>;
  feature(id: number, node: number): Promise<Feature | null>;
  heads(id: number, target: number, source: number): Promise<Heads | null>;
  rows(id: number, node: number): Promise<Rows>;
  propose(id: number, atLeast: number, acrossPositions: boolean, features: number[] | null): Promise<Proposed>;
  compare(a: number, b: number): Promise<Comparison>;
  autosave(id: number, revision: number, view: View): Promise<{ revision: number; where: string }>;
  save(id: number, revision: number, view: View): Promise<{ revision: number; where: string }>;
  /** Address of a download of this form, null where there is none. */
  exportUrl(id: number, format: "json" | "html" | "jigraph"): string | null;
  liveInfo(): Promise<LiveInfo | null>;
  trace(settings: Record<string, unknown>): Promise<{ job: number }>;
  job(id: number): Promise<Job>;
  cancel(id: number): Promise<void>;
}

function meta(name: string): string {
  return document.querySelector<HTMLMetaElement>(`meta[name="${name}"]`)?.content ?? "";
}

class ServerSource implements Source {
  readonly mode = "server";
  private readonly token = meta("jaxinterp-token");

  private async ask(path: string, body?: unknown): Promise<Response> {
    const text = body === undefined ? undefined : JSON.stringify(body);
    const init: RequestInit =
      text === undefined
        ? {}
        : {
            method: "POST",
            body: text,
            headers: { "Content-Type": "application/json", "X-Jaxinterp-Token": this.token },
            // So that a last autosave survives the closing of the window; browsers allow this up to 64 KiB.
            keepalive: text.length < 60_000,
          };
    let answer: Response;
    try {
      answer = await fetch(path, init);
    } catch {
      throw new Refusal(0, "the server does not answer: is `jaxinterp view` still running?");
    }
    if (answer.ok) return answer;
    let found: Record<string, unknown> = {};
    try {
      found = (await answer.json()) as Record<string, unknown>;
    } catch {
      // not JSON: the status says enough
    }
    throw new Refusal(answer.status, String(found.error ?? `the server answered ${answer.status}`), found);
  }

  private async json<T>(path: string, body?: unknown): Promise<T> {
    return (await (await this.ask(path, body)).json()) as T;
  }

  private async orNull<T>(path: string): Promise<T | null> {
    try {
      return await this.json<T>(path);
    } catch (error) {
      if (error instanceof Refusal && error.status === 404) return null;
      throw error;
    }
  }

  files = (): Promise<Files> => this.json("/api/files");
  graph = async (id: number): Promise<GraphData> => readBundle(await (await this.ask(`/api/graph/${id}/bundle`)).arrayBuffer());
  report = (id: number): Promise<Report> => this.json(`/api/graph/${id}/report`);
  feature = (id: number, node: number): Promise<Feature | null> => this.json(`/api/feature?graph=${id}&node=${node}`);
  heads = (id: number, target: number, source: number): Promise<Heads | null> => this.json(`/api/graph/${id}/heads?target=${target}&source=${source}`);
  /** The graph and the lists ask for the same node: one answer serves both. */
  rows = (id: number, node: number): Promise<Rows> => {
    const path = `/api/graph/${id}/node/${node}`;
    if (this.lastRows?.path !== path) {
      const rows = this.json<Rows>(path);
      this.lastRows = { path, rows };
      rows.catch(() => {
        if (this.lastRows?.rows === rows) this.lastRows = null;
      });
    }
    return this.lastRows.rows;
  };
  private lastRows: { path: string; rows: Promise<Rows> } | null = null;
  propose = (id: number, atLeast: number, acrossPositions: boolean, features: number[] | null): Promise<Proposed> =>
    this.json(`/api/graph/${id}/propose`, { at_least: atLeast, across_positions: acrossPositions, features });
  compare = (a: number, b: number): Promise<Comparison> => this.json(`/api/compare?a=${a}&b=${b}`);
  autosave = (id: number, revision: number, view: View): Promise<{ revision: number; where: string }> =>
    this.json(`/api/graph/${id}/autosave`, { revision, view });
  save = (id: number, revision: number, view: View): Promise<{ revision: number; where: string }> => this.json(`/api/graph/${id}/save`, { revision, view });
  exportUrl = (id: number, format: string): string => `/api/graph/${id}/export?format=${format}`;
  liveInfo = (): Promise<LiveInfo | null> => this.orNull("/api/live/info");
  trace = (settings: Record<string, unknown>): Promise<{ job: number }> => this.json("/api/live/trace", settings);
  job = (id: number): Promise<Job> => this.json(`/api/live/job/${id}`);
  cancel = async (id: number): Promise<void> => void (await this.ask(`/api/live/job/${id}/cancel`, {}));
}

/** A comparison the other way round: A becomes B. */
export function turned({ pairs, only_a, only_b, edges, notes }: Comparison): Comparison {
  return {
    pairs: pairs.map(([a, b]) => [b, a]),
    only_a: only_b,
    only_b: only_a,
    edges: edges.map(([ta, sa, tb, sb, wa, wb]) => [tb, sb, ta, sa, wb, wa]),
    notes: notes.length ? ["In these lines B comes first.", ...notes] : notes,
  };
}

interface Embedded {
  graphs: { bundle: string; report: Report; features?: Record<string, Feature>; heads?: Record<string, Heads> }[];
  compare?: Comparison | null;
}

class EmbeddedSource implements Source {
  readonly mode = "embedded";
  private readonly data: Embedded;

  constructor() {
    const text = document.getElementById("jaxinterp-data")?.textContent;
    if (!text) throw new Error("this page holds no graph");
    this.data = JSON.parse(text) as Embedded;
  }

  private at(id: number): Embedded["graphs"][number] {
    const found = this.data.graphs[id];
    if (!found) throw new Refusal(404, `this page holds ${this.data.graphs.length} graphs, none with number ${id}`);
    return found;
  }

  files = async (): Promise<Files> => {
    const files = [];
    for (let id = 0; id < this.data.graphs.length; id++) {
      const { header, n, m } = await this.graph(id);
      files.push({ id, file: header.file, slug: header.slug, prompt: header.prompt, nodes: n, edges: m, error: null });
    }
    return { files, live: false, version: "" };
  };

  graph = async (id: number): Promise<GraphData> => {
    const packed = Uint8Array.from(atob(this.at(id).bundle), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    return readBundle(await new Response(stream).arrayBuffer());
  };

  report = async (id: number): Promise<Report> => this.at(id).report;
  feature = async (id: number, node: number): Promise<Feature | null> => this.at(id).features?.[String(node)] ?? null;
  heads = async (id: number, target: number, source: number): Promise<Heads | null> => this.at(id).heads?.[`${target},${source}`] ?? null;
  rows = async (): Promise<Rows> => this.refuse();
  propose = async (): Promise<Proposed> => this.refuse();
  compare = async (a: number, b: number): Promise<Comparison> => {
    const { compare } = this.data;
    if (!compare || a + b !== 1) return this.refuse();
    return a === 0 ? compare : turned(compare);
  };
  autosave = async (): Promise<{ revision: number; where: string }> => this.refuse();
  save = async (): Promise<{ revision: number; where: string }> => this.refuse();
  exportUrl = (): null => null;
  liveInfo = async (): Promise<null> => null;
  trace = async (): Promise<{ job: number }> => this.refuse();
  job = async (): Promise<Job> => this.refuse();
  cancel = async (): Promise<void> => this.refuse();

  private refuse(): never {
    throw new Refusal(501, "this needs `jaxinterp view`: the page is a file of its own, without a server");
  }
}

export function openSource(): Source {
  return meta("jaxinterp-mode") === "embedded" ? new EmbeddedSource() : new ServerSource();
}
