// An opened edge: the attention heads that carry it, where the file has them.

import { useEffect, useState } from "preact/hooks";
import { percent, signed, sizeText } from "../../draw/colour";
import type { Heads } from "../../io/types";
import type { GraphData } from "../../model/bundle";
import type { Session } from "../../model/session";
import { Command } from "../trust/copy";
import { columnPercent, columnSize } from "./words";

interface HeadsProps {
  session: Session;
  graph: GraphData;
  target: number;
  source: number;
  weight: number;
}

type State = { heads: Heads | null } | { error: string } | null;

export function HeadsOf({ session, graph, target, source, weight }: HeadsProps) {
  const [state, setState] = useState<State>(null);
  const id = session.current.value;
  useEffect(() => {
    if (!graph.header.has_heads || id === null) return setState({ heads: null });
    let gone = false;
    setState(null);
    session.source.heads(id, target, source).then(
      (heads) => !gone && setState({ heads }),
      (error: unknown) => !gone && setState({ error: error instanceof Error ? error.message : String(error) }),
    );
    return () => {
      gone = true;
    };
  }, [id, target, source]);

  if (state === null) return <div class="edge-heads muted">Reading the heads…</div>;
  if ("error" in state) return <div class="edge-heads bad">{state.error}</div>;
  if (state.heads === null) {
    return (
      <div class="edge-heads">
        <p class="muted">{graph.header.has_heads ? "The file does not open this edge into heads." : "This file does not say through which attention heads its edges run. This prints it:"}</p>
        <Command label="command for the heads of this edge" text={`jaxinterp heads ${quoted(graph.header.file)} --model MODEL --dictionary DICTIONARY --edge ${source} ${target}`} />
        {!graph.header.has_heads && <p class="muted">With <code class="mono">--out heads.json</code> in place of <code class="mono">--edge</code> the strongest heads of every edge are kept.</p>}
      </div>
    );
  }
  const heads = [...state.heads.heads].sort((a, b) => Math.abs(b[2]) - Math.abs(a[2]));
  const most = Math.max(Math.abs(state.heads.rest), ...heads.map((head) => Math.abs(head[2]))) || 1;
  const row = (name: string, value: number, key: string) => (
    <li class="head-row" key={key}>
      <span class="number">{name}</span>
      <span class="edge-bar" aria-hidden="true">
        <span class="edge-bar-fill" style={{ width: `${(100 * Math.abs(value)) / most}%`, background: signed(weight ? value / Math.abs(weight) : 0) }} />
      </span>
      <span class={`number edge-share ${value > 0 ? "positive" : value < 0 ? "negative" : "faint"}`}>{weight ? columnPercent(value / Math.abs(weight), 1) : percent(null)}</span>
      <span class="number edge-weight">{columnSize(value, most)}</span>
    </li>
  );
  return (
    <div class="edge-heads">
      <p class="muted">{`How the weight ${sizeText(weight)} runs through attention heads:`}</p>
      <ul class="list" aria-label="Attention heads">
        {heads.map(([layer, head, value]) => row(`head ${layer}.${head}`, value, `${layer}.${head}`))}
        {row("no head, and all others", state.heads.rest, "rest")}
      </ul>
    </div>
  );
}

function quoted(file: string): string {
  return /^[\w@%+=:,./-]+$/.test(file) ? file : `'${file.replace(/'/g, "'\\''")}'`;
}
