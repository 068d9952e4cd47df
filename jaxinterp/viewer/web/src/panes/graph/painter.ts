// The drawing of the graph pane. Five canvases: axes, edges, nodes, what the selection shows, and names on top.
// Only what has changed is drawn again; selecting a node draws its edges and leaves the rest, dimmed by the compositor.

import { fit } from "../../draw/canvas";
import { palette } from "../../draw/colour";
import type { GraphData } from "../../model/bundle";
import type { Session } from "../../model/session";
import { type Axis, axisFor, drawAxes, LEFT } from "./axes";
import { EdgePass, type EdgeList, edgesOf, strongest, type View } from "./edges";
import { Grid } from "./hit";
import { type Layout, place } from "./layout";
import { drawNeighbours, drawNodes, drawProbabilities, fillSteps, radius } from "./nodes";
import { drawTop } from "./top";

export const AXES = 1;
export const EDGES = 2;
export const NODES = 4;
export const FOCUS = 8;
export const TOP = 16;
export const ALL = 31;

/** Space over the targets for their probabilities. */
const BAND = 52;
const BARS = 26;
const FRAME_MS = 12;

export interface Sheets {
  axes: HTMLCanvasElement;
  edges: HTMLCanvasElement;
  nodes: HTMLCanvasElement;
  focus: HTMLCanvasElement;
  top: HTMLCanvasElement;
}

export interface Rectangle {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

export class Painter {
  graph: GraphData | null = null;
  layout: Layout | null = null;
  grid: Grid | null = null;
  view: View = { k: 1, x: 0, y: 0, width: 1, height: 1 };
  rubber: Rectangle | null = null;
  axis: Axis = { height: 24, turned: false };
  focusList: EdgeList | null = null;

  private width = 0;
  private height = 0;
  private steps: Uint8Array = new Uint8Array(0);
  private context: EdgeList | null = null;
  private dirty = 0;
  private frame = 0;
  private edgePass: EdgePass | null = null;
  private focusPass: EdgePass | null = null;
  /** The view of the last full drawing of edges and nodes, for moving their pictures while the user zooms. */
  private drawn: View | null = null;
  private heavy = false;
  private settle = 0;
  private marks: string[] = [];

  constructor(
    private readonly session: Session,
    private readonly sheets: Sheets,
  ) {}

  setGraph(graph: GraphData | null): void {
    this.graph = graph;
    this.steps = graph ? fillSteps(graph) : new Uint8Array(0);
    this.view = { ...this.view, k: 1, x: 0, y: 0 };
    this.arrange();
    this.marks.push("jaxinterp:first-drawing");
  }

  /** The pane's size in CSS pixels; true if it is another one than before. */
  setSize(width: number, height: number): boolean {
    if (width === this.width && height === this.height) return false;
    const { k, x, y, width: w, height: h } = this.view;
    this.width = width;
    this.height = height;
    this.arrange();
    this.view = { ...this.view, k, x: (x / w) * this.view.width, y: (y / h) * this.view.height };
    return true;
  }

  private arrange(): void {
    const graph = this.graph;
    if (!graph || this.width < 40 || this.height < 40) return;
    const plotWidth = this.width - LEFT - 4;
    const arranged = (axis: number): Layout => {
      const plotHeight = Math.max(40, this.height - axis);
      this.view = { ...this.view, width: plotWidth, height: plotHeight };
      return place(graph, plotWidth, plotHeight, Math.min(BAND, plotHeight * 0.25));
    };
    // The axis depends on the columns, and the height on the axis; the columns do not depend on the height.
    const first = arranged(this.axis.height);
    const axis = axisFor(graph, first.columns, first.firstPosition);
    this.layout = axis.height === this.axis.height ? first : arranged(axis.height);
    this.axis = axis;
    this.drawn = null;
    this.setShown();
  }

  /** After the set of visible nodes has changed. */
  setShown(): void {
    const { graph, layout } = this;
    if (!graph || !layout) return;
    this.grid = new Grid(layout.x, layout.y, this.session.shown.peek(), layout.width, layout.height);
    this.setEdges();
    this.setFocus(false);
    this.ask(ALL);
  }

  setEdges(): void {
    if (!this.graph) return;
    this.context = strongest(this.graph, this.session.edgeCount.peek(), this.session.shown.peek());
    this.ask(EDGES);
  }

  setFocus(byClick: boolean, list: EdgeList | null = null): void {
    const node = this.session.clicked.peek();
    const seen = node !== null && !!this.session.shown.peek()[node];
    this.focusList = !this.graph || !seen ? null : (list ?? edgesOf(this.graph, node, this.session.shown.peek()));
    const dim = !!this.focusList?.order.length;
    this.sheets.edges.style.opacity = dim ? "0.16" : "1";
    this.sheets.nodes.style.opacity = dim ? "0.5" : "1";
    if (byClick) this.marks.push("jaxinterp:click-drawn");
    this.ask(FOCUS | TOP);
  }

