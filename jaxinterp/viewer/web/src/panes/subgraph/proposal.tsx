// Automatic groups: found by the server, looked at as a preview, applied as one step.

import { useEffect, useState } from "preact/hooks";
import type { PaneProps } from "../../app";
import { count, percent } from "../../draw/colour";
import { Icon } from "../../draw/icons";
import type { Proposed } from "../../io/types";
import { EMBEDDING, FEATURE, TARGET, type GraphData } from "../../model/bundle";
import type { Session } from "../../model/session";
import { pin, setGroups, type View } from "../../model/view";
import { applyGroups } from "./actions";
import "./proposal.css";
import { preview } from "./state";

/** As many groups as can be read at once; more are a click away. */
const AT_FIRST = 12;

let before: string | null = null;

/** Open the preview, or close it. */
export function startProposal(session: Session): void {
  if (preview.value) return endProposal(session);
  before = session.maximised.value;
  session.maximised.value = "subgraph";
  session.marked.value = new Set();
  preview.value = { proposed: null, view: session.view.value };
}

function endProposal(session: Session): void {
  preview.value = null;
  if (session.maximised.value === "subgraph") session.maximised.value = before;
}

/** What applying these groups gives. Without other pins: groups, and the tokens and targets they stand between. */
export function proposedView(graph: GraphData, view: View, groups: { name: string; members: number[] }[], keep: boolean): View {
  if (keep) return setGroups(view, groups);
  const ends: number[] = [];
  for (let i = 0; i < graph.n; i++) if (graph.kind[i] === EMBEDDING || graph.kind[i] === TARGET) ends.push(i);
  // Tokens that matter: all of a short prompt, the most influential of a long one.
  const most = [...ends].sort((a, b) => rank(graph, b) - rank(graph, a)).slice(0, 24);
  return setGroups(pin({ ...view, pinned: [], groups: [], positions: {} }, most), groups);
}

const likeness = (x: number): string => (Number.isFinite(x) ? x.toFixed(2) : "–");

const rank = (graph: GraphData, i: number): number => (graph.kind[i] === TARGET ? 1 + (graph.probability[i] || 0) : graph.influence[i] || 0);

/** Share of the features' influence that no box shows. */
export function hiddenInfluence(graph: GraphData, view: View): number {
  const shown = new Set([...view.pinned, ...view.groups.flatMap((g) => g.members)]);
  let all = 0;
  let hidden = 0;
  for (let i = 0; i < graph.n; i++) {
    if (graph.kind[i] !== FEATURE || !(graph.influence[i]! > 0)) continue;
    all += graph.influence[i]!;
    if (!shown.has(i)) hidden += graph.influence[i]!;
  }
  return all > 0 ? hidden / all : 0;
}

