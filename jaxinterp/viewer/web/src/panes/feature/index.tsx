// The clicked node: what it is, and for a feature what is known of it from dashboards.

import { useEffect, useRef, useState } from "preact/hooks";
import type { PaneProps } from "../../app";
import { count as countText, percent, sizeText } from "../../draw/colour";
import type { Feature } from "../../io/types";
import { FEATURE, type GraphData } from "../../model/bundle";
import type { Session } from "../../model/session";
import { label } from "../../model/view";
import { whereabouts } from "../edges/head";
import { NodeName } from "../edges/name";
import { rowText, signedPercent } from "../edges/words";
import { sideOf, sorted, type Direction } from "../edges/rows";
import { Command } from "../trust/copy";
import { DecoderNorms, Histogram, LogitLists } from "./charts";
import { Examples } from "./examples";
import { passing, rankOf } from "./facts";
import "./feature.css";
import { Elsewhere, FeatureLinks } from "./links";
import { useFeature, type Loaded } from "./load";
import { OtherNode } from "./others";

interface NodeProps {
  session: Session;
  graph: GraphData;
  node: number;
}

const SOURCES: Record<string, string> = {
  jaxinterp: "our dashboards",
  "circuit-tracer": "circuit-tracer's feature files",
  anthropic: "feature files of Anthropic's format",
  neuronpedia: "Neuronpedia's export",
};

export function FeaturePane({ session }: PaneProps) {
  const graph = session.graph.value;
  const node = session.clicked.value;
  if (!graph) return <div class="feature-pane" />;
  if (node === null || node >= graph.n) return <p class="empty">Click a node to see what it is.</p>;
  return <NodePanel session={session} graph={graph} node={node} />;
}

function NodePanel({ session, graph, node }: NodeProps) {
  const loaded = useFeature(session, graph, node);
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    box.current?.scrollTo(0, 0);
  }, [graph, node]);
  return (
    <div class="feature-pane" ref={box} tabIndex={0} aria-label={session.name(node)}>
      <Title session={session} graph={graph} node={node} />
      <Facts graph={graph} node={node} />
      {graph.kind[node] === FEATURE ? <FeatureBody session={session} graph={graph} node={node} loaded={loaded} /> : <OtherNode session={session} graph={graph} node={node} />}
    </div>
  );
}

function Title({ session, graph, node }: NodeProps) {
  return (
    <div class="feature-title">
      <NodeName session={session} graph={graph} node={node} id="feature-label" />
      <span class="node-where muted ellipsis">{whereabouts(session, graph, node)}</span>
    </div>
  );
}

/** Numbers that every node has in the graph. */
function Facts({ graph, node }: { graph: GraphData; node: number }) {
  const rank = rankOf(graph, node);
  const part = passing(graph, node);
  const activation = graph.activation[node]!;
  const facts: [string, string, string][] = [];
  if (graph.kind[node] === FEATURE && Number.isFinite(activation)) facts.push(["activation", sizeText(activation), "on this prompt"]);
  if (part !== null) facts.push(["influence", percent(part), `of what reaches the targets passes through this node${graph.header.pruned ? " (before pruning)" : ""}`]);
  if (rank) facts.push(["rank", `${countText(rank.rank)} of ${countText(rank.of)}`, "by influence, among all nodes but the targets"]);
  // Of a very large graph the page holds the strongest edges.
  const more = graph.m < graph.header.n_edges ? "+" : "";
  const edges = (start: Int32Array): string => `${countText(start[node + 1]! - start[node]!)}${more}`;
  facts.push(["inputs", edges(graph.inStart), "edges that lead here"], ["outputs", edges(graph.outStart), "edges that lead on"]);
  return (
    <dl class="facts">
      {facts.map(([name, value, hint]) => (
        <div key={name} title={hint}>
          <dt>{name}</dt>
          <dd class="number">{value}</dd>
        </div>
      ))}
    </dl>
  );
}

function FeatureBody({ session, graph, node, loaded }: NodeProps & { loaded: Loaded }) {
  switch (loaded.kind) {
    case "loading":
      return <Waiting />;
    case "failed":
      return <p class="feature-part bad">{`The dashboard cannot be read: ${loaded.why}`}</p>;
    case "absent":
      return (
        <>
          <Elsewhere session={session} graph={graph} node={node} />
          <WithoutDashboard session={session} graph={graph} node={node} />
        </>
      );
    default:
      return <Dashboard session={session} graph={graph} node={node} feature={loaded.feature} />;
  }
}

