// Everything that the keyboard and the mouse can do, in one dialog.

import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { Icon } from "../draw/icons";

export const helpOpen = signal(false);

const KEYS: [string, [string, string][]][] = [
  [
    "Move",
    [
      ["← →", "the neighbouring node at an earlier or later token"],
      ["↑ ↓", "the neighbouring node a layer up or down"],
      ["i  o", "the strongest input, the strongest output"],
      ["/", "search"],
      ["Escape", "close what is open; make a pane small again; select nothing"],
    ],
  ],
  [
    "Work with nodes",
    [
      ["p", "pin or unpin the selected node"],
      ["m", "mark the selected node for grouping"],
      ["g", "group the marked nodes"],
      ["h", "hide the marked nodes, else the selected one"],
      ["ctrl z", "undo; redo with ctrl shift z"],
      ["ctrl s", "save into the graph file"],
    ],
  ],
  [
    "Look",
    [
      ["+  −", "zoom in and out"],
      ["0", "the whole graph"],
      ["z", "zoom to the selected node and its neighbours"],
      ["f", "maximise the pane with the focus, the graph otherwise"],
      ["d", "dark or light"],
      ["?", "this help"],
    ],
  ],
  [
    "Mouse and touch",
    [
      ["click", "select: all inputs and outputs are drawn"],
      ["shift click", "pin; ctrl click does the same"],
      ["alt click", "mark for grouping"],
      ["shift drag", "mark all nodes in a rectangle"],
      ["wheel, pinch", "zoom; drag to move; double click for the whole graph"],
    ],
  ],
  [
    "Boxes of the subgraph",
    [
      ["Tab", "from box to box"],
      ["Enter", "select; list the members of a group"],
      ["Space", "mark for grouping; alt click does the same"],
      ["F2", "rename; double click does the same"],
      ["u", "ungroup"],
      ["Delete", "unpin"],
      ["← ↑ ↓ →", "move, further with shift; drag does the same"],
      ["drag onto", "another box: put both into one group"],
    ],
  ],
  [
    "Lists of inputs and outputs",
    [
      ["↑ ↓", "the next edge"],
      ["→ ←", "open the edge into its heads; close it"],
      ["Enter", "select the node at its other end"],
      ["p  h", "pin it, hide it"],
    ],
  ],
];

export function Help() {
  const box = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (helpOpen.value) box.current?.showModal();
    else box.current?.close();
  }, [helpOpen.value]);
  return (
    <dialog
      class="dialog help"
      ref={box}
      aria-label="Help and keys"
      onClose={() => {
        helpOpen.value = false;
      }}
      onClick={(event) => {
        if (event.target === box.current) helpOpen.value = false;
      }}
    >
      <div class="dialog-head">
        <span>Keys and gestures</span>
        <button class="icon-button" type="button" aria-label="Close" onClick={() => (helpOpen.value = false)}>
          <Icon name="close" />
        </button>
      </div>
      <div class="dialog-body help-body">
        {KEYS.map(([title, lines]) => (
          <section key={title}>
            <h3 class="caption">{title}</h3>
            <dl class="help-keys">
              {lines.map(([keys, what]) => (
                <div class="help-line" key={keys}>
                  <dt>
                    {keys.split(/\s{2,}|(?<=ctrl|shift) /).map((key) => (
                      <kbd key={key}>{key}</kbd>
                    ))}
                  </dt>
                  <dd>{what}</dd>
                </div>
              ))}
            </dl>
          </section>
        ))}
        <section class="help-words">
          <h3 class="caption">Reading the graph</h3>
          <p>
            Tokens stand side by side, layers above each other: embeddings at the bottom, targets with their probability at the top. A node's size and
            darkness tell how much of the influence on the targets runs through it. An edge's colour is the sign of its weight (where edges are few, those below zero are dashed too), its width the weight's share of
            all that its target receives. Error nodes (◇) stand for what the dictionaries do not explain.
          </p>
        </section>
      </div>
    </dialog>
  );
}
