// What the subgraph pane's parts share beside the session: what is open in it, how much it draws, its camera.

import { signal } from "@preact/signals";
import type { Proposed } from "../../io/types";
import type { View } from "../../model/view";
import { LARGE, type PaneShape } from "./geometry";

/** The group whose members are listed. */
export const listed = signal<string | null>(null);
/** How many of the strongest edges are drawn; null leaves it to the page. */
export const edgeLimit = signal<number | null>(null);
export const showWeights = signal(false);

/** Automatic groups that are being looked at; `view` is what applying them would give. */
export const preview = signal<{ proposed: Proposed | null; view: View } | null>(null);

/** The pane's camera; the pane fills it in while it is there. */
export const camera = {
  fit: (): void => {},
  zoom: (_by: number): void => {},
};

/** What the pane lays out for. */
export const shape = signal<PaneShape>(LARGE);