/** Said only when the answer takes a while. */
function Waiting() {
  const [late, setLate] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setLate(true), 150);
    return () => clearTimeout(timer);
  }, []);
  return <p class="feature-part muted">{late && "Reading the dashboard…"}</p>;
}

function Dashboard({ session, graph, node, feature }: NodeProps & { feature: Feature }) {
  const activation = graph.activation[node]!;
  return (
    <>
      <Explanations session={session} node={node} feature={feature} />
      <Elsewhere session={session} graph={graph} node={node} />
      <div class="feature-columns">
        <div class="feature-main">
          <Examples feature={feature} />
        </div>
        <div class="feature-side">
          <LogitLists feature={feature} />
          <div class="feature-charts">
            <Histogram feature={feature} activation={activation} />
            <DecoderNorms norms={feature.decoder_norms} />
          </div>
          <FeatureLinks session={session} graph={graph} node={node} feature={feature} />
        </div>
      </div>
      <p class="feature-source faint">{`From ${SOURCES[feature.source] ?? feature.source}`}</p>
    </>
  );
}

function Explanations({ session, node, feature }: { session: Session; node: number; feature: Feature }) {
  const own = session.label(node);
  const take = (text: string): void => session.change(`label ${session.name(node)}`, (view) => label(view, node, text));
  const told = feature.explanations.map(({ text, by, score }) => ({ text, by: [by, score === null ? "" : `score ${sizeText(score)}`].filter(Boolean).join(", ") }));
  if (feature.label && !told.some((one) => one.text === feature.label)) told.unshift({ text: feature.label, by: "label of the dashboard" });
  if (!told.length) return null;
  return (
    <ul class="list explanations" aria-label="Explanations">
      {told.map(({ text, by }) => (
        <li key={`${text}${by}`}>
          <span>{text}</span>
          {by && <span class="muted">{` ${by}`}</span>}
          {text !== own && (
            <button type="button" class="link-button muted" data-action="use-label" onClick={() => take(text)}>
              use as label
            </button>
          )}
        </li>
      ))}
    </ul>
  );
}

/** No dashboard: what the graph knows, and how dashboards are made. */
function WithoutDashboard({ session, graph, node }: NodeProps) {
  return (
    <>
      <div class="feature-part prose two-lists">
        <Strongest session={session} graph={graph} node={node} direction="inputs" title="Made active by" />
        <Strongest session={session} graph={graph} node={node} direction="outputs" title="Acts on" />
      </div>
      <section class="feature-part prose">
        <p class="muted">
          {graph.header.has_features
            ? "The dashboards that are open have nothing on this feature."
            : "No dashboards are open, so there are no example texts, logits or histograms. They are made once for a dictionary, then shown with every graph of it:"}
        </p>
        {!graph.header.has_features && (
          <Command label="commands that make dashboards and show them" text={`jaxinterp dashboards --model MODEL --dictionary DICTIONARY --out FOLDER\njaxinterp view ${/\s/.test(graph.header.file) ? `'${graph.header.file}'` : graph.header.file} --features FOLDER`} />
        )}
      </section>
    </>
  );
}

const SHOWN = 5;

function Strongest({ session, graph, node, direction, title }: NodeProps & { direction: Direction; title: string }) {
  const side = sideOf(graph, node, direction);
  if (!side.node.length) return null;
  const rows = sorted(graph, side, Int32Array.from(side.node.keys()), "share").subarray(0, SHOWN);
  return (
    <div class="logit-list">
      <h3 class="caption">{title}</h3>
      <ul class="list">
        {[...rows].map((row) => {
          const other = side.node[row]!;
          const { name, where } = rowText(session, graph, other);
          return (
            <li key={row}>
              <button type="button" class="feature-link" data-node={other} onClick={() => session.click(other)} onMouseEnter={() => (session.hovered.value = other)} onMouseLeave={() => (session.hovered.value = null)}>
                <span class="ellipsis grow">
                  {name} <span class="faint">{where}</span>
                </span>
                <span class="number muted">{signedPercent(side.share[row]!)}</span>
              </button>
            </li>
          );
        })}
      </ul>
    </div>
  );
}
