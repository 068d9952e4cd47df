/** A stop of the reading: its name and the node that it selects. */
export interface Stop {
  name: string;
  node: number;
}

/** The stops of a reading as buttons and what its line says after them; null where the line is to be shown as it is.
 * Of a stop's nodes the one on the path is selected. */
export function stopsOf(text: string, stops: [string, number[]][], path: number[], n: number): { stops: Stop[]; rest: string } | null {
  const line = stops.map(([name]) => name).join(" → ");
  if (!stops.length || !text.startsWith(line)) return null;
  const found: Stop[] = [];
  for (const [name, nodes] of stops) {
    const real = nodes.filter((node) => node >= 0 && node < n);
    if (!real.length) return null;
    found.push({ name, node: real.find((node) => path.includes(node)) ?? real[0]! });
  }
  return { stops: found, rest: text.slice(line.length) };
}
