// The graph in one line: its strongest path, node by node, and how much of the influence it and the errors carry.

import type { PaneProps } from "../app";
import { Icon } from "../draw/icons";
import { stopsOf } from "./reading-text";

export function Reading({ session }: PaneProps) {
  const graph = session.graph.value;
  const report = session.report.value;
  if (!graph) return null;
  if (!report) return <p class="reading muted">{session.loading.value ? "Reading the graph…" : "Nothing could be said of this graph."}</p>;
  const { nodes, stops, text } = report.reading;
  const parts = stopsOf(text, stops ?? [], nodes, graph.n);
  const warnings = report.warnings ?? [];
  const clicked = session.clicked.value;
  return (
    <div class="reading" id="reading" aria-label={`Reading: ${text}`}>
      {parts ? (
        <p class="reading-line">
          {parts.stops.map(({ name, node }, i) => (
            <span class="reading-step" key={i}>
              {i > 0 && (
                <span class="reading-arrow" aria-hidden="true">
                  →
                </span>
              )}
              <button
                type="button"
                class="reading-node"
                data-node={node}
                aria-pressed={clicked === node}
                title={`${session.name(node)}: select`}
                onClick={() => session.click(node)}
                onMouseEnter={() => {
                  session.hovered.value = node;
                }}
                onMouseLeave={() => {
                  session.hovered.value = null;
                }}
              >
                {name}
              </button>
            </span>
          ))}
          <span class="reading-rest">{parts.rest}</span>
        </p>
      ) : (
        <p class="reading-line">{text}</p>
      )}
      {warnings.length > 0 && (
        <p class="reading-warning warn ellipsis" title={warnings.join("\n")}>
          <Icon name="warning" size={14} /> <span class="ellipsis">{warnings.length === 1 ? warnings[0] : `${warnings[0]} (and ${warnings.length - 1} more)`}</span>
        </p>
      )}
    </div>
  );
}
