// Search in the bar: results as a list to walk through with the arrow keys; the filter beside it.

import { useMemo, useRef, useState } from "preact/hooks";
import type { PaneProps } from "../../app";
import { count, percent } from "../../draw/colour";
import { outlinePath } from "../../draw/glyph";
import { Icon } from "../../draw/icons";
import { KINDS, visible } from "../../model/bundle";
import { camera } from "../graph/camera";
import { FilterButton } from "./filter";
import { find, parse } from "./query";
import "./search.css";

const MOST = 60;

export function SearchBar({ session }: PaneProps) {
  const [text, setText] = useState("");
  const [open, setOpen] = useState(false);
  const [at, setAt] = useState(0);
  const field = useRef<HTMLInputElement>(null);
  const list = useRef<HTMLUListElement>(null);
  const graph = session.graph.value;
  const labels = session.view.value.labels;
  const found = useMemo(
    () =>
      graph && open
        ? find(
            graph,
            parse(text),
            (i) => session.searchText(i),
            (i) => session.label(i),
            MOST,
          )
        : { nodes: [], total: 0 },
    [graph, text, open, labels, session],
  );
  const chosen = Math.min(at, found.nodes.length - 1);

  const move = (to: number): void => {
    const next = Math.max(0, Math.min(found.nodes.length - 1, to));
    setAt(next);
    session.hovered.value = found.nodes[next] ?? null;
    list.current?.children[next]?.scrollIntoView({ block: "nearest" });
  };
  const take = (node: number | undefined): void => {
    if (node === undefined) return;
    setOpen(false);
    session.hovered.value = null;
    if (!session.shown.value[node]) session.say("This node is hidden in the graph; “show all” below the graph brings it back.", false);
    session.click(node);
    camera.centre(node);
    field.current?.blur();
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.key === "ArrowDown") move(chosen + 1);
    else if (event.key === "ArrowUp") move(chosen - 1);
    else if (event.key === "Enter") take(found.nodes[chosen]);
    else if (event.key === "Escape") {
      if (text) setText("");
      else field.current?.blur();
      setOpen(false);
      session.hovered.value = null;
    } else return;
    event.preventDefault();
    event.stopPropagation();
  };

  const listed = open && text.trim() !== "";
  return (
    <div class="search" role="search">
      <div class="search-box">
        <Icon name="search" size={14} />
        <input
          ref={field}
          class="field search-field"
          type="text"
          data-action="search"
          placeholder="Search nodes  ( / )"
          aria-label="Search nodes by label, token, L3, @5, error, #12928"
          title="Label or token text, L3 or layer:3-7, @5 for a token, error or feature, #12928"
          role="combobox"
          aria-expanded={listed}
          aria-controls="search-results"
          aria-activedescendant={listed && chosen >= 0 ? `search-${chosen}` : undefined}
          autocomplete="off"
          spellcheck={false}
          disabled={!graph}
          value={text}
          onInput={(event) => {
            setText(event.currentTarget.value);
            setAt(0);
            setOpen(true);
          }}
          onFocus={() => setOpen(true)}
          onBlur={() => setOpen(false)}
          onKeyDown={onKeyDown}
        />
        {listed && graph && (
          <div class="menu search-menu" onPointerDown={(event) => event.preventDefault()}>
            <p class="search-count muted row">
              <span class="grow number">
                {found.total === 0 ? "Nothing found" : found.total > MOST ? `${count(MOST)} of ${count(found.total)} nodes` : `${count(found.total)} ${found.total === 1 ? "node" : "nodes"}`}
              </span>
              {found.total > 0 && (
                <button class="link-button" type="button" data-action="mark-found" onClick={() => session.marked.value = new Set(found.nodes)}>
                  mark {found.total > MOST ? "these" : "all"}
                </button>
              )}
              <button class="link-button" type="button" data-action="filter-by-text" onClick={() => session.setFilter({ text: parse(text).words.join(" ") })}>
                show only these words
              </button>
            </p>
            <ul class="list" id="search-results" role="listbox" aria-label="Nodes found" ref={list}>
              {found.nodes.map((node, k) => (
                <li
                  key={node}
                  id={`search-${k}`}
                  class="menu-item search-item"
                  role="option"
                  data-node={node}
                  aria-selected={k === chosen}
                  onClick={() => take(node)}
                  onMouseEnter={() => move(k)}
                >
                  <svg viewBox="0 0 14 14" width="14" height="14" aria-label={KINDS[graph.kind[node]!]}>
                    <path class="legend-shape" d={outlinePath(graph.kind[node]!, 7, 7, 4.4)} />
                  </svg>
                  <span class="grow ellipsis">{session.name(node)}</span>
                  <span class="muted ellipsis search-place">
                    {session.label(node) ? graph.place(node) : ""}
                    {graph.kind[node] !== 3 && graph.tokens[graph.position[node]!] !== undefined ? ` “${visible(graph.tokens[graph.position[node]!]!)}”` : ""}
                  </span>
                  <span class="muted number search-part">
                    {graph.kind[node] === 4 ? percent(graph.probability[node]) : Number.isFinite(graph.passing(node)) ? percent(graph.passing(node)) : ""}
                  </span>
                </li>
              ))}
            </ul>
          </div>
        )}
      </div>
      <FilterButton session={session} />
    </div>
  );
}
