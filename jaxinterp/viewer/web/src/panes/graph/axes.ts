// The axes: layers at the left, tokens below, fixed while the plot moves. Names are turned or thinned out when narrow.

import { mix, type Palette } from "../../draw/colour";
import { type GraphData, visible } from "../../model/bundle";
import type { View } from "./edges";
import { cut } from "./labels";
import { type Layout, rowCount } from "./layout";

export const LEFT = 38;
const FONT = 11;
const SLOPE = Math.PI / 4;
const MOST_LETTERS = 14;
const MOST_TURNED = 12;
/** Half the width of a letter, on the safe side. */
const HALF_LETTER = 3.2;

export interface Axis {
  /** Height kept for the token names below the plot. */
  height: number;
  turned: boolean;
}

const name = (graph: GraphData, position: number): string => (position < 0 ? "(none)" : visible(graph.tokens[position] ?? `${position}`));

const middleOf = (layout: Layout, column: number, view: View): number => ((layout.columns[column]! + layout.columns[column + 1]!) / 2) * view.k + view.x;

const UPRIGHT: Axis = { height: 24, turned: false };

/** The axis for these columns: names side by side where every one has room, else turned. */
export function axisFor(graph: GraphData, columns: Float32Array, firstPosition: number): Axis {
  let longest = 0;
  let fits = true;
  let end = Number.NEGATIVE_INFINITY;
  for (let column = 0; column + 1 < columns.length; column++) {
    const letters = Math.min(MOST_LETTERS, [...name(graph, column + firstPosition)].length);
    const middle = (columns[column]! + columns[column + 1]!) / 2;
    const half = letters * HALF_LETTER;
    fits &&= middle - half > end;
    end = middle + half + 4;
    longest = Math.max(longest, Math.min(MOST_TURNED, letters));
  }
  return fits ? UPRIGHT : { height: 18 + longest * 4.6, turned: true };
}

export function drawAxes(context: CanvasRenderingContext2D, graph: GraphData, layout: Layout, view: View, axis: Axis, palette: Palette): void {
  drawRows(context, graph, layout, view, palette);
  drawColumns(context, graph, layout, view, axis, palette);
  if (view.k > 1.001) drawStrip(context, layout, view, axis, palette);
}

function drawRows(context: CanvasRenderingContext2D, graph: GraphData, layout: Layout, view: View, palette: Palette): void {
  const rows = rowCount(graph);
  const rule = mix(palette.panel, palette.line, 0.8);
  const band = mix(palette.panel, palette.text, palette.dark ? 0.022 : 0.016);
  context.font = `${FONT}px ${palette.font}`;
  context.textAlign = "right";
  context.textBaseline = "middle";
  const sizes = (layout.rows[1]! - layout.rows[rows - 1]!) / Math.max(1, rows - 2);
  const gap = Math.max(1, Math.ceil(13 / Math.max(0.1, Math.abs(sizes) * view.k)));
  // Steps that people count in.
  const step = [1, 2, 5, 10, 20, 50, 100].find((s) => s >= gap) ?? gap;
  for (let row = 0; row < rows; row++) {
    const bottom = layout.rows[row]! * view.k + view.y;
    const top = layout.rows[row + 1]! * view.k + view.y;
    if (bottom < 0 || top > view.height) continue;
    const low = Math.min(bottom, view.height);
    const high = Math.max(top, 0);
    if (row % 2 === 1 && row < rows - 1) {
      context.fillStyle = band;
      context.fillRect(LEFT, high, view.width, low - high);
    }
    if (row === 0 || row === rows - 1) {
      context.fillStyle = rule;
      context.fillRect(LEFT, Math.round(row === 0 ? high : low), view.width, 1);
    }
    const middle = row === rows - 1 ? bottom - 13 * view.k : (top + bottom) / 2;
    context.fillStyle = palette.muted;
    if (row === 0) context.fillText("emb", LEFT - 6, Math.min(middle, view.height - 6));
    if (middle < 5 || middle > view.height - (row === 0 ? 0 : 16)) continue;
    if (row === 0) continue;
    if (row === rows - 1) context.fillText("out", LEFT - 6, middle);
    else if ((row - 1) % step === 0) context.fillText(`L${row - 1}`, LEFT - 6, middle);
  }
}

