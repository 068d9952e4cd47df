// Places on one line: as near as possible to where each would like to be, with room between neighbours.

/**
 * x minimising Σ weight (x - wish)², with x[i + 1] - x[i] at least the half widths of both and the gap.
 *
 * The order is kept. Solved exactly: with the room taken out this is a monotone regression (pool adjacent violators).
 */
export function spread(wish: readonly number[], width: readonly number[], gap: number, weight: readonly number[]): number[] {
  const n = wish.length;
  const shift = new Array<number>(n).fill(0);
  for (let i = 1; i < n; i++) shift[i] = shift[i - 1]! + (width[i - 1]! + width[i]!) / 2 + gap;
  const blocks: { mean: number; weight: number; count: number }[] = [];
  for (let i = 0; i < n; i++) {
    let block = { mean: wish[i]! - shift[i]!, weight: weight[i]!, count: 1 };
    while (blocks.length && blocks.at(-1)!.mean >= block.mean) {
      const last = blocks.pop()!;
      const sum = last.weight + block.weight;
      block = { mean: (last.mean * last.weight + block.mean * block.weight) / sum, weight: sum, count: last.count + block.count };
    }
    blocks.push(block);
  }
  const found: number[] = [];
  for (const block of blocks) for (let k = 0; k < block.count; k++) found.push(block.mean + shift[found.length]!);
  return found;
}
