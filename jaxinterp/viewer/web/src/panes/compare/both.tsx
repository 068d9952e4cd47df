// The body of a comparison: two drawings, and beside them the lists.

import { useMemo, useState } from "preact/hooks";
import type { PaneProps } from "../../app";
import { count } from "../../draw/colour";
import type { Comparison } from "../../io/types";
import { type GraphData, KINDS } from "../../model/bundle";
import { type Mark, Pair } from "./pair";
import { type EdgeRow, edgeRows, nodeRows } from "./rows";
import { EdgeTable, NodeTable, OnlyTable } from "./tables";

type Tab = "nodes" | "edges" | "a" | "b";

export function Both({ session, a, b, comparison }: PaneProps & { a: GraphData; b: GraphData; comparison: Comparison }) {
  const [tab, setTab] = useState<Tab>("nodes");
  const [words, setWords] = useState("");
  const [kinds, setKinds] = useState(new Set([0, 1, 2, 3, 4]));
  const [hovered, setHovered] = useState<Mark | null>(null);
  const [edge, setEdge] = useState<EdgeRow | null>(null);
  const [alone, setAlone] = useState<number | null>(null);

  const nameA = (i: number): string => session.label(i).trim();
  const nameB = (i: number): string => (b.header.labels[String(i)] ?? "").trim();
  const nodes = useMemo(() => nodeRows(a, b, comparison, nameA), [a, b, comparison, session.view.value.labels]);
  const edges = useMemo(() => edgeRows(a, b, comparison, (i) => nameA(i) || a.place(i)), [a, b, comparison, session.view.value.labels]);
  const [partnerA, partnerB] = useMemo(() => {
    const [p, q] = [new Int32Array(a.n).fill(-1), new Int32Array(b.n).fill(-1)];
    for (const { a: i, b: j } of nodes) {
      p[i] = j;
      q[j] = i;
    }
    return [p, q];
  }, [nodes]);

  const clicked = session.clicked.value;
  const selected: Mark | null = alone !== null ? { a: -1, b: alone } : clicked === null ? null : { a: clicked, b: partnerA[clicked] ?? -1 };
  const select = (mark: Mark): void => {
    setEdge(null);
    if (mark.a >= 0) {
      setAlone(null);
      session.click(mark.a);
    } else setAlone(mark.b);
  };
  const tabs: [Tab, string, number][] = [
    ["nodes", "Matched", nodes.length],
    ["edges", "Edges that differ", edges.length],
    ["a", "Only A", comparison.only_a.length],
    ["b", "Only B", comparison.only_b.length],
  ];
  return (
    <div class="compare-body">
      <div class="compare-left">
        <Pair a={a} b={b} partnerA={partnerA} partnerB={partnerB} selected={selected} hovered={hovered} edge={edge} onHover={setHovered} onSelect={select} />
        <footer class="compare-foot">
          <Described a={a} b={b} mark={hovered ?? selected} nameA={nameA} nameB={nameB} />
          <span class="grow" />
          <span class="row muted">
            <i class="compare-key both" /> in both <i class="compare-key only" /> in one alone
          </span>
        </footer>
      </div>
      <div class="compare-right">
        <div class="row compare-tabs" role="tablist" aria-label="Lists">
          {tabs.map(([id, text, n]) => (
            <button key={id} type="button" role="tab" class="compare-tab" data-tab={id} aria-selected={tab === id} onClick={() => setTab(id)}>
              {text} <span class="number muted">{count(n)}</span>
            </button>
          ))}
        </div>
        <div class="row compare-filter">
          <input class="field grow" type="search" aria-label="Filter the list" placeholder="Filter" value={words} onInput={(event) => setWords(event.currentTarget.value)} />
          {tab !== "edges" &&
            [0, 1, 2, 3, 4].map((kind) => (
              <button
                key={kind}
                type="button"
                class="chip"
                aria-pressed={kinds.has(kind)}
                onClick={() => {
                  const next = new Set(kinds);
                  if (!next.delete(kind)) next.add(kind);
                  setKinds(next);
                }}
              >
                {KINDS[kind]}
              </button>
            ))}
        </div>
        {tab === "nodes" && <NodeTable rows={nodes} kinds={kinds} words={words} selected={selected?.a ?? null} onSelect={select} onHover={setHovered} />}
        {tab === "edges" && (
          <EdgeTable
            rows={edges}
            words={words}
            selected={edge}
            onSelect={(row) => {
              setAlone(null);
              session.click(row.targetA);
              session.edge.value = { target: row.targetA, source: row.sourceA };
              setEdge(row);
            }}
          />
        )}
        {tab === "a" && <OnlyTable graph={a} nodes={comparison.only_a} kinds={kinds} words={words} name={nameA} selected={selected?.a ?? null} onSelect={(i) => select({ a: i, b: -1 })} />}
        {tab === "b" && <OnlyTable graph={b} nodes={comparison.only_b} kinds={kinds} words={words} name={nameB} selected={selected?.b ?? null} onSelect={(i) => select({ a: -1, b: i })} />}
        {comparison.notes.length > 0 && (
          <details class="compare-notes" open>
            <summary class="caption">How nodes were matched</summary>
            <ul class="list muted">
              {comparison.notes.map((note) => (
                <li key={note}>{note}</li>
              ))}
            </ul>
          </details>
        )}
      </div>
    </div>
  );
}

function Described({ a, b, mark, nameA, nameB }: { a: GraphData; b: GraphData; mark: Mark | null; nameA: (i: number) => string; nameB: (i: number) => string }) {
  if (!mark) return <span class="muted">Point at a node to see its partner.</span>;
  const text = (graph: GraphData, i: number, name: string): string => [name, graph.place(i)].filter((t, k, all) => t && all.indexOf(t) === k).join(" · ");
  const first = mark.a >= 0 ? text(a, mark.a, nameA(mark.a)) : "";
  const second = mark.b >= 0 ? text(b, mark.b, nameB(mark.b)) : "";
  return (
    <span class="ellipsis" role="status">
      {first && second ? `${first} ↔ ${second}` : first ? `${first}: only in A` : `${second}: only in B`}
    </span>
  );
}
