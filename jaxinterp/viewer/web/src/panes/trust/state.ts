// What the trust card says in one dot and a few words.

import { percent } from "../../draw/colour";
import type { Report } from "../../io/types";

export type Level = "good" | "warn" | "bad" | "unknown";

const MUCH = 0.5;

/** The worst that the report says, and why, in a sentence. */
export function state(report: Report, edges = 1): { level: Level; why: string } {
  if (edges === 0) return { level: "unknown", why: "This graph has no edges, so its scores mean nothing." };
  const failed = report.checks.filter((check) => check.ok === false);
  if (failed.length) return { level: "bad", why: failed.length === 1 ? `Check ${failed[0]!.name} fails: this graph is not exact.` : `${failed.length} checks fail: this graph is not exact.` };
  const error = report.error_share?.total ?? null;
  const replacement = report.scores.replacement ?? null;
  if (error !== null && error > MUCH) return { level: "warn", why: `${percent(error)} of the influence ends in errors.` };
  if (replacement !== null && replacement < MUCH) return { level: "warn", why: `Features explain less than half of what reaches the targets.` };
  if (report.warnings.length) return { level: "warn", why: report.warnings.length === 1 ? report.warnings[0]! : `${report.warnings.length} things to know before believing this graph.` };
  const passed = report.checks.filter((check) => check.ok).length;
  if (!passed) return { level: "unknown", why: "Nothing speaks against this graph, but its file does not hold what the checks need." };
  return { level: "good", why: passed === 1 ? "The one check that can be made holds." : `All ${passed} checks that can be made hold.` };
}

/** A score with two decimals, "–" where it is unknown. */
export const score = (x: number | null | undefined): string => (x === null || x === undefined || !Number.isFinite(x) ? "–" : x.toFixed(2));

/** Errors by layer as columns: for every layer from the first to the last, the share of each part. */
export function columns(byLayer: [number, string, number][], layers: number): { layer: number; parts: { part: string; share: number }[]; share: number }[] {
  const last = Math.max(layers - 1, ...byLayer.map(([layer]) => layer));
  const found = Array.from({ length: last + 1 }, (_, layer) => ({ layer, parts: [] as { part: string; share: number }[], share: 0 }));
  for (const [layer, part, share] of byLayer) {
    if (!(layer >= 0) || !(share > 0)) continue;
    found[layer]!.parts.push({ part, share });
    found[layer]!.share += share;
  }
  return found;
}
