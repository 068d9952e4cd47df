// The body of the trust card.

import type { ComponentChildren } from "preact";
import { count as countText, percent, sizeText } from "../../draw/colour";
import type { Report } from "../../io/types";
import { visible, type GraphData } from "../../model/bundle";
import { Command } from "./copy";
import { columns, score } from "./state";

interface CardProps {
  graph: GraphData;
  report: Report;
}

export function Card({ graph, report }: CardProps) {
  const { header } = graph;
  return (
    <>
      <Scores scores={report.scores} />
      <Warnings warnings={report.warnings} />
      <Errors graph={graph} report={report} />
      {report.checks.length > 0 && (
        <Part title="Checks">
          <ul class="list checks">
            {report.checks.map((check) => (
              <li key={check.name}>
                <span class={`check-mark ${check.ok === null ? "faint" : check.ok ? "good" : "bad"}`} role="img" aria-label={check.ok === null ? "not measurable" : check.ok ? "holds" : "fails"}>
                  {check.ok === null ? "–" : check.ok ? "✓" : "✗"}
                </span>
                <span class="muted">{check.name}</span>
                <span>{check.text}</span>
                <span class="number muted">{check.value === null ? "" : check.value.toExponential(1)}</span>
              </li>
            ))}
          </ul>
        </Part>
      )}
      <Part title="What was left out">
        <Lines lines={[...report.pruned, ...report.caps]} none="Nothing is recorded as left out." />
      </Part>
      {(header.repairs.length > 0 || header.loose_links > 0) && (
        <Part title="The file">
          <Lines
            lines={[
              ...header.repairs.map((line) => `Repaired: ${line}`),
              ...(header.loose_links > 0 ? [`${countText(header.loose_links)} ${header.loose_links === 1 ? "link leads" : "links lead"} to nodes that are not in the file.`] : []),
            ]}
            none=""
          />
        </Part>
      )}
      {report.reproduce && (
        <Part title="Make it again">
          <Command text={report.reproduce} label="command that makes the graph again" />
        </Part>
      )}
      <div class="trust-tables">
        <Pairs title="Made from" pairs={report.provenance} none="The file does not say what it was made from." />
        <Pairs title="Settings" pairs={[["nodes", countText(graph.n)], ["edges", countText(header.n_edges)], ...report.settings]} none="" />
      </div>
    </>
  );
}

function Part({ title, children }: { title: string; children: ComponentChildren }) {
  return (
    <section class="trust-part">
      <h3 class="caption">{title}</h3>
      {children}
    </section>
  );
}

const MEANINGS: [string, string, string, boolean][] = [
  ["replacement", "Replacement", "of what reaches the targets, the share that starts at tokens and passes only through features, not through errors", true],
  ["completeness", "Completeness", "of the inputs of all nodes, weighted by their influence, the share that comes from features, tokens and biases, not from errors", true],
  ["path_length", "Path length", "the number of edges between a token and a target, on average", false],
];

const MORE: Record<string, string> = {
  without_bias: "without bias nodes",
  with_left_out: "with features that were not expanded counted as errors",
  pruned: "with pruned nodes counted as errors; the number above is of the graph before pruning",
};

function Scores({ scores }: { scores: Report["scores"] }) {
  return (
    <div class="scores">
      {MEANINGS.map(([key, name, meaning, part]) => {
        const value = scores[key] ?? null;
        return (
          <div class="score" key={key}>
            <p class="score-name">{name}</p>
            <p class="score-value number">{score(value)}</p>
            {part && (
              <div class="score-bar" aria-hidden="true">
                <span style={{ width: `${100 * Math.max(0, Math.min(1, value ?? 0))}%` }} />
              </div>
            )}
            <p class="muted">{value === null ? `Not known: ${meaning}.` : `${meaning[0]!.toUpperCase()}${meaning.slice(1)}.`}</p>
            {Object.entries(MORE).map(([ending, words]) => {
              const other = scores[`${key}_${ending}`] ?? null;
              return other === null ? null : (
                <p class="score-more" key={ending}>
                  <span class="number">{score(other)}</span> <span class="muted">{words}</span>
                </p>
              );
            })}
          </div>
        );
      })}
    </div>
  );
}

