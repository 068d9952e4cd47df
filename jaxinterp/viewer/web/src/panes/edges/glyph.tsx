// A node's mark, as the graph draws it: feature ○, error ◇, bias △, token and target □. Plain elements: there are many.

import { KINDS } from "../../model/bundle";

export function Glyph({ kind, pinned = false }: { kind: number; pinned?: boolean }) {
  const name = KINDS[kind] ?? "";
  return <span class={pinned ? `glyph of-${name} pinned` : `glyph of-${name}`} role="img" aria-label={pinned ? `${name}, pinned` : name} />;
}
