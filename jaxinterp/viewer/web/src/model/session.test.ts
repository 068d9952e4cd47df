import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Refusal, type Source } from "../io/source";
import type { Report } from "../io/types";
import { GraphData, type Header } from "./bundle";
import { Session } from "./session";
import { EMPTY, group, hide, pin, type View } from "./view";

/** A graph of features 0-2 and a target 3, without edges. */
function graph(header: Partial<Header> = {}): GraphData {
  const sizes: Record<string, ["u1" | "i4" | "f4" | "f8", number[]]> = {
    kind: ["u1", [0, 0, 1, 4]], part: ["u1", [1, 1, 1, 1]], layer: ["i4", [0, 1, 1, 2]], position: ["i4", [0, 1, 1, 1]],
    index: ["f8", [5, 6, -1, 0]], activation: ["f4", [0, 0, 0, 0]], influence: ["f4", [0, 0, 0, 0]], share: ["f4", [0.2, 0.9, 0.95, 0]],
    probability: ["f4", [0, 0, 0, 0.5]], value: ["f4", [0, 0, 0, 0]], constant: ["f4", [0, 0, 0, 0]], left_out: ["f4", [0, 0, 0, 0]],
    input_total: ["f4", [0, 0, 0, 0]], in_start: ["i4", [0, 0, 0, 0, 0]], in_source: ["i4", []], weight: ["f4", []],
    out_start: ["i4", [0, 0, 0, 0, 0]], out_edge: ["i4", []], strong: ["i4", []],
  };
  const arrays: Header["arrays"] = {};
  let offset = 0;
  for (const [name, [dtype, values]] of Object.entries(sizes)) {
    arrays[name] = { dtype, length: values.length, offset };
    offset += 64;
  }
  const buffer = new ArrayBuffer(offset);
  for (const [name, [dtype, values]] of Object.entries(sizes)) {
    const kinds = { u1: Uint8Array, i4: Int32Array, f4: Float32Array, f8: Float64Array };
    new kinds[dtype](buffer, arrays[name]!.offset, values.length).set(values);
  }
  const known = {
    file: "g.json", slug: "g", prompt: "a b", tokens: ["a", " bee"], n_layers: 2, parts: ["attention", "mlp", "residual"], bias_names: [],
    labels: { "0": "capital", "3": "x" }, ids: ["i0", "i1", "i2", "i3"], view: {}, saved_from: "none" as const, revision: 3, arrays,
  };
  return new GraphData({ ...known, ...header } as Header, buffer, 0);
}

const REPORT = { automatic: { pinned: [0, 3], groups: [{ name: "auto", members: [0] }] } } as unknown as Report;

/** A source that keeps what it is told; `refuse` makes the next writes fail. */
class Fake {
  readonly mode = "server";
  kept: { how: string; id: number; revision: number; view: View }[] = [];
  revision = 3;
  refuse: Refusal | null = null;
  hold: Promise<void> | null = null;
  header: Partial<Header> = {};
  files = async () => ({
    files: [0, 1].map((id) => ({ id, file: `${id}.json`, slug: "", prompt: "", nodes: 4, edges: 0, error: id ? null : "broken" })),
    live: false,
    version: "",
  });
  graph = async () => graph(this.header);
  report = async () => REPORT;
  private write = (how: string) => async (id: number, revision: number, view: View) => {
    await this.hold;
    if (this.refuse) throw this.refuse;
    if (revision !== this.revision) throw new Refusal(409, "another window was faster", { revision: this.revision });
    this.revision++;
    this.kept.push({ how, id, revision: this.revision, view });
    return { revision: this.revision, where: how === "save" ? "file" : "sidecar" };
  };
  autosave = this.write("autosave");
  save = this.write("save");
}

let source: Fake;
let session: Session;
let stored: Map<string, string>;

