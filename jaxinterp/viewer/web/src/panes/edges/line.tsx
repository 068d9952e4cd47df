// One line of the list: an edge's other end with share and weight, or the head of a group.

import { count as countText, percent, signed, sizeText } from "../../draw/colour";
import type { GraphData } from "../../model/bundle";
import type { Session } from "../../model/session";
import { Glyph } from "./glyph";
import "./line.css";
import type { RowGroup } from "./rows";
import { columnPercent, columnSize, rowText, signedPercent, signedSize } from "./words";

interface RowProps {
  id: string;
  at: number;
  session: Session;
  graph: GraphData;
  other: number;
  share: number;
  weight: number;
  most: number;
  heaviest: number;
  nested: boolean;
  active: boolean;
  opened: boolean;
  hidden: boolean;
  toggle: (other: number) => void;
  act: (what: "select" | "pin" | "hide", other: number) => void;
}

export function RowLine({ id, at, session, graph, other, share, weight, most, heaviest, nested, active, opened, hidden, toggle, act }: RowProps) {
  const { name, where } = rowText(session, graph, other);
  const pinned = session.view.value.pinned.includes(other);
  const classes = ["edge-row", active && "active", opened && "opened", hidden && "dim", nested && "nested", session.hovered.value === other && "hovered"];
  const stop = (event: Event, work: () => void): void => {
    event.stopPropagation();
    work();
  };
  return (
    <div
      id={id} class={classes.filter(Boolean).join(" ")} role="row" aria-rowindex={at + 1} aria-level={nested ? 2 : 1} aria-expanded={opened} data-node={other}
      onClick={() => act("select", other)}
      onMouseEnter={() => (session.hovered.value = other)}
    >
      <button type="button" tabIndex={-1} class="chevron" data-action="open-edge" aria-expanded={opened} aria-label={`Open the edge of ${name} into attention heads`} title="Open into attention heads" onClick={(event) => stop(event, () => toggle(other))} />
      <Glyph kind={graph.kind[other]!} pinned={pinned} />
      <span class="edge-text" role="gridcell" title={where ? `${name}\n${where}` : name}>
        <span class="edge-name">{name}</span>
        <span class="edge-where">{where}</span>
      </span>
      {session.hovered.value === other && <span class="edge-acts">
        <button type="button" tabIndex={-1} class="edge-act" data-action={pinned ? "unpin" : "pin"} aria-label={`${pinned ? "Unpin" : "Pin"} ${name}`} onClick={(event) => stop(event, () => act("pin", other))}>
          {pinned ? "unpin" : "pin"}
        </button>
        <button type="button" tabIndex={-1} class="edge-act" data-action="hide" aria-label={`Hide ${name}`} onClick={(event) => stop(event, () => act("hide", other))}>
          hide
        </button>
      </span>}
      <Bar share={share} most={most} />
      <span role="gridcell" class={`number edge-share ${share > 0 ? "positive" : share < 0 ? "negative" : "faint"}`}>
        {columnPercent(share, most)}
      </span>
      <span role="gridcell" class="number edge-weight" title={`weight ${weight}`}>
        {columnSize(weight, heaviest)}
      </span>
    </div>
  );
}

function Bar({ share, most, size = Math.abs(share) }: { share: number; most: number; size?: number }) {
  const width = (x: number): string => `${Math.min(100, (100 * Math.abs(x)) / most)}%`;
  return (
    <span class="edge-bar" aria-hidden="true">
      {size > Math.abs(share) && <span class="edge-bar-size" style={{ width: width(size) }} />}
      <span class="edge-bar-fill" style={{ width: width(share), background: signed(share) }} />
    </span>
  );
}

interface GroupProps {
  id: string;
  at: number;
  group: RowGroup;
  most: number;
  heaviest: number;
  inputs: boolean;
  active: boolean;
  folded: boolean;
  toggle: (key: number) => void;
}

export function GroupLine({ id, at, group, most, heaviest, inputs, active, folded, toggle }: GroupProps) {
  const signs = `signed ${signedPercent(group.share)} (weight ${signedSize(group.weight)}); absolute ${percent(group.shareSize)} (weight ${sizeText(group.weightSize)})`;
  return (
    <div
      id={id} class={`edge-group${active ? " active" : ""}`} role="row" aria-rowindex={at + 1} aria-level={1} aria-expanded={!folded}
      title={`${group.name}: ${signs}${inputs ? "" : "; shares are of the inputs of several nodes"}`}
      onClick={() => toggle(group.key)}
    >
      <span class={`chevron${folded ? "" : " down"}`} aria-hidden="true" />
      <span class="edge-text" role="gridcell">
        <span class="edge-name">{group.name}</span>
        <span class="edge-where number">{`${countText(group.count)} · absolute ${percent(group.shareSize)}, ${sizeText(group.weightSize)}`}</span>
      </span>
      <Bar share={group.share} most={most} size={group.shareSize} />
      <span role="gridcell" class={`number edge-share ${group.share > 0 ? "positive" : group.share < 0 ? "negative" : "faint"}`}>
        {columnPercent(group.share, most)}
      </span>
      <span role="gridcell" class="number edge-weight">
        {columnSize(group.weight, heaviest)}
      </span>
    </div>
  );
}
