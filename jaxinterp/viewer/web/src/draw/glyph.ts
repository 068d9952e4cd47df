// The shapes of nodes: features ○, errors ◇, biases △, tokens and targets □.

import { BIAS, EMBEDDING, ERROR, TARGET } from "../model/bundle";

export interface Pen {
  moveTo(x: number, y: number): void;
  lineTo(x: number, y: number): void;
  arc(x: number, y: number, r: number, from: number, to: number): void;
  rect(x: number, y: number, w: number, h: number): void;
  closePath(): void;
}

/** Add a node's outline to a path. */
export function outline(pen: Pen, kind: number, x: number, y: number, r: number): void {
  if (kind === ERROR) {
    const d = r * 1.2;
    pen.moveTo(x, y - d);
    pen.lineTo(x + d, y);
    pen.lineTo(x, y + d);
    pen.lineTo(x - d, y);
    pen.closePath();
  } else if (kind === BIAS) {
    const d = r * 1.1;
    pen.moveTo(x, y - d);
    pen.lineTo(x + d, y + d * 0.8);
    pen.lineTo(x - d, y + d * 0.8);
    pen.closePath();
  } else if (kind === EMBEDDING || kind === TARGET) {
    pen.rect(x - r * 0.92, y - r * 0.92, r * 1.84, r * 1.84);
  } else {
    pen.moveTo(x + r, y);
    pen.arc(x, y, r, 0, 2 * Math.PI);
  }
}

/** The same as SVG path data. */
export function outlinePath(kind: number, x: number, y: number, r: number): string {
  const steps: string[] = [];
  const at = (px: number, py: number): string => `${px.toFixed(2)} ${py.toFixed(2)}`;
  outline(
    {
      moveTo: (px, py) => void steps.push(`M${at(px, py)}`),
      lineTo: (px, py) => void steps.push(`L${at(px, py)}`),
      closePath: () => void steps.push("Z"),
      rect: (px, py, w, h) => void steps.push(`M${at(px, py)}h${w.toFixed(2)}v${h.toFixed(2)}h${(-w).toFixed(2)}Z`),
      arc: (px, py, radius) => void steps.push(`A${at(radius, radius)} 0 1 1 ${at(px - radius, py)}A${at(radius, radius)} 0 1 1 ${at(px + radius, py)}Z`),
    },
    kind,
    x,
    y,
    r,
  );
  return steps.join("");
}
