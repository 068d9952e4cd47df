// A node's mark, as the graph draws it: feature ○, error ◇, bias △, token and target □.

import { BIAS, ERROR, FEATURE, KINDS, TARGET } from "../../model/bundle";

const SHAPES: Record<number, string> = {
  [FEATURE]: "M9.8 6a3.8 3.8 0 1 1-7.6 0 3.8 3.8 0 0 1 7.6 0z",
  [ERROR]: "M6 1.2 10.8 6 6 10.8 1.2 6z",
  [BIAS]: "M6 1.8 10.6 10H1.4z",
};
const BOX = "M2.2 2.2h7.6v7.6H2.2z";

export function Glyph({ kind, pinned = false }: { kind: number; pinned?: boolean }) {
  return (
    <svg class={`glyph${pinned ? " pinned" : ""}${kind === TARGET ? " target" : ""}`} viewBox="0 0 12 12" width="12" height="12" role="img" aria-label={`${KINDS[kind]}${pinned ? ", pinned" : ""}`}>
      <path d={SHAPES[kind] ?? BOX} />
    </svg>
  );
}