export function ProposalPanel({ session, graph }: PaneProps & { graph: GraphData }) {
  const [atLeast, setAtLeast] = useState(0.5);
  const [across, setAcross] = useState(false);
  const [only, setOnly] = useState(false);
  const [keep, setKeep] = useState(true);
  const [left, setLeft] = useState<Set<string>>(new Set());
  const [state, setState] = useState<"asking" | "here" | string>("asking");
  const embedded = session.source.mode === "embedded";
  const pinnedFeatures = session.view.value.pinned.filter((i) => graph.kind[i] === FEATURE);
  const proposed = preview.value?.proposed ?? null;

  useEffect(() => {
    let late = false;
    const id = session.current.value;
    const ask = async (): Promise<void> => {
      if (id === null) return;
      setState("asking");
      try {
        const found = embedded ? fromReport(session, graph) : await session.source.propose(id, atLeast, across, only ? pinnedFeatures : null);
        if (late || !preview.value) return;
        setLeft(new Set(found.groups.slice(AT_FIRST).map((g) => g.name)));
        preview.value = { ...preview.value, proposed: found };
        setState("here");
      } catch (error) {
        if (!late) setState(error instanceof Error ? error.message : String(error));
      }
    };
    const timer = setTimeout(() => void ask(), 150);
    return () => {
      late = true;
      clearTimeout(timer);
    };
  }, [atLeast, across, only]);

  const groups = (proposed?.groups ?? []).filter((g) => !left.has(g.name));
  useEffect(() => {
    if (preview.value && proposed) preview.value = { proposed, view: proposedView(graph, session.view.value, groups, keep) };
  }, [proposed, left, keep]);
  const hidden = preview.value ? hiddenInfluence(graph, preview.value.view) : 0;

  const apply = (): void => {
    if (keep) applyGroups(session, groups);
    else session.change("automatic groups", (view) => proposedView(graph, view, groups, false));
    endProposal(session);
    session.say(`${groups.length} groups applied. Undo with ctrl-z.`, false);
  };
  return (
    <section
      class="sg-proposal"
      role="dialog"
      aria-label="Automatic groups"
      onKeyDown={(event) => {
        if (event.key !== "Escape") return;
        event.preventDefault();
        event.stopPropagation();
        endProposal(session);
      }}
    >
      <header class="row">
        <h2 class="grow">Automatic groups</h2>
        <button class="icon-button" type="button" aria-label="Close the preview" ref={(button) => void (state === "asking" && !proposed && button?.focus())} onClick={() => endProposal(session)}>
          <Icon name="close" size={13} />
        </button>
      </header>
      {embedded ? (
        <p class="muted">This page has no server to search again: these are the groups that were found when it was made.</p>
      ) : (
        <div class="sg-settings">
          <label>
            <span class="row">
              <span class="grow">Any two members alike by at least</span>
              <output class="number">{atLeast.toFixed(2)}</output>
            </span>
            <input type="range" data-action="proposal-threshold" min={0.05} max={0.95} step={0.05} value={atLeast} onInput={(event) => setAtLeast(Number(event.currentTarget.value))} />
          </label>
          <label class="row">
            <input type="checkbox" data-action="proposal-across" checked={across} onChange={(event) => setAcross(event.currentTarget.checked)} /> Groups may hold several tokens’ features
          </label>
          <label class="row">
            <input type="checkbox" checked={only} disabled={pinnedFeatures.length < 2} onChange={(event) => setOnly(event.currentTarget.checked)} /> Only the {count(pinnedFeatures.length)} pinned features
          </label>
        </div>
      )}
      <label class="row">
        <input type="checkbox" data-action="proposal-keep" checked={keep} onChange={(event) => setKeep(event.currentTarget.checked)} /> Keep what is pinned
      </label>
      <p class="sg-sum" role="status">
        {state === "asking" ? "Comparing features…" : state !== "here" ? <span class="bad">{state}</span> : proposed && proposed.groups.length === 0 ? "No two features are alike enough. Lower the threshold." : (
          <>
            {groups.length} of {proposed?.groups.length} groups shown. <strong>{percent(hidden)}</strong> of the features’ influence has no box in this preview
            {proposed && !embedded && `; ${percent(proposed.hidden_influence)} is in none of the groups`}.
          </>
        )}
      </p>
      {proposed && proposed.groups.length > 0 && (
        <>
          <div class="sg-row sg-head caption" aria-hidden="true">
            <span>Group</span>
            <span title="Nodes">n</span>
            <span title="Mean likeness of two members">cohesion</span>
            <span title="Likeness of the pair that is least alike">weakest</span>
            <span title="The members' influence, added up: how much of what reaches the targets passes through each of them">infl.</span>
          </div>
          <ul class="list sg-groups">
            {proposed.groups.map((g) => (
              <li key={g.name}>
                <label class="sg-row" title={g.members.map((i) => session.name(i)).slice(0, 12).join("\n")}>
                  <span class="row">
                    <input
                      type="checkbox"
                      checked={!left.has(g.name)}
                      onChange={(event) => {
                        const next = new Set(left);
                        if (event.currentTarget.checked) next.delete(g.name);
                        else next.add(g.name);
                        setLeft(next);
                      }}
                    />
                    <span class="ellipsis">{g.name}</span>
                  </span>
                  <span class="number">{g.members.length}</span>
                  <span class="number">{likeness(g.cohesion)}</span>
                  <span class="number">{likeness(g.weakest)}</span>
                  <span class="number">{percent(graph.targetWeight > 0 ? g.influence / graph.targetWeight : Number.NaN)}</span>
                </label>
              </li>
            ))}
          </ul>
        </>
      )}
      <footer class="row">
        {proposed && proposed.groups.length > AT_FIRST && (
          <button class="button small" type="button" onClick={() => setLeft(left.size ? new Set() : new Set(proposed.groups.slice(AT_FIRST).map((g) => g.name)))}>
            {left.size ? "All" : `First ${AT_FIRST}`}
          </button>
        )}
        <span class="grow" />
        <button class="button" type="button" onClick={() => endProposal(session)}>
          Cancel
        </button>
        <button class="button primary" type="button" data-action="apply-proposal" disabled={state !== "here" || groups.length === 0} onClick={apply}>
          Apply
        </button>
      </footer>
    </section>
  );
}

function fromReport(session: Session, graph: GraphData): Proposed {
  const groups = session.report.value?.automatic.groups ?? [];
  const influence = (members: number[]): number => members.reduce((sum, i) => sum + (graph.influence[i] || 0), 0);
  return { groups: groups.map((g) => ({ ...g, cohesion: Number.NaN, weakest: Number.NaN, influence: influence(g.members) })), single: [], hidden_influence: 0 };
}
