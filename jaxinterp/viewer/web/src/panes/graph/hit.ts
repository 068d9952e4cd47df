// Which node is under the pointer: nodes sorted into square cells, so that a question looks at a few of them only.

const CELL = 16;

export class Grid {
  private readonly columns: number;
  private readonly rows: number;
  private readonly start: Int32Array;
  private readonly nodes: Int32Array;

  /** mask: 1 for the nodes that can be found. */
  constructor(
    private readonly x: Float32Array,
    private readonly y: Float32Array,
    mask: Uint8Array,
    width: number,
    height: number,
  ) {
    this.columns = Math.max(1, Math.ceil(width / CELL));
    this.rows = Math.max(1, Math.ceil(height / CELL));
    this.start = new Int32Array(this.columns * this.rows + 1);
    let count = 0;
    for (let i = 0; i < x.length; i++) {
      if (!mask[i]) continue;
      this.start[this.cell(x[i]!, y[i]!) + 1]!++;
      count++;
    }
    for (let c = 0; c < this.columns * this.rows; c++) this.start[c + 1]! += this.start[c]!;
    const next = this.start.slice();
    this.nodes = new Int32Array(count);
    for (let i = 0; i < x.length; i++) if (mask[i]) this.nodes[next[this.cell(x[i]!, y[i]!)]!++] = i;
  }

  private column(x: number): number {
    return Math.max(0, Math.min(this.columns - 1, Math.floor(x / CELL)));
  }

  private row(y: number): number {
    return Math.max(0, Math.min(this.rows - 1, Math.floor(y / CELL)));
  }

  private cell(x: number, y: number): number {
    return this.row(y) * this.columns + this.column(x);
  }

  /** The node nearest to a place, at most `reach` away; null if there is none. */
  nearest(x: number, y: number, reach: number): number | null {
    let best: number | null = null;
    let least = reach * reach;
    for (let row = this.row(y - reach); row <= this.row(y + reach); row++) {
      for (let column = this.column(x - reach); column <= this.column(x + reach); column++) {
        const c = row * this.columns + column;
        for (let k = this.start[c]!; k < this.start[c + 1]!; k++) {
          const i = this.nodes[k]!;
          const d = (this.x[i]! - x) ** 2 + (this.y[i]! - y) ** 2;
          if (d <= least) {
            least = d;
            best = i;
          }
        }
      }
    }
    return best;
  }

  /** All nodes in a rectangle. */
  within(left: number, top: number, right: number, bottom: number): number[] {
    const found: number[] = [];
    for (let row = this.row(top); row <= this.row(bottom); row++) {
      for (let column = this.column(left); column <= this.column(right); column++) {
        const c = row * this.columns + column;
        for (let k = this.start[c]!; k < this.start[c + 1]!; k++) {
          const i = this.nodes[k]!;
          if (this.x[i]! >= left && this.x[i]! <= right && this.y[i]! >= top && this.y[i]! <= bottom) found.push(i);
        }
      }
    }
    return found.sort((a, b) => a - b);
  }
}
