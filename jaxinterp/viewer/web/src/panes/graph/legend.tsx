// What the shapes and colours mean, in one line that is always there.

import { outlinePath } from "../../draw/glyph";

const SHAPES: [number, string][] = [
  [0, "feature"],
  [1, "error"],
  [2, "bias"],
  [3, "token, target"],
];

export function Legend() {
  return (
    <ul class="list legend" aria-label="Legend">
      {SHAPES.map(([kind, name]) => (
        <li key={name}>
          <svg viewBox="0 0 14 14" width="14" height="14" aria-hidden="true">
            <path class="legend-shape" d={outlinePath(kind, 7, 7, 4.6)} />
          </svg>
          {name}
        </li>
      ))}
      <li title="Size and darkness: how much of the influence on the targets runs through the node">
        <svg viewBox="0 0 44 14" width="44" height="14" aria-hidden="true">
          <path class="legend-dot d1" d={outlinePath(0, 6, 7, 3.2)} />
          <path class="legend-dot d2" d={outlinePath(0, 20, 7, 4)} />
          <path class="legend-dot d3" d={outlinePath(0, 35, 7, 5)} />
        </svg>
        influence
      </li>
      <li title="Colour: sign of the weight (dashed below zero, where edges are few). Width: its share of all that the target receives">
        <svg viewBox="0 0 30 14" width="30" height="14" aria-hidden="true">
          <path class="legend-line plus" d="M1 11C15 11 15 3 29 3" />
        </svg>
        raises
      </li>
      <li title="Colour: sign of the weight (dashed below zero, where edges are few). Width: its share of all that the target receives">
        <svg viewBox="0 0 30 14" width="30" height="14" aria-hidden="true">
          <path class="legend-line minus" d="M1 11C15 11 15 3 29 3" />
        </svg>
        lowers
      </li>
      <li>
        <svg viewBox="0 0 14 14" width="14" height="14" aria-hidden="true">
          <path class="legend-clicked" d={outlinePath(0, 7, 7, 5.4)} />
        </svg>
        selected
      </li>
      <li>
        <svg viewBox="0 0 14 14" width="14" height="14" aria-hidden="true">
          <path class="legend-pinned" d={outlinePath(0, 7, 7, 4.8)} />
        </svg>
        pinned
      </li>
    </ul>
  );
}