  setView(k: number, x: number, y: number): void {
    this.view = { ...this.view, k, x, y };
    clearTimeout(this.settle);
    if (this.heavy && this.drawn) {
      // The pictures move at once; a sharp drawing follows when the movement pauses.
      const s = k / this.drawn.k;
      const shift = `translate(${x - this.drawn.x * s}px, ${y - this.drawn.y * s}px) scale(${s})`;
      for (const sheet of [this.sheets.edges, this.sheets.nodes, this.sheets.focus]) sheet.style.transform = shift;
      this.settle = window.setTimeout(() => this.ask(ALL), 110);
      this.ask(AXES | TOP);
    } else this.ask(ALL);
  }

  ask(what: number): void {
    this.dirty |= what;
    if (!this.frame) this.frame = requestAnimationFrame(() => this.draw());
  }

  stop(): void {
    cancelAnimationFrame(this.frame);
    clearTimeout(this.settle);
    this.frame = -1;
  }

  /** Draw what is asked for. whole: without pauses, for printing and pictures. */
  draw(whole = false): void {
    this.frame = 0;
    const { graph, layout, view, sheets } = this;
    if (!graph || !layout) return;
    const began = performance.now();
    const until = whole ? Number.POSITIVE_INFINITY : began + FRAME_MS;
    const colours = palette.peek();
    const shown = this.session.shown.peek();
    const node = this.session.clicked.peek();
    if (this.dirty & (EDGES | NODES | FOCUS) && this.drawn !== view) {
      for (const sheet of [sheets.edges, sheets.nodes, sheets.focus]) sheet.style.transform = "";
      this.drawn = view;
      this.dirty |= EDGES | NODES | FOCUS;
    }
    const todo = this.dirty;
    this.dirty = 0;
    if (todo & AXES) drawAxes(fit(sheets.axes, this.width, this.height, whole), graph, layout, view, this.axis, colours);
    if (todo & NODES) {
      const context = fit(sheets.nodes, view.width, view.height, whole);
      drawNodes(context, graph, layout, shown, this.steps, view, colours);
      drawProbabilities(context, graph, layout, shown, view, BARS, colours);
    }
    if (todo & FOCUS) {
      const context = fit(sheets.focus, view.width, view.height, whole);
      this.focusPass = null;
      if (this.focusList && node !== null) {
        this.focusPass = new EdgePass(this.focusList, layout, view, colours, true);
        this.focusPass.begin(context, whole);
        drawNeighbours(context, graph, layout, this.focusList, node, view, colours);
      }
    }
    if (todo & EDGES && this.context) {
      const context = fit(sheets.edges, view.width, view.height, whole);
      this.edgePass = new EdgePass(this.context, layout, view, colours, false);
      this.edgePass.begin(context, whole);
    }
    this.focusPass = this.go(this.focusPass, sheets.focus, until);
    this.edgePass = this.go(this.edgePass, sheets.edges, until);
    if (todo & TOP) drawTop(fit(sheets.top, this.width, this.height, whole), this.session, this);
    if (todo & (EDGES | NODES)) this.heavy = performance.now() - began > 14 || this.edgePass !== null;
    for (const mark of this.marks.splice(0)) performance.mark(mark);
    // More edges wait for the next frame.
    if (this.focusPass || this.edgePass) this.ask(0);
  }

  private go(pass: EdgePass | null, sheet: HTMLCanvasElement, until: number): EdgePass | null {
    if (!pass) return null;
    pass.more(sheet.getContext("2d")!, until);
    return pass.done ? null : pass;
  }

  /** Place of a node in the plot, CSS pixels. */
  placeOf(node: number): [number, number, number] | null {
    const { layout, view } = this;
    if (!layout) return null;
    return [layout.x[node]! * view.k + view.x, layout.y[node]! * view.k + view.y, radius(layout, node, view.k)];
  }

  /** How many glyphs stand in a rectangle of the plot. */
  countWithin(left: number, top: number, right: number, bottom: number): number {
    const { grid, view } = this;
    return grid ? grid.within((left - view.x) / view.k, (top - view.y) / view.k, (right - view.x) / view.k, (bottom - view.y) / view.k).length : 0;
  }

  nodeAt(x: number, y: number): number | null {
    const { grid, view } = this;
    return grid ? grid.nearest((x - view.x) / view.k, (y - view.y) / view.k, 11 / view.k) : null;
  }
}
