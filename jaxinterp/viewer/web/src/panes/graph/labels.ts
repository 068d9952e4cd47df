// Names beside nodes: each goes where it covers no other, or is left out; the important ones choose first. Pure.

export interface Wanted {
  node: number;
  text: string;
  x: number;
  y: number;
  r: number;
  width: number;
  /** Higher chooses first; from 2 on a label is placed even where it covers something. */
  weight: number;
}

export interface Placed extends Wanted {
  left: number;
  top: number;
}

const HEIGHT = 14;
const SAME_TEXT = 90;

interface Rect {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

const meets = (a: Rect, b: Rect): boolean => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

/** Places for labels inside width × height. covers: how many glyphs a rectangle would cover; of the free spots the
 * first that covers the fewest is taken. */
export function placeLabels(wanted: Wanted[], width: number, height: number, covers: (left: number, top: number, right: number, bottom: number) => number = () => 0): Placed[] {
  const placed: Placed[] = [];
  const taken: Rect[] = wanted.map((w) => ({ left: w.x - w.r, right: w.x + w.r, top: w.y - w.r, bottom: w.y + w.r }));
  const sorted = [...wanted].sort((a, b) => b.weight - a.weight || a.node - b.node);
  for (const label of sorted) {
    // One of several equal names close together says it all.
    if (label.weight < 2 && placed.some((p) => p.text === label.text && Math.hypot(p.x - label.x, p.y - label.y) < SAME_TEXT)) continue;
    const own = wanted.indexOf(label);
    let best: Rect | null = null;
    let least = Number.POSITIVE_INFINITY;
    for (const [dx, dy] of spots(label)) {
      const left = label.x + dx;
      const top = label.y + dy;
      const rect = { left: left - 2, right: left + label.width + 2, top, bottom: top + HEIGHT };
      if (rect.left < 0 || rect.right > width || rect.top < 0 || rect.bottom > height) continue;
      if (taken.some((other, k) => k !== own && meets(rect, other))) continue;
      const count = covers(rect.left, rect.top + 1, rect.right, rect.bottom - 1);
      if (count >= least) continue;
      least = count;
      best = rect;
      if (count === 0) break;
    }
    if (!best && label.weight >= 2) {
      const left = Math.max(2, Math.min(width - label.width - 2, label.x + label.r + 4));
      const top = Math.max(0, Math.min(height - HEIGHT, label.y - HEIGHT / 2));
      best = { left: left - 2, right: left + label.width + 2, top, bottom: top + HEIGHT };
    }
    if (!best) continue;
    taken.push(best);
    placed.push({ ...label, left: best.left + 2, top: best.top });
  }
  return placed;
}

function spots({ r, width }: Wanted): [number, number][] {
  const gap = r + 4;
  const middle = -HEIGHT / 2;
  return [
    [gap, middle],
    [-gap - width, middle],
    [-width / 2, -gap - HEIGHT + 2],
    [-width / 2, gap - 2],
    [gap - 2, -gap - HEIGHT + 6],
    [-gap - width + 2, -gap - HEIGHT + 6],
    [gap - 2, gap - 6],
    [-gap - width + 2, gap - 6],
    [gap, middle - HEIGHT],
    [gap, middle + HEIGHT],
    [-gap - width, middle - HEIGHT],
    [-gap - width, middle + HEIGHT],
  ];
}

/** A text cut to about so many characters, with an ellipsis. */
export function cut(text: string, most: number): string {
  const letters = [...text];
  return letters.length <= most ? text : `${letters.slice(0, most - 1).join("")}…`;
}
