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
        <p class="muted">
          {graph.header.has_heads
            ? "The file of heads beside this graph does not have this edge. To print it:"
            : "Nothing is known of the attention heads that carry this edge. This opens all edges; the file belongs beside the graph, and the page shows it when the viewer is started again:"}
        </p>
        <Command label="command that opens edges into heads" text={`jaxinterp heads ${quoted(graph.header.file)} --model MODEL --dictionary DICTIONARY ${graph.header.has_heads ? `--edge ${source} ${target}` : `--out ${quoted(headsFile(graph.header.file))}`}`} />
      </div>
    );
  }
  const heads = [...state.heads.heads].sort((a, b) => Math.abs(b[2]) - Math.abs(a[2]));
  const { rest, direct } = state.heads;
  const most = Math.max(Math.abs(rest), Math.abs(direct ?? 0), ...heads.map((head) => Math.abs(head[2]))) || 1;
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
        {direct === undefined || direct === 0 ? null : row("no head", direct, "direct")}
        {rest === 0 ? null : row(direct === undefined ? "no head, and all others" : "all other heads", rest, "rest")}
      </ul>
    </div>
  );
}

const headsFile = (file: string): string => `${file.replace(/\.[^.]*$/, "")}.heads.json`;

function quoted(file: string): string {
  return /^[\w@%+=:,./-]+$/.test(file) ? file : `'${file.replace(/'/g, "'\\''")}'`;
}
