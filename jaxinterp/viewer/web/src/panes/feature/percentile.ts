// Where an activation stands among all activations of its feature.

import type { Feature } from "../../io/types";

/** Percent of the feature's activations that are below this one, 0..100, null where the file does not tell. */
export function percentile(feature: Pick<Feature, "quantiles" | "histogram">, activation: number): number | null {
  if (!Number.isFinite(activation)) return null;
  const { quantiles, histogram } = feature;
  if (quantiles && quantiles.length > 1) {
    const at = quantiles.findIndex((x) => x >= activation);
    return at < 0 ? 100 : (100 * at) / quantiles.length;
  }
  if (!histogram) return null;
  const all = histogram.counts.reduce((sum, x) => sum + x, 0);
  if (!(all > 0)) return null;
  let below = 0;
  histogram.counts.forEach((count, i) => {
    const low = histogram.edges[i]!;
    const high = histogram.edges[i + 1]!;
    if (activation >= high) below += count;
    else if (activation > low) below += (count * (activation - low)) / (high - low);
  });
  return (100 * below) / all;
}

/** The same in words. */
export function percentileText(percent: number | null): string {
  if (percent === null) return "";
  if (percent >= 100) return "higher than any activation that was seen";
  if (percent >= 99) return "among the highest 1 % of its activations";
  if (percent < 1) return "among the lowest 1 % of its activations";
  return `higher than ${Math.floor(percent)} % of its activations`;
}

/** Where a value stands on the axis of a histogram, 0..1 along its bins; the bins are of equal width as drawn. */
export function alongBins(edges: number[], x: number, log: boolean): number {
  const bins = edges.length - 1;
  if (bins < 1 || !(x > edges[0]!)) return 0;
  if (x >= edges[bins]!) return 1;
  let i = 0;
  while (x >= edges[i + 1]!) i++;
  const low = edges[i]!;
  const high = edges[i + 1]!;
  const part = log && low > 0 ? Math.log(x / low) / Math.log(high / low) : (x - low) / (high - low);
  return (i + part) / bins;
}

/** Heights 0..1 of counts on a logarithmic scale: none is 0, and one can still be seen. */
export function heights(counts: number[]): number[] {
  const most = Math.log1p(Math.max(0, ...counts));
  return counts.map((count) => (most > 0 && count > 0 ? Math.max(0.03, Math.log1p(count) / most) : 0));
}
