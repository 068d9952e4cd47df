// Boxes and edges as SVG elements.

import { count, palette, percent, signed, sizeText } from "../../draw/colour";
import { outlinePath } from "../../draw/glyph";
import { EMBEDDING, KINDS, TARGET, type GraphData, visible } from "../../model/bundle";
import type { Session } from "../../model/session";
import type { Box } from "./boxes";
import { barred, type Curve, MOST_GLYPHS, nameFont, noteFont, type Shape } from "./geometry";
import { cut, textWidth } from "./text";

/** Where the parts of a box stand: lines of the name, the note, glyphs, the bar. Relative to its middle. */
export function partsOf(shape: Shape, graph: GraphData, most: number, font: string) {
  const { box, lines, width, height, compact } = shape;
  const top = -height / 2 + (compact ? 4.5 : 6);
  const left = -width / 2 + 10;
  const small = box.kind === EMBEDDING && !box.group;
  const indent = box.group ? 0 : 15;
  const lineY = (i: number): number => top + 17 * i + 12.5;
  const noteX = compact ? left + indent + textWidth(lines[0]!, nameFont(font)) + 8 : left;
  const noteY = compact ? lineY(0) : top + 17 * lines.length + 11;
  const dots = Math.min(box.members.length, MOST_GLYPHS);
  const glyphs = box.group
    ? box.members.slice(0, dots).map((node, i) => outlinePath(graph.kind[node]!, width / 2 - 26 - 8 * (dots - 1 - i), noteY - 3.6, 2.6))
    : [outlinePath(box.kind, left + 4.2, lineY(0) - 4.4, 4)];
  const bar = barred(box) && most > 0 ? Math.max(0, Math.min(1, box.share / most)) * (width - 20) : 0;
  return {
    lines: lines.map((text, i) => ({ text, x: left + indent, y: lineY(i) })),
    note: small || !box.note ? null : { text: cut(box.note, 158, noteFont(font)), x: noteX, y: noteY },
    glyphs,
    more: box.group ? { x: width / 2 - 16, y: noteY - 3.5 } : null,
    bar: bar > 0.5 ? { x: left, y: height / 2 - 5, width: bar } : null,
  };
}

export interface BoxProps {
  shape: Shape;
  graph: GraphData;
  /** Largest share of a box, the full length of the bar. */
  most: number;
  state: string;
  /** Whether its members are listed. */
  open: boolean;
}

/** In SVG the attribute has no capital letter. */
const FOCUSABLE = { tabindex: 0 };

/** A box. It reads a signal and gets plain values, so it is drawn again only when one of them changes. */
export function BoxShape({ shape, graph, most, state, open }: BoxProps) {
  const { box, width, height } = shape;
  const parts = partsOf(shape, graph, most, palette.value.font);
  const label = describe(shape, graph, state.includes("marked"));
  const rect = (d: number, name: string) => <rect class={name} x={-width / 2 + d} y={-height / 2 - d} width={width} height={height} rx={7} />;
  return (
    <g class={`sg-box ${state}`} transform={`translate(${shape.x.toFixed(1)},${shape.y.toFixed(1)})`} data-box={box.key} role="button" {...FOCUSABLE} aria-label={label}>
      <title>{label}</title>
      {box.group && rect(6, "sg-stack")}
      {box.group && rect(3, "sg-stack")}
      {rect(0, "sg-frame")}
      {parts.lines.map((line, i) => (
        <text key={i} class="sg-name" x={line.x} y={line.y}>
          {line.text}
        </text>
      ))}
      {parts.note && (
        <text class="sg-note" x={parts.note.x} y={parts.note.y}>
          {parts.note.text}
        </text>
      )}
      {parts.glyphs.map((d, i) => (
        <path key={i} class="sg-glyph" d={d} />
      ))}
      {parts.bar && <rect class="sg-bar" x={parts.bar.x} y={parts.bar.y} width={parts.bar.width} height={2} rx={1} />}
      {parts.more && (
        <g class="sg-more" data-action="expand" aria-hidden="true">
          <rect x={parts.more.x - 7} y={parts.more.y - 9} width={18} height={18} />
          <path d={open ? `M${parts.more.x - 3},${parts.more.y + 2}l4,-4l4,4` : `M${parts.more.x - 3},${parts.more.y - 2}l4,4l4,-4`} />
        </g>
      )}
    </g>
  );
}

function describe(shape: Shape, graph: GraphData, marked: boolean): string {
  const { box } = shape;
  const words = [box.name];
  if (box.group) words.push(`group of ${count(box.members.length)} nodes at ${places(graph, box.members)}`);
  else words.push(KINDS[box.kind] ?? "node", `${graph.place(box.members[0]!)} at token ${graph.position[box.members[0]!]}`);
  if (Number.isFinite(box.activation)) words.push(`activation ${sizeText(box.activation)}`);
  if (Number.isFinite(box.share)) words.push(box.kind === TARGET ? `probability ${percent(box.share)}` : `influence ${percent(box.share)}${box.group ? ", its members' added up" : ""}`);
  if (marked) words.push("marked");
  return words.join(", ");
}

/** The tokens that nodes stand at. */
function places(graph: GraphData, members: readonly number[]): string {
  const found = [...new Set(members.map((i) => graph.position[i]!))].sort((a, b) => a - b);
  const texts = found.slice(0, 3).map((at) => `“${visible(graph.tokens[at] ?? "").replace(/^·|·$/g, "")}” (${at})`);
  return `${texts.join(", ")}${found.length > 3 ? ` and ${found.length - 3} more tokens` : ""}`;
}

export interface EdgeProps {
  curve: Curve;
  session: Session;
  source: Box;
  target: Box;
  state: string;
}

/** Dashes of an edge below zero: its sign is seen without colours too. */
export const dashes = ({ width, edge }: Curve): number[] | undefined => (edge.weight < 0 ? [5 + 1.5 * width, 2.5 + 0.8 * width] : undefined);

export function EdgeShape({ curve, session, source, target, state }: EdgeProps) {
  // Read here, so that the edge follows the theme and is left alone otherwise.
  void palette.value;
  const { weight } = curve.edge;
  const colour = signed(weight);
  const single = !source.group && !target.group;
  return (
    <g
      class={`sg-edge ${state}`}
      data-edge={`${source.key}\n${target.key}`}
      onClick={() => {
        session.click(target.members[0]!);
        // Between single nodes an edge of the graph itself can be opened.
        if (single) session.edge.value = { source: source.members[0]!, target: target.members[0]! };
      }}
    >
      <title>{`${source.name} → ${target.name}: ${weight > 0 ? "+" : ""}${percent(weight)} of its input`}</title>
      <path class="sg-hit" d={curve.d} />
      <path class="sg-line" d={curve.d} stroke={colour} stroke-width={curve.width} stroke-dasharray={dashes(curve)?.join(" ")} />
      <path class="sg-head" d={curve.head} fill={colour} />
    </g>
  );
}