beforeEach(async () => {
  vi.useFakeTimers();
  stored = new Map();
  vi.stubGlobal("localStorage", {
    getItem: (key: string) => stored.get(key) ?? null,
    setItem: (key: string, value: string) => void stored.set(key, value),
    removeItem: (key: string) => void stored.delete(key),
  });
  vi.stubGlobal("window", globalThis);
  vi.stubGlobal("document", { title: "" });
  vi.stubGlobal("location", { hash: "" });
  vi.stubGlobal("history", { replaceState: () => {} });
  source = new Fake();
  session = new Session(source as unknown as Source);
  await session.start();
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe("opening", () => {
  it("takes the first graph that can be opened, its top target and the automatic subgraph", () => {
    expect(session.current.value).toBe(1);
    expect(session.clicked.value).toBe(3);
    expect(session.view.value.groups).toEqual([{ name: "auto", members: [0] }]);
    expect(session.undoName.value).toBe(null);
    expect(session.saveState.value.kind).toBe("clean");
    expect(document.title).toContain("a b");
  });

  it("leaves a saved view as it is", async () => {
    source.header = { view: { pinned: [1], clicked: 0 }, saved_from: "file" };
    await session.open(1);
    expect([session.view.value.pinned, session.clicked.value]).toEqual([[1], 0]);
  });

  it("pins nothing where the user has unpinned everything", async () => {
    source.header = { view: {}, saved_from: "sidecar" };
    await session.open(1);
    expect(session.view.value.pinned).toEqual([]);
  });

  it("shows the graph that was chosen last, whichever comes first", async () => {
    const waiting: (() => void)[] = [];
    source.graph = () => new Promise((done) => waiting.push(() => done(graph({ file: `${waiting.length}.json` }))));
    const first = session.open(7);
    const second = session.open(8);
    await vi.advanceTimersByTimeAsync(0);
    for (const answer of waiting.reverse()) answer();
    await Promise.all([first, second]);
    expect(session.current.value).toBe(8);
  });

  it("follows the address, and says why a file of it cannot be opened", async () => {
    session.current.value = 5;
    vi.stubGlobal("location", { hash: "#graph=1" });
    await session.follow();
    expect(session.current.value).toBe(1);
    vi.stubGlobal("location", { hash: "#graph=0" });
    await session.follow();
    expect([session.current.value, session.message.value]).toEqual([1, { text: "broken", error: true }]);
  });
});

describe("keeping changes", () => {
  it("writes half a second after the last change, once", async () => {
    session.change("hide", (view) => hide(view, [1]));
    await vi.advanceTimersByTimeAsync(300);
    session.change("hide", (view) => hide(view, [2]));
    await vi.advanceTimersByTimeAsync(400);
    expect(source.kept).toEqual([]);
    await vi.advanceTimersByTimeAsync(200);
    expect(source.kept.map((k) => [k.how, k.view.hidden])).toEqual([["autosave", [1, 2]]]);
    expect(session.saveState.value).toEqual({ kind: "saved", where: "sidecar" });
  });

  it("writes what changed while a write was on its way", async () => {
    let release = () => {};
    source.hold = new Promise((done) => {
      release = done;
    });
    session.change("hide", (view) => hide(view, [1]));
    await vi.advanceTimersByTimeAsync(600);
    session.change("hide", (view) => hide(view, [2]));
    release();
    source.hold = null;
    await vi.advanceTimersByTimeAsync(2000);
    expect(source.kept.at(-1)!.view.hidden).toEqual([1, 2]);
    expect(session.conflict.value).toBe(null);
    expect(session.saveState.value.kind).toBe("saved");
  });

  it("a slow write does not count as another window", async () => {
    let release = () => {};
    source.hold = new Promise((done) => {
      release = done;
    });
    session.change("pin", (view) => pin(view, [1]));
    const saving = session.save();
    await vi.advanceTimersByTimeAsync(0);
    session.change("hide", (view) => hide(view, [1]));
    await vi.advanceTimersByTimeAsync(3000);
    release();
    await saving;
    await vi.advanceTimersByTimeAsync(3000);
    expect(session.conflict.value).toBe(null);
    expect(source.kept.map((k) => [k.how, k.view.hidden])).toEqual([
      ["save", []],
      ["autosave", [1]],
    ]);
    expect(session.saveState.value.kind).toBe("saved");
  });

  it("undo and redo are kept too", async () => {
    session.change("hide", (view) => hide(view, [1]));
    session.undo();
    await vi.advanceTimersByTimeAsync(600);
    expect(source.kept.at(-1)!.view.hidden).toEqual([]);
    session.redo();
    await vi.advanceTimersByTimeAsync(600);
    expect(source.kept.at(-1)!.view.hidden).toEqual([1]);
  });

  it("a change is written before another graph is opened", async () => {
    session.change("hide", (view) => hide(view, [1]));
    await session.open(1);
    expect(source.kept).toHaveLength(1);
  });

  it("saving goes into the file", async () => {
    session.change("pin", (view) => pin(view, [2]));
    await session.save();
    expect(source.kept.map((k) => k.how)).toEqual(["save"]);
    expect(session.saveState.value).toEqual({ kind: "saved", where: "file" });
    await vi.advanceTimersByTimeAsync(2000);
    expect(source.kept).toHaveLength(1);
  });
});

describe("closing the window", () => {
  it("sends what has changed", async () => {
    session.change("hide", (view) => hide(view, [1]));
    session.leave();
    await vi.advanceTimersByTimeAsync(0);
    expect(source.kept).toHaveLength(1);
  });

  it("keeps in the browser what would have to wait", async () => {
    source.hold = new Promise(() => {});
    void session.save();
    await vi.advanceTimersByTimeAsync(0);
    session.change("hide", (view) => hide(view, [1]));
    session.leave();
    source.hold = null;
    const again = new Session(source as unknown as Source);
    await again.start();
    expect(again.view.value.hidden).toEqual([1]);
  });
});

describe("when it cannot be written", () => {
  it("keeps changes in the browser and brings them back", async () => {
    source.refuse = new Refusal(423, "the folder is read-only");
    session.change("hide", (view) => hide(view, [1]));
    await vi.advanceTimersByTimeAsync(600);
    expect(session.saveState.value).toEqual({ kind: "failed", why: "the folder is read-only", local: true });
    expect(session.message.value?.error).toBe(true);
    const again = new Session(source as unknown as Source);
    await again.start();
    expect(again.view.value.hidden).toEqual([1]);
  });

  it("writes what it brings back, and asks where another window has saved since", async () => {
    source.header = { writable: true };
    source.refuse = new Refusal(0, "is it still running?");
    session.change("hide", (view) => hide(view, [1]));
    await vi.advanceTimersByTimeAsync(600);
    expect(session.message.value?.text).toBe("is it still running? Your changes are kept in this browser.");
    source.refuse = null;
    const other = new Session(source as unknown as Source);
    source.revision = 5; // of another window
    source.header = { writable: true, revision: 5 };
    await other.start();
    await vi.advanceTimersByTimeAsync(600);
    expect(other.conflict.value).toBe(5);
    await other.settle(false);
    expect([other.view.value.hidden, stored.size]).toEqual([[], 0]);
    session.change("hide", (view) => hide(view, [2]));
    await vi.advanceTimersByTimeAsync(600);
    await session.settle(true);
    expect(source.kept.at(-1)!.view.hidden).toEqual([1, 2]);
  });

  it("what was kept in the browser is forgotten once it is written", async () => {
    source.refuse = new Refusal(0, "the server does not answer");
    session.change("hide", (view) => hide(view, [1]));
    await vi.advanceTimersByTimeAsync(600);
    expect(stored.size).toBe(1);
    source.refuse = null;
    session.change("hide", (view) => hide(view, [2]));
    await vi.advanceTimersByTimeAsync(600);
    expect([stored.size, source.kept.at(-1)!.view.hidden]).toEqual([0, [1, 2]]);
  });

  it("of two windows the slower one asks; mine overwrites", async () => {
    source.revision = 9;
    session.change("hide", (view) => hide(view, [1]));
    await vi.advanceTimersByTimeAsync(600);
    expect(session.conflict.value).toBe(9);
    expect(source.kept).toEqual([]);
    await session.settle(true);
    expect(source.kept.map((k) => [k.revision, k.view.hidden])).toEqual([[10, [1]]]);
  });

  it("of two windows the slower one asks; theirs replaces", async () => {
    source.revision = 9;
    session.change("hide", (view) => hide(view, [1]));
    await vi.advanceTimersByTimeAsync(600);
    source.header = { view: { pinned: [2] }, saved_from: "sidecar", revision: 9 };
    await session.settle(false);
    expect([session.view.value.hidden, session.view.value.pinned]).toEqual([[], [2]]);
    expect(source.kept).toEqual([]);
  });
});

describe("filters", () => {
  const shown = () => [...session.shown.value];

  it("search words all have to be there, in label, place, token or id", () => {
    session.setFilter({ text: "CAP #5" });
    expect(shown()).toEqual([1, 0, 0, 0]);
    session.setFilter({ text: "bee i1" });
    expect(shown()).toEqual([0, 1, 0, 0]);
  });

  it("kinds, layers, positions and influence", () => {
    session.setFilter({ kinds: new Set([0]) });
    expect(shown()).toEqual([1, 1, 0, 0]);
    session.setFilter({ kinds: new Set([0, 1, 4]), layers: [1, 1] });
    expect(shown()).toEqual([0, 1, 1, 1]);
    session.setFilter({ layers: null, positions: new Set([0]) });
    expect(shown()).toEqual([1, 0, 0, 0]);
    session.setFilter({ positions: null, density: 0.5 });
    expect(shown()).toEqual([1, 0, 0, 1]);
  });

  it("counts what is not shown, and shows all again", () => {
    session.change("hide", (view) => hide(view, [0]));
    session.setFilter({ kinds: new Set([0]) });
    expect(session.hiddenCounts.value.all).toBe(3);
    session.showAll();
    expect(session.hiddenCounts.value).toEqual({ all: 0, byHand: 0, byFilter: 0 });
  });
});

describe("names", () => {
  it("a label of the user's, else the file's, else the place", () => {
    expect([0, 1, 2].map((i) => session.name(i))).toEqual(["capital", "L1 #6", "error L1"]);
    session.change("label", (view) => ({ ...view, labels: { "0": "mine" } }));
    expect(session.name(0)).toBe("mine");
  });

  it("a click is no step of the history", () => {
    session.change("group", (view) => group(view, "g", [1]));
    session.click(2);
    session.undo();
    expect([session.clicked.value, session.view.value.groups]).toEqual([2, [{ name: "auto", members: [0] }]]);
    expect(EMPTY.pinned).toEqual([]);
  });
});