function drawColumns(context: CanvasRenderingContext2D, graph: GraphData, layout: Layout, view: View, axis: Axis, palette: Palette): void {
  const columns = layout.columns.length - 1;
  context.font = `${FONT}px ${palette.font}`;
  context.textBaseline = "middle";
  const rule = mix(palette.panel, palette.line, 0.55);
  let free = Number.NEGATIVE_INFINITY;
  for (let column = 0; column < columns; column++) {
    const left = layout.columns[column]! * view.k + view.x;
    const right = layout.columns[column + 1]! * view.k + view.x;
    if (right < 0 || left > view.width) continue;
    if (right - left > 9 && left > 0) {
      context.fillStyle = rule;
      context.fillRect(Math.round(LEFT + left), 0, 1, view.height);
    }
    const text = cut(name(graph, column + layout.firstPosition), axis.turned ? MOST_TURNED : MOST_LETTERS);
    const x = (left + right) / 2;
    if (x < 0 || x > view.width) continue;
    context.fillStyle = palette.muted;
    if (axis.turned) {
      if (x - free < FONT + 2.5) continue;
      free = x;
      context.save();
      context.translate(LEFT + x + 3, view.height + 8);
      context.rotate(-SLOPE);
      context.textAlign = "right";
      context.fillText(text, 0, 2);
      context.restore();
    } else {
      const width = context.measureText(text).width;
      if (LEFT + x - width / 2 < free) continue;
      free = LEFT + x + width / 2 + 2;
      context.textAlign = "center";
      context.fillText(text, LEFT + x, view.height + 12);
    }
  }
}

/** Which part of the prompt is in sight. */
function drawStrip(context: CanvasRenderingContext2D, layout: Layout, view: View, axis: Axis, palette: Palette): void {
  const y = view.height + axis.height - 4;
  context.fillStyle = palette.line;
  context.fillRect(LEFT, y, view.width, 3);
  context.fillStyle = palette.faint;
  context.fillRect(LEFT + (-view.x / (layout.width * view.k)) * view.width, y, Math.max(6, view.width / view.k), 3);
}

/** The token and the layer of one node, over the axes. */
export function drawPlace(context: CanvasRenderingContext2D, graph: GraphData, layout: Layout, node: number, view: View, palette: Palette, colour: string): void {
  const column = Math.max(layout.firstPosition, graph.position[node]!) - layout.firstPosition;
  const x = middleOf(layout, column, view);
  if (x < 0 || x > view.width) return;
  const text = `${cut(name(graph, column + layout.firstPosition), 24)}`;
  const number = `${column + layout.firstPosition}`;
  context.font = `600 ${FONT}px ${palette.font}`;
  context.textAlign = "left";
  context.textBaseline = "middle";
  const width = context.measureText(text).width;
  context.font = `${FONT - 1}px ${palette.font}`;
  const extra = context.measureText(number).width + 5;
  const whole = width + extra + 12;
  const left = Math.max(2, Math.min(LEFT + view.width - whole - 2, LEFT + x - whole / 2));
  context.fillStyle = palette.panel;
  context.strokeStyle = colour;
  context.lineWidth = 1;
  context.beginPath();
  context.roundRect(left, view.height + 3, whole, 18, 4);
  context.fill();
  context.stroke();
  context.fillStyle = palette.faint;
  context.fillText(number, left + 6 + width + 5, view.height + 12.5);
  context.font = `600 ${FONT}px ${palette.font}`;
  context.fillStyle = palette.text;
  context.fillText(text, left + 6, view.height + 12.5);
}
