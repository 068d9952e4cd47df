// Features that belong to this one: alike in decoder, active together, or the same at other tokens.

import { sizeText } from "../../draw/colour";
import { visible, type GraphData } from "../../model/bundle";
import type { Feature } from "../../io/types";
import type { Session } from "../../model/session";
import { nodesOf } from "./facts";

interface LinksProps {
  session: Session;
  graph: GraphData;
  node: number;
  feature: Feature;
}

export function FeatureLinks({ session, graph, node, feature }: LinksProps) {
  const { neighbours, coactive } = feature;
  if (!neighbours.length && !coactive.length) return null;
  const row = (layer: number, index: number, label: string, value: number, key: number) => (
    <Link key={key} session={session} graph={graph} node={node} layer={layer} index={index} label={label} value={value} />
  );
  return (
    <section class="feature-part link-lists" aria-label="Related features">
      {neighbours.length > 0 && (
        <div class="logit-list">
          <h3 class="caption" title="cosine of the decoders">Nearest decoders</h3>
          <ul class="list">{neighbours.map((one, i) => row(one.layer, one.index, one.label, one.cosine, i))}</ul>
        </div>
      )}
      {coactive.length > 0 && (
        <div class="logit-list">
          <h3 class="caption" title="how often they are active on the same tokens">Active together</h3>
          <ul class="list">{coactive.map((one, i) => row(one.layer, one.index, "", one.value, i))}</ul>
        </div>
      )}
    </section>
  );
}

interface LinkProps {
  session: Session;
  graph: GraphData;
  node: number;
  layer: number;
  index: number;
  label: string;
  value: number;
}

function Link({ session, graph, node, layer, index, label, value }: LinkProps) {
  const nodes = nodesOf(graph, graph.part[node]!, layer, index);
  const here = nodes.find((i) => graph.position[i] === graph.position[node]) ?? nodes[0];
  const place = `L${layer} #${index}`;
  const name = (here !== undefined && session.label(here)) || label;
  const text = (
    <>
      <span class="ellipsis grow">
        {name || place}
        {name && <span class="faint"> {place}</span>}
      </span>
      <span class="number muted">{Math.abs(value) < 10 ? value.toFixed(2).replace("-", "−") : sizeText(value)}</span>
    </>
  );
  return (
    <li>
      {here === undefined ? (
        <span class="feature-link absent" title={`${place} is not in this graph`}>
          {text}
        </span>
      ) : (
        <button
          type="button" class="feature-link" data-node={here} title={`${place}: select it`}
          onClick={() => session.click(here)}
          onMouseEnter={() => (session.hovered.value = here)}
          onMouseLeave={() => (session.hovered.value = null)}
        >
          {text}
        </button>
      )}
    </li>
  );
}

/** The same feature at other tokens of the prompt. */
export function Elsewhere({ session, graph, node }: { session: Session; graph: GraphData; node: number }) {
  const nodes = nodesOf(graph, graph.part[node]!, graph.layer[node]!, graph.index[node]!);
  if (nodes.length < 2) return null;
  return (
    <p class="elsewhere">
      <span class="muted">Active at</span>
      {nodes.map((i) => (
        <button
          key={i} type="button" class="chip" aria-current={i === node} data-node={i}
          title={`position ${graph.position[i]}, activation ${sizeText(graph.activation[i])}`}
          onClick={() => session.click(i)}
          onMouseEnter={() => (session.hovered.value = i)}
          onMouseLeave={() => (session.hovered.value = null)}
        >
          <span>{visible(graph.tokens[graph.position[i]!] ?? String(graph.position[i]))}</span>
          <span class="number muted">{sizeText(graph.activation[i])}</span>
        </button>
      ))}
    </p>
  );
}
