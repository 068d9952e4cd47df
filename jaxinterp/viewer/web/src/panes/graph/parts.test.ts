import { describe, expect, it } from "vitest";
import { small } from "../../testing/graphs";
import { fit } from "../../draw/canvas";
import { EdgePass, edgesOf, emphasised, level, sortEdges, strongest } from "./edges";
import { atStep, missingFrom, stepOf } from "./foot";
import { cut, placeLabels, type Wanted } from "./labels";
import { place } from "./layout";
import { neighbour, strongestInput, strongestOutput } from "./neighbours";

const all = new Uint8Array(7).fill(1);

describe("edges", () => {
  it("sorts by class and keeps every edge once", () => {
    const share = Float32Array.of(0.9, -0.01, 0.2, -0.6, 0.0001, 0);
    const list = sortEdges(new Int32Array(6), new Int32Array(6), share);
    expect([...list.order].sort()).toEqual([0, 1, 2, 3, 4, 5]);
    const levels = [...list.order].map((i) => level(share[i]!));
    expect(levels).toEqual([...levels].sort((a, b) => a - b));
    expect(list.start.at(-1)).toBe(6);
  });

  it("takes the strongest between visible nodes and all of a node", () => {
    const graph = small();
    const ends = (list: { source: Int32Array; target: Int32Array }): string[] => [...list.source].map((s, k) => `${s}>${list.target[k]}`);
    expect(ends(strongest(graph, 2, all))).toEqual(["2>6", "0>2"]);
    const withoutTexas = Uint8Array.from(all);
    withoutTexas[0] = 0;
    const without = ends(strongest(graph, 2, withoutTexas));
    expect(without[0]).toBe("2>6");
    expect(without.length).toBe(2); // the next ones come up
    expect(without.some((edge) => edge.startsWith("0>"))).toBe(false);
    expect(ends(edgesOf(graph, 2, all)).sort()).toEqual(["0>2", "1>2", "2>6", "5>2"]);
  });

  it("gives shares of the target's input", () => {
    const graph = small();
    const list = edgesOf(graph, 6, all);
    const shares = new Map([...list.source].map((s, k) => [s, list.share[k]!]));
    expect(shares.get(2)).toBeCloseTo(4 / 6);
    expect(shares.get(3)).toBeCloseTo(-2 / 6);
  });
});

describe("emphasis", () => {
  const wide = (share: Float32Array): number => {
    const list = emphasised(sortEdges(new Int32Array(share.length), new Int32Array(share.length), share));
    return list.order.length - list.start[12]!;
  };

  it("makes the strongest edge of a node with many inputs wide, but not all of equal ones", () => {
    expect(wide(Float32Array.from({ length: 300 }, (_, i) => (i === 7 ? -0.03 : 0.001)))).toBe(1);
    expect(wide(new Float32Array(300).fill(1 / 300))).toBeLessThanOrEqual(40);
    expect(wide(Float32Array.of(0.9, 0.05, 0.05))).toBe(1);
    expect(wide(new Float32Array(0))).toBe(0);
  });
});

