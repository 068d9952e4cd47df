// Nodes that are no features: what they are, and what they do in this graph.

import { percent, sizeText } from "../../draw/colour";
import { BIAS, EMBEDDING, ERROR, TARGET, visible, type GraphData } from "../../model/bundle";
import type { Session } from "../../model/session";
import { areWords } from "./bytes";
import { errorShares, passing } from "./facts";

interface OtherProps {
  session: Session;
  graph: GraphData;
  node: number;
}

const WRITES = ["attention output", "MLP output", "residual stream"];

const BIASES: Record<string, string> = {
  decoder: "what the dictionary's decoder adds on every token, whatever is active",
  attention: "what the biases of the attention layer add",
  norm: "what the bias of the norm adds",
  position: "what the embedding of the position adds",
  mlp: "the part of the MLP that does not depend on its input once it is made linear",
  offset: "the constant that is left where a part of the model was made linear",
};

export function OtherNode({ session, graph, node }: OtherProps) {
  switch (graph.kind[node]) {
    case ERROR:
      return <ErrorNode graph={graph} node={node} />;
    case EMBEDDING:
      return <TokenNode graph={graph} node={node} />;
    case BIAS:
      return <BiasNode graph={graph} node={node} />;
    case TARGET:
      return <TargetNode session={session} graph={graph} node={node} />;
    default:
      return null;
  }
}

type Plain = Omit<OtherProps, "session">;

function ErrorNode({ graph, node }: Plain) {
  const here = passing(graph, node);
  const { all, layer } = errorShares(graph, node);
  const text = visible(graph.tokens[graph.position[node]!] ?? "");
  const rows: [string, number | null][] = [
    ["this node", here],
    [`all errors of layer ${graph.layer[node]}`, here === null ? null : layer],
    ["all errors", here === null ? null : all],
  ];
  return (
    <section class="feature-part prose">
      <p>
        {`The part of layer ${graph.layer[node]}'s ${WRITES[graph.part[node]!]} at ${text} that the dictionary does not explain: what the model computed, less what its features add up to. It is taken as given, so nothing leads into it and paths that begin here say nothing about why.`}
      </p>
      <Shares title="Of what reaches the targets, this much starts in" rows={rows} />
    </section>
  );
}

function TokenNode({ graph, node }: Plain) {
  const at = graph.position[node]!;
  const id = graph.header.token_ids[at];
  const here = passing(graph, node);
  return (
    <section class="feature-part prose">
      <p class={areWords(graph.tokens) ? "prompt-words apart" : "prompt-words"} aria-label="The prompt">
        {graph.tokens.map((token, i) => (
          <span key={i} class={i === at ? "prompt-token here" : "prompt-token"}>
            {token}
          </span>
        ))}
      </p>
      <p>{`The embedding of token ${at} of the prompt${id === undefined ? "" : `, number ${id} of the vocabulary`}. Paths begin here.`}</p>
      {here !== null && <Shares title="Of what reaches the targets, this much starts at" rows={[["this token", here]]} />}
    </section>
  );
}

function BiasNode({ graph, node }: Plain) {
  const name = graph.header.bias_names[graph.index[node]!] ?? "";
  const here = passing(graph, node);
  const layer = graph.layer[node]!;
  return (
    <section class="feature-part prose">
      <p>{`A constant${layer < 0 ? "" : ` of layer ${layer}`}: ${BIASES[name] ?? "what the model adds whatever the prompt is"}. Nothing leads into it.`}</p>
      {here !== null && <Shares title="Of what reaches the targets, this much starts in" rows={[["this bias", here]]} />}
    </section>
  );
}

function TargetNode({ session, graph, node }: OtherProps) {
  const known = graph.targets.filter((i) => Number.isFinite(graph.probability[i]!));
  const most = Math.max(0, ...known.map((i) => graph.probability[i]!));
  const sum = known.reduce((all, i) => all + graph.probability[i]!, 0);
  const value = graph.value[node]!;
  return (
    <section class="feature-part prose">
      <p>
        {graph.layer[node]! < graph.header.n_layers
          ? "A target: the graph explains what leads to this feature's pre-activation."
          : "A target: the graph explains what leads to the logit of this next token."}
        {Number.isFinite(value) && ` Its ${graph.layer[node]! < graph.header.n_layers ? "pre-activation" : "logit, less the mean of all,"} is ${sizeText(value)}.`}
      </p>
      {known.length > 0 && (
        <>
          <h3 class="caption">Probabilities of all targets</h3>
          <ul class="list">
            {graph.targets.map((i) => {
              const p = graph.probability[i]!;
              return (
                <li key={i}>
                  <button
                    type="button" class="share-row" aria-current={i === node} data-node={i}
                    onClick={() => session.click(i)}
                    onMouseEnter={() => (session.hovered.value = i)}
                    onMouseLeave={() => (session.hovered.value = null)}
                  >
                    <span class="ellipsis">{session.name(i)}</span>
                    <span class="share-bar" aria-hidden="true">
                      <span style={{ width: `${most ? (100 * (p || 0)) / most : 0}%` }} />
                    </span>
                    <span class="number">{percent(p)}</span>
                  </button>
                </li>
              );
            })}
          </ul>
          <p class="muted">{`Together ${percent(sum)} of the probability of all next tokens.`}</p>
        </>
      )}
    </section>
  );
}

function Shares({ title, rows }: { title: string; rows: [string, number | null][] }) {
  const known = rows.filter((row): row is [string, number] => row[1] !== null);
  if (!known.length) return <p class="muted">Its influence is not known.</p>;
  const most = Math.max(...known.map(([, share]) => share)) || 1;
  return (
    <>
      <h3 class="caption">{title}</h3>
      <ul class="list">
        {known.map(([name, share]) => (
          <li class="share-row" key={name}>
            <span>{name}</span>
            <span class="share-bar" aria-hidden="true">
              <span style={{ width: `${(100 * share) / most}%` }} />
            </span>
            <span class="number">{percent(share)}</span>
          </li>
        ))}
      </ul>
    </>
  );
}
