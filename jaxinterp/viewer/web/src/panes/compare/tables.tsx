// The lists beside the two graphs: matched nodes, differences of edges, and what only one of them has.

import { useMemo, useState } from "preact/hooks";
import { count, percent, signed, sizeText } from "../../draw/colour";
import { outlinePath } from "../../draw/glyph";
import { type GraphData, KINDS } from "../../model/bundle";
import { difference, type EdgeRow, type Key, matches, type NodeRow, sorted, tokenOf } from "./rows";
import "./tables.css";

const AT_ONCE = 200;

/** A list that grows on request. */
function Rest({ all, shown, more }: { all: number; shown: number; more: () => void }) {
  if (shown >= all) return null;
  return (
    <button class="button small compare-rest" type="button" onClick={more}>
      {count(all - shown)} more
    </button>
  );
}

function Glyph({ kind }: { kind: number }) {
  return (
    <svg width={12} height={12} class="compare-glyph" role="img" aria-label={KINDS[kind] ?? "node"}>
      <path d={outlinePath(kind, 6, 6, 3.8)} />
    </svg>
  );
}

/** A difference as a bar from the middle. */
function Bar({ part, most }: { part: number; most: number }) {
  const size = most > 0 ? Math.min(1, Math.abs(part) / most) * 20 : 0;
  return (
    <svg width={42} height={10} class="compare-bar" aria-hidden="true">
      <path d="M21 0V10" />
      <rect x={part < 0 ? 21 - size : 21} y={2} width={size} height={6} />
    </svg>
  );
}

const plus = (text: string, x: number): string => (x > 0 ? `+${text}` : text);

