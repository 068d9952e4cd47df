// The small charts of a feature: histogram, logits, decoder norms.

import { count as countText, percent, sizeText } from "../../draw/colour";
import { visible } from "../../model/bundle";
import type { Feature } from "../../io/types";
import { tokenText } from "./bytes";
import "./charts.css";
import { alongBins, heights, percentile, percentileText } from "./percentile";

/** Activations on this feature's axis, with that on this prompt. */
export function Histogram({ feature, activation }: { feature: Feature; activation: number }) {
  const { histogram } = feature;
  const known = Number.isFinite(activation);
  const words = known ? percentileText(percentile(feature, activation)) : "";
  if (!histogram || !histogram.counts.length) {
    if (!words && feature.frequency === null) return null;
  }
  const edges = histogram?.edges ?? [];
  const mark = known && histogram ? alongBins(edges, activation, histogram.log) : null;
  return (
    <section class="feature-part" aria-label="Activations">
      <h3 class="caption">
        Activations
        {histogram && <span class="scale-note">{histogram.log ? "log · log count" : "log count"}</span>}
      </h3>
      {histogram && histogram.counts.length > 0 && (
        <div class="histogram" role="img" aria-label={`Histogram of activations from ${sizeText(edges[0])} to ${sizeText(edges.at(-1))}, counts on a logarithmic scale${known ? `; on this prompt ${sizeText(activation)}` : ""}`}>
          <div class="histogram-bars">
            {heights(histogram.counts).map((height, i) => (
              <span key={i} class="histogram-bar" title={`${sizeText(edges[i])} to ${sizeText(edges[i + 1])}: ${countText(histogram.counts[i]!)}`}>
                <span style={{ height: `${100 * height}%` }} />
              </span>
            ))}
            {mark !== null && <span class="histogram-mark" style={{ left: `${100 * mark}%` }} />}
          </div>
          <div class="histogram-axis number faint">
            {[0, 0.5, 1].map((part) => (
              <span key={part}>{sizeText(edges[Math.round(part * (edges.length - 1))])}</span>
            ))}
          </div>
        </div>
      )}
      <p class="chart-note number">
        {known && (
          <>
            <span class="mark-key" aria-hidden="true" />
            {`${sizeText(activation)} here${words ? `, ${words}` : ""}. `}
          </>
        )}
        <span class="muted">
          {[
            feature.frequency === null ? "" : `Active on ${rare(feature.frequency)} of tokens`,
            feature.max_activation === null ? "" : `at most ${sizeText(feature.max_activation)}`,
          ].filter(Boolean).join(" · ")}
        </span>
      </p>
    </section>
  );
}

/** A share of tokens: 2.1 %, 0.021 %, 3.0e-6. */
function rare(x: number): string {
  if (x === 0) return "none";
  return x >= 1e-3 ? percent(x) : x >= 1e-5 ? `${sizeText(100 * x)} %` : sizeText(x);
}

type Logits = [string, number | null][];

export function LogitLists({ feature }: { feature: Feature }) {
  const { top_logits: top, bottom_logits: bottom } = feature;
  if (!top.length && !bottom.length) return null;
  const most = Math.max(0, ...[...top, ...bottom].map(([, value]) => Math.abs(value ?? 0)));
  return (
    <section class="feature-part" aria-label="Logit effects">
      <div class="logit-lists">
        <LogitList name="Raises" hint="tokens whose logit the feature's decoder raises most" logits={top} most={most} />
        <LogitList name="Lowers" hint="tokens whose logit it lowers most" logits={bottom} most={most} />
      </div>
    </section>
  );
}

function LogitList({ name, hint, logits, most }: { name: string; hint: string; logits: Logits; most: number }) {
  if (!logits.length) return null;
  const valued = logits.some(([, value]) => value !== null);
  return (
    <div class="logit-list">
      <h3 class="caption" title={hint}>{`${name} logits`}</h3>
      {valued ? (
        <ul class="list" aria-label={hint}>
          {logits.map(([token, value], i) => (
            <li class="logit" key={i} title={`${visible(tokenText(token))} ${value ?? ""}`}>
              <span class="logit-token ellipsis">{visible(tokenText(token))}</span>
              <span class="logit-bar" aria-hidden="true">
                <span class={(value ?? 0) < 0 ? "negative" : "positive"} style={{ width: `${most ? (100 * Math.abs(value ?? 0)) / most : 0}%` }} />
              </span>
              <span class="number logit-value">{fixed(value, most)}</span>
            </li>
          ))}
        </ul>
      ) : (
        <ul class="list logit-chips" aria-label={hint}>
          {logits.map(([token], i) => (
            <li class="chip" key={i}>
              {visible(tokenText(token))}
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}

/** Values of one list with the same number of decimals. */
function fixed(value: number | null, most: number): string {
  if (value === null || !Number.isFinite(value)) return "–";
  if (!(most > 0) || most < 1e-3 || most >= 1e4) return sizeText(value);
  const decimals = Math.max(0, 2 - Math.floor(Math.log10(most)));
  return value.toFixed(Math.min(5, decimals)).replace("-", "−");
}

/** How strongly the decoder writes to each layer. */
export function DecoderNorms({ norms }: { norms: [number, number][] }) {
  const most = Math.max(0, ...norms.map(([, norm]) => norm));
  if (norms.length < 2 || !(most > 0)) return null;
  const first = norms[0]![0];
  const last = norms.at(-1)![0];
  const strongest = norms.find(([, norm]) => norm === most)![0];
  return (
    <section class="feature-part" aria-label="Decoder norms">
      <h3 class="caption">Writes to layers</h3>
      <div class="norms-box" style={{ maxWidth: `${26 * norms.length}px` }}>
      <div class="norms" role="img" aria-label={`Decoder norms by layer, ${norms.map(([layer, norm]) => `${layer}: ${sizeText(norm)}`).join(", ")}`}>
        {norms.map(([layer, norm]) => (
          <span class="norm" key={layer} title={`layer ${layer}: norm ${sizeText(norm)}`}>
            <span style={{ height: `${(100 * norm) / most}%` }} />
          </span>
        ))}
      </div>
      <div class="histogram-axis number faint">
        <span>{`L${first}`}</span>
        <span>{`L${last}`}</span>
      </div>
      </div>
      <p class="chart-note muted number">{`Decoder norm, most at layer ${strongest} (${sizeText(most)})`}</p>
    </section>
  );
}