function Warnings({ warnings }: { warnings: string[] }) {
  if (!warnings.length) return null;
  return (
    <ul class="list trust-warnings" aria-label="Warnings">
      {warnings.map((line) => (
        <li key={line}>{line}</li>
      ))}
    </ul>
  );
}

function Errors({ graph, report }: CardProps) {
  const errors = report.error_share;
  if (!errors || errors.total === null) return null;
  const layers = columns(errors.by_layer, graph.header.n_layers);
  const most = Math.max(0, ...layers.map((one) => one.share));
  const worst = layers.find((one) => one.share === most);
  const parts = graph.header.parts.filter((part) => errors.by_layer.some(([, of]) => of === part));
  const mostAt = Math.max(0, ...errors.by_position);
  return (
    <Part title="Errors: what the dictionary does not explain">
      <p>
        <b class="number">{percent(errors.total)}</b>
        {" of the targets' influence ends in error nodes"}
        {most > 0 && worst ? `, most of it at layer ${worst.layer} (${percent(worst.share)}).` : "."}
      </p>
      {most > 0 && (
        <>
          <div class="error-layers" role="img" aria-label={`Error share by layer: ${layers.map((one) => `${one.layer}: ${percent(one.share)}`).join(", ")}`}>
            {layers.map((one) => (
              <span class="error-layer" key={one.layer} title={`layer ${one.layer}: ${one.parts.map(({ part, share }) => `${part} ${percent(share)}`).join(", ") || "none"}`}>
                {one.parts.map(({ part, share }) => (
                  <span key={part} class={`error-part ${part}`} style={{ height: `${(100 * share) / most}%` }} />
                ))}
              </span>
            ))}
          </div>
          <p class="error-axis number faint">
            <span>layer 0</span>
            {parts.length > 1 && (
              <span class="error-key">
                {parts.map((part) => (
                  <span key={part}>
                    <span class={`error-swatch ${part}`} /> {part}
                  </span>
                ))}
              </span>
            )}
            <span>{`layer ${layers.length - 1}`}</span>
          </p>
        </>
      )}
      {mostAt > 0 && (
        <p class="error-tokens" aria-label="Error share by token">
          {errors.by_position.map((share, i) => (
            <span
              key={i} class="error-token" title={`${visible(graph.tokens[i] ?? "")}: ${percent(share)}`}
              style={{ backgroundColor: `color-mix(in srgb, var(--warn) ${Math.round((55 * share) / mostAt)}%, transparent)` }}
            >
              {visible(graph.tokens[i] ?? String(i))}
            </span>
          ))}
        </p>
      )}
    </Part>
  );
}

function Lines({ lines, none }: { lines: string[]; none: string }) {
  if (!lines.length) return <p class="muted">{none}</p>;
  return (
    <ul class="list trust-lines">
      {lines.map((line, i) => (
        <li key={i}>{line}</li>
      ))}
    </ul>
  );
}

function Pairs({ title, pairs, none }: { title: string; pairs: [string, string][]; none: string }) {
  return (
    <Part title={title}>
      {pairs.length === 0 && <p class="muted">{none}</p>}
      <dl class="trust-pairs">
        {pairs.map(([key, value], i) => (
          <div key={`${key} ${i}`}>
            <dt class="muted">{key.replace(/_/g, " ")}</dt>
            <dd class={/^[\w:+./-]{24,}$/.test(value) ? "mono" : undefined}>{short(value)}</dd>
          </div>
        ))}
      </dl>
    </Part>
  );
}

/** A long digest is cut in the middle; its whole text can be read in the file. */
function short(value: string): string {
  if (Number.isFinite(Number(value)) && /\.\d{5,}/.test(value)) return sizeText(Number(value));
  return /^(sha256:)?[0-9a-f]{40,}$/.test(value) ? `${value.slice(0, 20)}…${value.slice(-6)}` : value;
}