export function NodeTable({ rows, kinds, words, selected, onSelect, onHover }: { rows: NodeRow[]; kinds: Set<number>; words: string; selected: number | null; onSelect: (row: NodeRow) => void; onHover: (row: NodeRow | null) => void }) {
  const [key, setKey] = useState<Key>("influence");
  const [most, setMost] = useState(AT_ONCE);
  const found = useMemo(() => sorted(rows.filter((r) => kinds.has(r.kind) && matches(`${r.name} ${r.place} ${r.token}`, words)), key), [rows, kinds, words, key]);
  const largest = useMemo(() => Math.max(0, ...rows.filter((r) => r.kind !== 4).map((r) => Math.abs(difference(r, "influence")))), [rows]);
  const head = (k: Key, text: string, tip: string) => (
    <th scope="col" aria-sort={key === k ? (k === "name" ? "ascending" : "descending") : undefined}>
      <button type="button" class="compare-sort" aria-pressed={key === k} title={tip} onClick={() => setKey(k)}>
        {text}
      </button>
    </th>
  );
  return (
    <div class="compare-scroll">
      <table class="compare-table">
        <thead>
          <tr>
            {head("name", "Node", "By name")}
            {head("activationA", "act. A", "Activation in the first graph")}
            {head("activationB", "act. B", "Activation in the second graph")}
            {head("activation", "Δ", "By size of the difference of activations")}
            {head("influenceA", "infl. A", "Share of influence in the first graph; a target's probability")}
            {head("influenceB", "infl. B", "Share of influence in the second graph; a target's probability")}
            {head("influence", "Δ", "By size of the difference of influence")}
          </tr>
        </thead>
        <tbody>
          {found.slice(0, most).map((r) => {
            const [da, di] = [difference(r, "activation"), difference(r, "influence")];
            return (
              <tr key={r.a} aria-selected={selected === r.a} data-node={r.a} onClick={() => onSelect(r)} onPointerEnter={() => onHover(r)} onPointerLeave={() => onHover(null)}>
                <th scope="row">
                  <button type="button" class="compare-name" onClick={() => onSelect(r)} onFocus={() => onHover(r)}>
                    <Glyph kind={r.kind} />
                    <span class="ellipsis">{r.name || r.place}</span>
                    <span class="faint ellipsis">{[r.name && r.name !== r.place ? r.place : "", r.token].filter(Boolean).join(" ")}</span>
                  </button>
                </th>
                <td>{sizeText(r.activationA)}</td>
                <td>{sizeText(r.activationB)}</td>
                <td>{Number.isFinite(r.activationA) || Number.isFinite(r.activationB) ? plus(sizeText(da), da) : ""}</td>
                <td>{percent(r.influenceA)}</td>
                <td>{percent(r.influenceB)}</td>
                <td class="compare-delta">
                  <Bar part={di} most={r.kind === 4 ? 1 : largest} />
                  {plus(percent(di), di)}
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
      {found.length === 0 && <p class="empty">No matched node fits.</p>}
      <Rest all={found.length} shown={most} more={() => setMost(most + 1000)} />
    </div>
  );
}

export function EdgeTable({ rows, words, selected, onSelect }: { rows: EdgeRow[]; words: string; selected: EdgeRow | null; onSelect: (row: EdgeRow) => void }) {
  const [most, setMost] = useState(AT_ONCE);
  const found = rows.filter((r) => matches(r.name, words));
  return (
    <div class="compare-scroll">
      <table class="compare-table">
        <thead>
          <tr>
            <th scope="col" title="Ordered by how much more of the influence runs along it in one graph than in the other">Edge</th>
            <th scope="col" title="Part of the target's input in the first graph">share A</th>
            <th scope="col" title="Part of the target's input in the second graph">share B</th>
            <th scope="col">weight A</th>
            <th scope="col">weight B</th>
          </tr>
        </thead>
        <tbody>
          {found.slice(0, most).map((r) => (
            <tr key={`${r.targetA} ${r.sourceA}`} aria-selected={selected === r} onClick={() => onSelect(r)}>
              <th scope="row">
                <button type="button" class="compare-name" onClick={() => onSelect(r)}>
                  <span class="ellipsis" title={r.name}>
                    {r.name}
                  </span>
                </button>
              </th>
              <td>
                <span class="compare-swatch" style={{ background: r.weightA ? signed(r.shareA) : "none" }} />
                {r.weightA ? plus(percent(r.shareA), r.shareA) : "none"}
              </td>
              <td>
                <span class="compare-swatch" style={{ background: r.weightB ? signed(r.shareB) : "none" }} />
                {r.weightB ? plus(percent(r.shareB), r.shareB) : "none"}
              </td>
              <td>{sizeText(r.weightA)}</td>
              <td>{sizeText(r.weightB)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {found.length === 0 && <p class="empty">No edge fits.</p>}
      <Rest all={found.length} shown={most} more={() => setMost(most + 1000)} />
    </div>
  );
}

export function OnlyTable({ graph, nodes, kinds, words, name, selected, onSelect }: { graph: GraphData; nodes: number[]; kinds: Set<number>; words: string; name: (node: number) => string; selected: number | null; onSelect: (node: number) => void }) {
  const [most, setMost] = useState(AT_ONCE);
  const found = useMemo(
    () => nodes.filter((i) => i >= 0 && i < graph.n && kinds.has(graph.kind[i]!) && matches(`${name(i)} ${graph.place(i)} ${tokenOf(graph, i)}`, words)).sort((p, q) => (graph.influence[q] || 0) - (graph.influence[p] || 0)),
    [graph, nodes, kinds, words],
  );
  return (
    <div class="compare-scroll">
      <table class="compare-table">
        <thead>
          <tr>
            <th scope="col">Node</th>
            <th scope="col">activation</th>
            <th scope="col">influence</th>
          </tr>
        </thead>
        <tbody>
          {found.slice(0, most).map((i) => (
            <tr key={i} aria-selected={selected === i} onClick={() => onSelect(i)}>
              <th scope="row">
                <button type="button" class="compare-name" onClick={() => onSelect(i)}>
                  <Glyph kind={graph.kind[i]!} />
                  <span class="ellipsis">{name(i) || graph.place(i)}</span>
                  <span class="faint ellipsis">{[name(i) && name(i) !== graph.place(i) ? graph.place(i) : "", tokenOf(graph, i)].filter(Boolean).join(" ")}</span>
                </button>
              </th>
              <td>{sizeText(graph.activation[i]!)}</td>
              <td>{percent(graph.kind[i] === 4 ? graph.probability[i]! : graph.passing(i))}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {found.length === 0 && <p class="empty">No node fits.</p>}
      <Rest all={found.length} shown={most} more={() => setMost(most + 1000)} />
    </div>
  );
}
