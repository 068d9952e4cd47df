// What other parts of the page can ask of the graph pane. The pane fills these in while it is there.

export interface Places {
  x: Float32Array;
  y: Float32Array;
}

export const camera = {
  reset(): void {},
  /** The whole graph at once, without a movement. */
  jump(): void {},
  /** Zoom to the selected node and its neighbours, without one to the pinned nodes. */
  toSelection(): void {},
  zoom(_factor: number): void {},
  /** Bring a node to the middle. */
  centre(_node: number): void {},
  /** Bring a node into sight if it is out of it. */
  reveal(_node: number): void {},
  /** Places of the nodes at zoom 1; null before the first drawing. */
  across: null as Places | null,
};
