// The members of a group, in a list beside its box.

import type { PaneProps } from "../../app";
import { percent, sizeText } from "../../draw/colour";
import { outlinePath } from "../../draw/glyph";
import { Icon } from "../../draw/icons";
import { type GraphData, visible } from "../../model/bundle";
import { removeMember, renaming, ungroupBox } from "./actions";
import type { Drawing } from "./geometry";
import { listed } from "./state";

interface Props extends PaneProps {
  graph: GraphData;
  drawing: Drawing;
  at: { x: number; y: number; k: number };
  size: { width: number; height: number };
}

const WIDTH = 280;
const MOST = 300;

export function Members({ session, graph, drawing, at, size }: Props) {
  const key = listed.value;
  const shape = drawing.shapes.find((s) => s.box.key === key);
  if (!shape || !shape.box.group) return null;
  const { box } = shape;
  const tall = Math.min(size.height - 16, 340);
  const right = at.x + at.k * (shape.x + shape.width / 2) + 8;
  const x = right + WIDTH < size.width ? right : Math.max(8, at.x + at.k * (shape.x - shape.width / 2) - WIDTH - 8);
  const y = Math.max(8, Math.min(size.height - tall - 8, at.y + at.k * shape.y - 60));
  const members = [...box.members].sort((a, b) => (graph.influence[b] || 0) - (graph.influence[a] || 0));
  const close = (): void => {
    listed.value = null;
  };
  return (
    <div
      class="menu sg-members"
      role="dialog"
      aria-label={`Members of ${box.name}`}
      style={{ left: `${x}px`, top: `${y}px`, width: `${WIDTH}px`, maxHeight: `${tall}px` }}
      onKeyDown={(event) => {
        if (event.key !== "Escape") return;
        event.stopPropagation();
        event.preventDefault();
        close();
      }}
    >
      <div class="row sg-members-head">
        <strong class="grow ellipsis" title={box.name}>
          {box.name}
        </strong>
        <button class="button small" type="button" data-action="rename-listed" onClick={() => (renaming.value = box.key)}>
          Rename
        </button>
        <button
          class="button small"
          type="button"
          data-action="ungroup-listed"
          onClick={() => {
            close();
            ungroupBox(session, box.key);
          }}
        >
          Ungroup
        </button>
        <button class="icon-button" type="button" aria-label="Close" onClick={close}>
          <Icon name="close" size={12} />
        </button>
      </div>
      <ul class="list">
        {members.slice(0, MOST).map((node) => (
          <li class="row" key={node}>
            <button class="menu-item" type="button" aria-current={session.clicked.value === node} onClick={() => session.click(node)} onPointerEnter={() => (session.hovered.value = node)} onPointerLeave={() => (session.hovered.value = null)}>
              <svg width={12} height={12} class="sg-member-glyph" aria-hidden="true">
                <path d={outlinePath(graph.kind[node]!, 6, 6, 3.6)} />
              </svg>
              <span class="grow ellipsis" title={`${session.name(node)} · ${graph.place(node)}`}>
                {session.name(node)}
                <span class="muted"> {session.label(node) ? `L${graph.layer[node]} ` : ""}{visible(graph.tokens[graph.position[node]!] ?? "")}</span>
              </span>
              <span class="number muted" title="activation · share of influence">
                {Number.isFinite(graph.activation[node]!) && `${sizeText(graph.activation[node]!)} · `}
                {percent(graph.passing(node))}
              </span>
            </button>
            <button class="icon-button" type="button" data-action="remove-member" aria-label={`Take ${session.name(node)} out of the group`} title="Take out of the group" onClick={() => removeMember(session, node)}>
              <Icon name="minus" size={12} />
            </button>
          </li>
        ))}
      </ul>
      {members.length > MOST && <p class="muted">{members.length - MOST} more members</p>}
    </div>
  );
}
