// Title and legend around a picture.

import { type Palette, percent, signedOn } from "../../draw/colour";
import { outlinePath } from "../../draw/glyph";
import { BIAS, EMBEDDING, ERROR, FEATURE, visible } from "../../model/bundle";
import type { Session } from "../../model/session";
import { textWidth, wrap } from "../subgraph/text";
import type { Mark, Picture } from "./picture";

const MARGIN = 24;
const TITLE = 15;
const TEXT = 12;
const SMALL = 11;

/** What was drawn from (0, 0) on, with the prompt and the reading above and the legend below. notes: lines below. */
export function framed(session: Session, body: { width: number; height: number; marks: Mark[] }, palette: Palette, notes: string[], bars: boolean): Picture {
  const graph = session.graph.value!;
  const { header } = graph;
  const width = Math.max(body.width, 560) + 2 * MARGIN;
  const inner = width - 2 * MARGIN;
  const marks: Mark[] = [];
  let y = MARGIN;
  const write = (text: string, size: number, fill: string, bold = false, lines = 3): void => {
    for (const line of wrap(text, inner, `${bold ? 600 : 400} ${size}px ${palette.font}`, lines)) {
      y += size * 1.3;
      marks.push({ kind: "text", x: MARGIN, y, text: line, size, fill, bold });
    }
  };
  const prompt = header.prompt || graph.tokens.join("") || header.file;
  write(visible(prompt), TITLE, palette.text, true);
  const reading = session.report.value?.reading.text;
  if (reading) write(reading, TEXT, palette.muted);
  y += 18;
  const dx = MARGIN + (inner - body.width) / 2;
  for (const mark of body.marks) marks.push(shifted(mark, dx, y));
  y += body.height + 20;
  y = legend(marks, palette, y, inner, bars);
  for (const note of notes) write(note, SMALL, palette.muted);
  write([header.slug || header.file, header.scan, `${graph.header.n_layers} layers`, "jaxinterp"].filter(Boolean).join(" · "), SMALL, palette.faint);
  return { title: `${prompt}: attribution graph`, width: Math.ceil(width), height: Math.ceil(y + MARGIN), background: palette.panel, font: palette.font, marks };
}

function legend(marks: Mark[], palette: Palette, y: number, inner: number, bars: boolean): number {
  const font = `400 ${SMALL}px ${palette.font}`;
  let x = MARGIN;
  let line = y;
  const item = (width: number, text: string, draw: (x: number, y: number) => void): void => {
    const whole = width + 6 + textWidth(text, font);
    if (x > MARGIN && x + whole > MARGIN + inner) {
      x = MARGIN;
      line += 20;
    }
    draw(x, line - 4);
    marks.push({ kind: "text", x: x + width + 6, y: line, text, size: SMALL, fill: palette.muted });
    x += whole + 18;
  };
  const glyph = (kind: number, text: string): void => item(11, text, (gx, gy) => marks.push({ kind: "path", d: outlinePath(kind, gx + 5.5, gy, 4.4), stroke: palette.muted, line: 1.3 }));
  glyph(FEATURE, "feature");
  glyph(ERROR, "error");
  if (!bars) glyph(BIAS, "bias");
  glyph(EMBEDDING, "token, next token");
  if (bars) item(24, "influence", (gx, gy) => marks.push({ kind: "rect", x: gx, y: gy - 1, width: 24, height: 2, round: 1, fill: palette.muted }));
  const steps = [-0.6, -0.3, -0.1, -0.02, 0.02, 0.1, 0.3, 0.6];
  item(steps.length * 9, `part of the target's input, from ${percent(-0.6)} to +${percent(0.6)}`, (gx, gy) =>
    steps.forEach((s, k) => marks.push({ kind: "rect", x: gx + 9 * k, y: gy - 3, width: 9, height: 6, fill: signedOn(palette, s) })),
  );
  if (bars) item(24, "dashed: below zero", (gx, gy) => marks.push({ kind: "path", d: `M${gx} ${gy}L${gx + 24} ${gy}`, stroke: palette.negative, line: 2, dash: [7, 3.5] }));
  return line + 6;
}

/** A mark moved; paths are moved by their numbers, which all come in absolute pairs or as relative steps. */
export function shifted(mark: Mark, dx: number, dy: number): Mark {
  if (mark.kind !== "path") return { ...mark, x: mark.x + dx, y: mark.y + dy };
  return { ...mark, d: movePath(mark.d, dx, dy) };
}

/** Path data moved by (dx, dy). Knows M, L, C, Q, A and Z, and the relative h, v, l. */
export function movePath(d: string, dx: number, dy: number): string {
  return d.replace(/([MLCQAZhvl])([^MLCQAZhvl]*)/g, (_, command: string, rest: string) => {
    const values = (rest.match(/-?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?/gi) ?? []).map(Number);
    const moved = values.map((v, i) => {
      if (command === "A") return i % 7 === 5 ? v + dx : i % 7 === 6 ? v + dy : v;
      if ("MLCQ".includes(command)) return v + (i % 2 ? dy : dx);
      return v;
    });
    return command + moved.map((v) => Math.round(v * 100) / 100).join(" ");
  });
}
