// The filter: kinds, layers, tokens and influence. What it hides is counted below the graph.

import { useMemo } from "preact/hooks";
import type { PaneProps } from "../../app";
import { count, percent } from "../../draw/colour";
import { Icon } from "../../draw/icons";
import { usePopup } from "../../frame/popup";
import { type GraphData, KINDS, visible } from "../../model/bundle";
import { active, largestShare } from "./filter-model";

export function FilterButton({ session }: PaneProps) {
  const { open, setOpen, anchor } = usePopup();
  const graph = session.graph.value;
  const used = active(session.filter.value);
  return (
    <div class="anchor" ref={anchor}>
      <button
        class="button"
        type="button"
        data-action="filter"
        aria-expanded={open}
        aria-haspopup="dialog"
        disabled={!graph}
        title={used.length ? `Filter by ${used.join(", ")}` : "Filter nodes"}
        onClick={() => setOpen(!open)}
      >
        <Icon name="filter" size={14} /> Filter
        {used.length > 0 && <span class="filter-count number">{used.length}</span>}
      </button>
      {open && graph && <FilterMenu session={session} graph={graph} />}
    </div>
  );
}

function FilterMenu({ session, graph }: PaneProps & { graph: GraphData }) {
  const filter = session.filter.value;
  const most = useMemo(() => largestShare(graph), [graph]);
  const kinds = useMemo(() => {
    const found = new Array<number>(KINDS.length).fill(0);
    for (let i = 0; i < graph.n; i++) found[graph.kind[i]!]!++;
    return found;
  }, [graph]);
  const layers = Math.max(0, graph.header.n_layers - 1);
  const [low, high] = filter.layers ?? [0, layers];
  const { all } = session.hiddenCounts.value;
  const toggle = <T,>(set: Set<T>, value: T): Set<T> => {
    const next = new Set(set);
    if (!next.delete(value)) next.add(value);
    return next;
  };
  const setLayers = (a: number, b: number): void => {
    if (Number.isNaN(a) || Number.isNaN(b)) return;
    const from = Math.max(0, Math.min(layers, a));
    const to = Math.max(from, Math.min(layers, b));
    session.setFilter({ layers: from === 0 && to === layers ? null : [from, to] });
  };
  return (
    <div class="menu right filter-menu" role="dialog" aria-label="Filter">
      <section>
        <h3 class="caption">Kinds</h3>
        <div class="filter-chips">
          {KINDS.map((name, kind) =>
            kinds[kind] ? (
              <button
                key={name}
                class="chip"
                type="button"
                data-kind={name}
                aria-pressed={filter.kinds.has(kind)}
                onClick={() => session.setFilter({ kinds: toggle(filter.kinds, kind) })}
              >
                {name} <span class="faint number">{count(kinds[kind]!)}</span>
              </button>
            ) : null,
          )}
        </div>
      </section>
      {layers > 0 && (
        <section>
          <h3 class="caption">Layers</h3>
          <div class="row">
            <input
              class="field filter-number"
              type="number"
              aria-label="Lowest layer"
              min={0}
              max={layers}
              value={low}
              onChange={(event) => setLayers(event.currentTarget.valueAsNumber, high)}
            />
            <span class="muted">to</span>
            <input
              class="field filter-number"
              type="number"
              aria-label="Highest layer"
              min={0}
              max={layers}
              value={high}
              onChange={(event) => setLayers(low, event.currentTarget.valueAsNumber)}
            />
            <span class="faint">of 0 to {layers}</span>
          </div>
        </section>
      )}
      <section>
        <h3 class="caption">Influence</h3>
        {most === null ? (
          <p class="muted">This file tells no shares of influence.</p>
        ) : (
          <label class="row">
            <input
              class="grow"
              type="range"
              data-action="density-slider"
              aria-label="Keep the most influential nodes"
              min={0}
              max={200}
              value={filter.density >= 1 ? 200 : Math.round((200 * filter.density) / most)}
              onInput={(event) => {
                const step = Number(event.currentTarget.value);
                session.setFilter({ density: step >= 200 ? 1 : (step / 200) * most });
              }}
            />
            <span class="number filter-share">{filter.density >= 1 ? "all" : `first ${percent(filter.density)}`}</span>
          </label>
        )}
      </section>
      <section>
        <h3 class="caption">Tokens</h3>
        <div class="filter-chips filter-tokens">
          {graph.tokens.map((token, position) => (
            <button
              key={position}
              class="chip"
              type="button"
              data-position={position}
              title={`Token ${position}`}
              aria-pressed={filter.positions === null || filter.positions.has(position)}
              onClick={() => {
                // The first one picks, further ones add; picking none or all is no filter.
                const next = toggle(filter.positions ?? new Set<number>(), position);
                session.setFilter({ positions: next.size === 0 || next.size === graph.tokens.length ? null : next });
              }}
            >
              {visible(token)}
            </button>
          ))}
        </div>
      </section>
      <label class="filter-text">
        <span class="caption">Words</span>
        <input
          class="field"
          type="text"
          data-action="filter-text"
          placeholder="in label, token or id"
          value={filter.text}
          onInput={(event) => session.setFilter({ text: event.currentTarget.value })}
        />
      </label>
      <div class="row filter-foot">
        <span class="muted number grow">
          {count(graph.n - all)} of {count(graph.n)} nodes shown
        </span>
        <button class="button" type="button" data-action="filter-clear" disabled={all === 0} onClick={() => session.showAll()}>
          Show all
        </button>
      </div>
    </div>
  );
}
