// Boxes and edges as SVG elements.

import { palette, signed } from "../../draw/colour";
import { outlinePath } from "../../draw/glyph";
import { EMBEDDING, type GraphData } from "../../model/bundle";
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
  label: string;
  on: Record<string, (event: never) => void>;
  onOpen: () => void;
  open: boolean;
}

export function BoxShape({ shape, graph, most, state, label, on, onOpen, open }: BoxProps) {
  const { box, width, height } = shape;
  const parts = partsOf(shape, graph, most, palette.value.font);
  const rect = (d: number, name: string) => <rect class={name} x={-width / 2 + d} y={-height / 2 - d} width={width} height={height} rx={7} />;
  return (
    <g class={`sg-box ${state}`} transform={`translate(${shape.x.toFixed(1)},${shape.y.toFixed(1)})`} data-box={box.key} role="button" tabIndex={0} aria-label={label} {...on}>
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
        <g
          class="sg-more"
          data-action="expand"
          aria-label={open ? "Close the list of members" : "List the members"}
          role="button"
          onPointerDown={(event) => event.stopPropagation()}
          onClick={(event) => {
            event.stopPropagation();
            onOpen();
          }}
        >
          <rect x={parts.more.x - 7} y={parts.more.y - 9} width={18} height={18} />
          <path d={open ? `M${parts.more.x - 3},${parts.more.y + 2}l4,-4l4,4` : `M${parts.more.x - 3},${parts.more.y - 2}l4,4l4,-4`} />
        </g>
      )}
    </g>
  );
}

export interface EdgeProps {
  curve: Curve;
  state: string;
  label: string;
  onHover: (over: boolean) => void;
  onClick: () => void;
}

export function EdgeShape({ curve, state, label, onHover, onClick }: EdgeProps) {
  const colour = signed(curve.edge.weight);
  return (
    <g class={`sg-edge ${state}`} onPointerEnter={() => onHover(true)} onPointerLeave={() => onHover(false)} onClick={onClick}>
      <title>{label}</title>
      <path class="sg-hit" d={curve.d} />
      <path class="sg-line" d={curve.d} stroke={colour} stroke-width={curve.width} />
      <path class="sg-head" d={curve.head} fill={colour} />
    </g>
  );
}
