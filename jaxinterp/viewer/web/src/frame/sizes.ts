// How the panes share the window: one divider between the columns, one between the rows of each column.

import { signal } from "@preact/signals";
import { recall, remember } from "./memory";

/** Parts of the whole taken by the left column, and by the upper pane of the left and the right column. */
export interface Sizes {
  columns: number;
  left: number;
  right: number;
}

export const DEFAULT: Sizes = { columns: 0.62, left: 0.56, right: 0.5 };

/** Sizes from a text that was kept; what makes no sense is the default. */
export function readSizes(text: string | null): Sizes {
  let found: Partial<Sizes> = {};
  try {
    found = (JSON.parse(text ?? "{}") as Partial<Sizes> | null) ?? {};
  } catch {
    // an older page's setting
  }
  const part = (name: keyof Sizes): number => {
    const x = found[name];
    return typeof x === "number" && x > 0 && x < 1 ? limit(x) : DEFAULT[name];
  };
  return { columns: part("columns"), left: part("left"), right: part("right") };
}

export const limit = (x: number): number => Math.min(0.85, Math.max(0.15, x));

export const sizes = signal<Sizes>(readSizes(recall("sizes")));

export function resize(part: Partial<Sizes>): void {
  sizes.value = { ...sizes.peek(), ...part };
  remember("sizes", JSON.stringify(sizes.peek()));
}
