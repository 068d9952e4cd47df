// One list: the inputs or the outputs of the clicked node.

import { useEffect, useMemo, useState } from "preact/hooks";
import { count as countText, palette } from "../../draw/colour";
import { type GraphData } from "../../model/bundle";
import type { Session } from "../../model/session";
import { hide, pin, unpin } from "../../model/view";
import { HeadsOf } from "./heads";
import { GroupLine, RowLine } from "./line";
import { choose, layout, sorted, type Grouping, type Side, type Sorting } from "./rows";
import { Virtual } from "./virtual";
import { balance } from "./words";

const HEIGHT = 25;

export interface Controls {
  grouping: Grouping;
  sorting: Sorting;
  text: string;
}

interface ListProps {
  session: Session;
  graph: GraphData;
  node: number;
  side: Side;
  controls: Controls;
}

const NONE: ReadonlySet<number> = new Set();

export function EdgeList({ session, graph, node, side, controls }: ListProps) {
  const { direction } = side;
  const { grouping, sorting, text } = controls;
  const [all, setAll] = useState(false);
  const [folded, setFolded] = useState(NONE);
  const [active, setActive] = useState(-1);
  const [opened, setOpened] = useState(-1); // the other end of the opened edge
  const shown = session.shown.value;
  palette.value; // drawn again with another theme

  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = useMemo(() => {
    const matches = words.length ? (other: number): boolean => words.every((word) => session.searchText(other).includes(word)) : null;
    return choose(side, shown, all, matches);
  }, [side, shown, all, text]);
  const ordered = useMemo(() => sorted(graph, side, chosen.rows, sorting), [chosen, sorting]);
  const { lines, groups } = useMemo(() => layout(graph, side, ordered, grouping, sorting, folded), [ordered, grouping, folded]);
  const most = useMemo(() => {
    let row = 0;
    let weight = 0;
    for (const i of chosen.rows) {
      row = Math.max(row, Math.abs(side.share[i]!));
      weight = Math.max(weight, Math.abs(side.weight[i]!));
    }
    return { row: row || 1, group: Math.max(0, ...groups.map((g) => g.shareSize)) || 1, weight: weight || 1 };
  }, [chosen, groups]);
  useEffect(() => {
    setOpened(-1);
    setActive(-1);
    setFolded(NONE);
  }, [graph, node, grouping]);

  const otherAt = (line: number): number | null => {
    const row = lines[line];
    return row === undefined || row < 0 ? null : side.node[row]!;
  };
  const open = opened < 0 ? -1 : lines.findIndex((row) => row >= 0 && side.node[row] === opened);
  const ends = (other: number): { target: number; source: number } => (direction === "inputs" ? { target: node, source: other } : { target: other, source: node });

  const toggleOpen = (other: number, on = opened !== other): void => {
    setOpened(on ? other : -1);
    session.edge.value = on ? ends(other) : null;
  };
  const toggleFold = (key: number): void => {
    const next = new Set(folded);
    if (!next.delete(key)) next.add(key);
    setFolded(next);
  };
  const act = (what: "select" | "pin" | "hide", other: number): void => {
    if (what === "select") session.click(other);
    else if (what === "hide") session.change(`hide ${session.name(other)}`, (view) => hide(view, [other]));
    else if (session.view.value.pinned.includes(other)) session.change(`unpin ${session.name(other)}`, (view) => unpin(view, [other]));
    else session.change(`pin ${session.name(other)}`, (view) => pin(view, [other]));
  };

  const move = (to: number): void => {
    const next = Math.max(0, Math.min(lines.length - 1, to));
    setActive(next);
    session.hovered.value = otherAt(next);
  };
  const onKey = (event: KeyboardEvent): void => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const other = otherAt(active);
    const group = active >= 0 && lines[active]! < 0 ? groups[-1 - lines[active]!] : undefined;
    switch (event.key) {
      case "ArrowDown": move(active + 1); break;
      case "ArrowUp": move(active - 1); break;
      case "PageDown": move(active + 12); break;
      case "PageUp": move(active - 12); break;
      case "Home": move(0); break;
      case "End": move(lines.length - 1); break;
      case "ArrowRight":
        if (group && folded.has(group.key)) toggleFold(group.key);
        else if (other !== null) toggleOpen(other, true);
        break;
      case "ArrowLeft":
        if (group && !folded.has(group.key)) toggleFold(group.key);
        else if (other !== null) toggleOpen(other, false);
        break;
      case "Enter":
      case " ":
        if (group) toggleFold(group.key);
        else if (other !== null) act("select", other);
        break;
      case "p":
        if (other !== null) act("pin", other);
        break;
      case "h":
        if (other !== null) act("hide", other);
        break;
      default:
        return;
    }
    event.preventDefault();
    event.stopPropagation();
  };

  const inputs = direction === "inputs";
  const kept = chosen.hidden + chosen.zero;
  const said = useMemo(() => (inputs ? balance(graph, node, side) : ""), [side]);
  const id = (line: number): string => `edge-${direction}-${line}`;
  return (
    <>
      <div
        class="edge-list"
        id={`edge-list-${direction}`}
        role="treegrid"
        tabIndex={0}
        aria-label={`${inputs ? "Inputs" : "Outputs"}: arrow keys move, Enter selects, right arrow opens the edge, p pins, h hides`}
        aria-rowcount={lines.length}
        aria-activedescendant={active >= 0 ? id(active) : undefined}
        onKeyDown={onKey}
        onFocus={(event) => {
          // Not by the mouse: the list must not move under a click.
          if (active < 0 && lines.length && event.currentTarget.matches(":focus-visible")) setActive(0);
        }}
        onMouseLeave={() => (session.hovered.value = null)}
      >
        {inputs && said && <p class="edge-sum muted">{said}</p>}
        {lines.length > 0 && (
          <div class="edge-legend faint" aria-hidden="true">
            <span class="edge-legend-share" title={`Part of all that comes into ${inputs ? "this node" : "the node it leads to"}, by size. The colours here and in the graph are of this.`}>
              {inputs ? "share of input" : "share of its input"}
            </span>
            <span title="The edge's number itself">weight</span>
          </div>
        )}
        {lines.length === 0 && <p class="edge-none muted">{nothing(chosen.unmatched, kept, side.node.length, inputs)}</p>}
        <Virtual
          count={lines.length}
          height={HEIGHT}
          open={open}
          active={active}
          reset={`${session.current.value} ${node} ${grouping} ${sorting} ${text}`}
          below={opened >= 0 && open >= 0 && <HeadsOf key={`${node} ${opened}`} session={session} graph={graph} {...ends(opened)} weight={side.weight[lines[open]!]!} />}
          line={(at) => {
            const row = lines[at]!;
            if (row < 0) {
              const group = groups[-1 - row]!;
              return <GroupLine id={id(at)} at={at} group={group} most={most.group} heaviest={most.weight} inputs={inputs} active={at === active} folded={folded.has(group.key)} toggle={toggleFold} />;
            }
            const other = side.node[row]!;
            return (
              <RowLine
                id={id(at)} at={at} session={session} graph={graph} other={other} share={side.share[row]!} weight={side.weight[row]!} most={most.row} heaviest={most.weight}
                nested={groups.length > 0} active={at === active} opened={other === opened} hidden={shown[other] === 0} toggle={toggleOpen} act={act}
              />
            );
          }}
        />
      </div>
      {(kept > 0 || side.of !== null || (words.length > 0 && chosen.unmatched > 0)) && (
        <p class="edge-foot muted">
          {side.of !== null && <span>{`The strongest ${countText(side.node.length)} of ${countText(side.of)}. `}</span>}
          {words.length > 0 && chosen.unmatched > 0 && <span>{`${countText(chosen.unmatched)} without these words. `}</span>}
          {kept > 0 && (
            <>
              <span>{`${leftOut(chosen.hidden, chosen.zero)} ${all ? "listed too" : "not listed"}: `}</span>
              <button type="button" class="link-button" data-action={`list-hidden-${direction}`} aria-pressed={all} onClick={() => setAll(!all)}>
                {all ? "leave out" : "list"}
              </button>
            </>
          )}
        </p>
      )}
    </>
  );
}

function leftOut(hidden: number, zero: number): string {
  const parts = [];
  if (hidden) parts.push(`${countText(hidden)} from hidden nodes`);
  if (zero) parts.push(`${countText(zero)} of weight zero`);
  return parts.join(", ");
}

function nothing(unmatched: number, kept: number, all: number, inputs: boolean): string {
  if (unmatched) return `No ${inputs ? "input" : "output"} has these words.`;
  if (kept && all) return `All ${inputs ? "inputs" : "outputs"} are hidden.`;
  return inputs ? "Nothing leads here." : "Leads nowhere in this graph.";
}