describe("drawing", () => {
  /** What is called on a context, in order, with the values that matter here. */
  const recorded = () => {
    const calls: string[] = [];
    const context = new Proxy({} as Record<string, unknown>, {
      get: (_, name) => (...values: unknown[]) => void calls.push(`${String(name)}(${name === "setLineDash" ? values : ""})`),
      set: () => true,
    });
    return { calls, context: context as unknown as CanvasRenderingContext2D };
  };

  it("dashes negative edges of a selection, and draws all at once for paper", () => {
    const graph = small();
    const layout = place(graph, 800, 400, 50);
    const view = { k: 1, x: 0, y: 0, width: 800, height: 400 };
    const palette = { positive: "#000000", negative: "#000000" } as never;
    const list = edgesOf(graph, 6, all);
    const { calls, context } = recorded();
    new EdgePass(list, layout, view, palette, true).begin(context);
    const dashes = calls.filter((call) => call.startsWith("setLineDash")).sort();
    expect(dashes.length).toBe(2);
    expect(dashes[0]).toBe("setLineDash()");
    expect(dashes[1]).toMatch(/^setLineDash\(\d/);
    const many = { ...sortEdges(new Int32Array(5000), new Int32Array(5000).fill(6), new Float32Array(5000).fill(0.1)) };
    const half = new EdgePass(many, layout, view, palette, true);
    half.begin(recorded().context);
    expect(half.done).toBe(false);
    const whole = new EdgePass(many, layout, view, palette, true);
    whole.begin(recorded().context, true);
    expect(whole.done).toBe(true);
  });

  it("records no clearing for paper, where it would wipe what lies below", () => {
    const canvas = (calls: string[], context: CanvasRenderingContext2D) => ({ width: 10, height: 10, style: {}, getContext: () => (calls.push("context"), context) }) as unknown as HTMLCanvasElement;
    (globalThis as unknown as { window: unknown }).window ??= { devicePixelRatio: 1 };
    const screen = recorded();
    fit(canvas(screen.calls, screen.context), 10, 10);
    expect(screen.calls).toContain("clearRect()");
    const paper = recorded();
    fit(canvas(paper.calls, paper.context), 10, 10, true);
    expect(paper.calls).not.toContain("clearRect()");
  });
});

describe("moving with keys", () => {
  const graph = small();
  const places = place(graph, 800, 400, 50);

  it("goes to the neighbours and stops at the border", () => {
    expect(neighbour(graph, 4, "right", all, places)).toBe(5);
    expect(neighbour(graph, 5, "left", all, places)).toBe(4);
    expect(neighbour(graph, 5, "right", all, places)).toBeNull();
    expect(neighbour(graph, 4, "down", all, places)).toBeNull();
    expect(neighbour(graph, 6, "up", all, places)).toBeNull();
    expect([0, 1]).toContain(neighbour(graph, 4, "up", all, places));
    expect([2, 3]).toContain(neighbour(graph, 6, "down", all, places));
  });

  it("passes hidden nodes over", () => {
    const mask = Uint8Array.from(all);
    mask[0] = mask[1] = 0;
    expect([2, 3]).toContain(neighbour(graph, 4, "up", mask, places));
  });

  it("follows the strongest edges", () => {
    expect(strongestInput(graph, 6, all)).toBe(2);
    expect(strongestInput(graph, 4, all)).toBeNull();
    expect(strongestOutput(graph, 4, all)).toBe(0);
    expect(strongestOutput(graph, 6, all)).toBeNull();
  });
});

describe("labels", () => {
  const label = (node: number, x: number, y: number, weight = 0.5, text = `label ${node}`): Wanted => ({ node, text, x, y, r: 5, width: 40, weight });

  it("never overlap and stay inside", () => {
    const wanted = Array.from({ length: 60 }, (_, i) => label(i, (i * 53) % 300, (i * 29) % 200));
    const placed = placeLabels(wanted, 300, 200);
    expect(placed.length).toBeGreaterThan(10);
    for (const a of placed) {
      expect(a.left).toBeGreaterThanOrEqual(0);
      expect(a.left + a.width).toBeLessThanOrEqual(300);
      for (const b of placed) {
        if (a !== b) expect(a.left < b.left + b.width && b.left < a.left + a.width && a.top < b.top + 14 && b.top < a.top + 14).toBe(false);
      }
    }
  });

  it("place the important one whatever is there and equal names once", () => {
    const wanted = [label(0, 20, 20, 3), label(1, 24, 22, 0.9, "same"), label(2, 60, 60, 0.8, "same")];
    const placed = placeLabels(wanted, 70, 70);
    expect(placed.map((p) => p.node)).toContain(0);
    expect(placed.filter((p) => p.text === "same").length).toBeLessThanOrEqual(1);
  });

  it("cut by letters, not by bytes", () => {
    expect(cut("abc", 3)).toBe("abc");
    expect(cut("🙂🙂🙂🙂", 3)).toBe("🙂🙂…");
  });
});

describe("the foot", () => {
  it("has a slider from few to all", () => {
    for (const most of [0, 1, 7, 311, 20000]) {
      expect(atStep(200, most)).toBe(most);
      expect(atStep(0, most)).toBe(Math.min(10, most));
      for (const edges of [10, 100, 311]) if (edges <= most) expect(Math.abs(atStep(stepOf(edges, most), most) - edges) / edges).toBeLessThan(0.05);
    }
  });

  it("tells all that is not there", () => {
    const { header } = small();
    expect(missingFrom(header, header.n_edges)).toEqual([]);
    const lines = missingFrom({ ...header, n_edges: 5_000_000, loose_links: 3, repairs: ["2 ids were not unique"], pruned: { hidden_nodes: { feature: 400, error: 1 }, hidden_edges: 12 } }, 2_000_000);
    expect(lines).toEqual(["pruned from the file: 401 nodes, 12 edges", "weakest 3,000,000 edges are fetched node by node", "3 links of the file lead nowhere", "2 ids were not unique"]);
    expect(missingFrom({ ...header, n_edges: header.n_edges + 5 }, header.n_edges, false)).toEqual(["weakest 5 edges are not in this page"]);
  });
});
