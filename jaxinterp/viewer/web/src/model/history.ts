// Undo and redo over immutable values.

export interface Step<T> {
  name: string;
  value: T;
}

export class History<T> {
  private past: Step<T>[] = [];
  private future: Step<T>[] = [];
  current: T;

  constructor(
    first: T,
    private readonly most = 500,
  ) {
    this.current = first;
  }

  /** Steps of the same non-empty `merge` key that follow each other count as one, such as a drag. */
  private merge = "";

  push(name: string, value: T, merge = ""): void {
    if (value === this.current) return;
    if (!(merge && merge === this.merge)) {
      this.past.push({ name, value: this.current });
      if (this.past.length > this.most) this.past.shift();
    }
    this.merge = merge;
    this.future = [];
    this.current = value;
  }

  undo(): boolean {
    const step = this.past.pop();
    if (!step) return false;
    this.future.push({ name: step.name, value: this.current });
    this.current = step.value;
    this.merge = "";
    return true;
  }

  redo(): boolean {
    const step = this.future.pop();
    if (!step) return false;
    this.past.push({ name: step.name, value: this.current });
    this.current = step.value;
    this.merge = "";
    return true;
  }

  get undoName(): string | null {
    return this.past.at(-1)?.name ?? null;
  }

  get redoName(): string | null {
    return this.future.at(-1)?.name ?? null;
  }
}
