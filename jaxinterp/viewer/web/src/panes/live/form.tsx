// The form of live mode.

import { signal } from "@preact/signals";
import { useRef, useState } from "preact/hooks";
import { percent } from "../../draw/colour";
import type { Session } from "../../model/session";
import { FIRST, request, type Typed } from "./settings";
import type { Trace } from "./trace";

/** Kept while the dialog is closed. */
const typed = signal<Typed>(FIRST);

export function Form({ session, trace }: { session: Session; trace: Trace }) {
  const form = useRef<HTMLFormElement>(null);
  const [wrong, setWrong] = useState<{ field: keyof Typed; error: string } | null>(null);
  const { state } = trace;
  const running = state.kind === "running";
  const now = typed.value;

  const send = (): void => {
    const found = request(typed.value);
    if ("error" in found) {
      setWrong(found);
      form.current?.querySelector<HTMLElement>(`#live-${found.field}`)?.focus();
      return;
    }
    setWrong(null);
    void trace.start(found.asked);
  };
  const field = (name: keyof Typed) => ({
    id: `live-${name}`,
    class: "field",
    value: now[name],
    disabled: running,
    "aria-invalid": wrong?.field === name,
    "aria-describedby": "live-said",
    onInput: (event: { currentTarget: { value: string } }) => {
      typed.value = { ...typed.value, [name]: event.currentTarget.value };
      if (wrong?.field === name) setWrong(null);
    },
  });
  const said = wrong?.error ?? (state.kind === "failed" ? state.why : "");

  return (
    <form ref={form} class="live-form" onSubmit={(event) => { event.preventDefault(); if (!running) send(); }}>
      <label for="live-prompt">Prompt</label>
      <textarea
        {...field("prompt")} data-action="live-prompt" rows={3} spellcheck={false} placeholder="Fact: the capital of the state containing Dallas is"
        onKeyDown={(event) => {
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !running) send();
        }}
      />
      <p id="live-said" class={`live-said ${said ? "bad" : "muted"}`} role="alert">
        {said || (state.kind === "cancelled" ? (state.late ? "Cancelled too late: the graph is among the files." : "Cancelled.") : "")}
      </p>
      <label for="live-targets">
        Targets <span class="muted">one a line; empty for the most probable next tokens</span>
      </label>
      <textarea {...field("targets")} data-action="live-targets" rows={2} spellcheck={false} />
      <div class="live-numbers">
        <label for="live-features">
          Most features
          <input {...field("features")} data-action="live-features" inputMode="numeric" placeholder="all that fit" autoComplete="off" />
        </label>
        <label for="live-nodes" title="Nodes are kept, strongest first, until they carry this share of the influence">
          Influence kept by nodes
          <input {...field("nodes")} data-action="live-nodes" inputMode="decimal" autoComplete="off" />
        </label>
        <label for="live-edges" title="Edges are kept, strongest first, until they carry this share of the influence">
          Influence kept by edges
          <input {...field("edges")} data-action="live-edges" inputMode="decimal" autoComplete="off" />
        </label>
      </div>
      <div class="live-run">
        {running ? (
          <>
            <div class="live-progress">
              <progress max={1} value={state.fraction ?? undefined} aria-label={state.stage} />
              <p class="muted" role="status">
                <span class="ellipsis">{state.cancelling ? "Cancelling…" : state.stage}</span>
                {state.fraction !== null && <span class="number">{percent(state.fraction)}</span>}
              </p>
            </div>
            <button type="button" class="button" data-action="cancel-trace" disabled={state.cancelling} onClick={() => void trace.cancel()}>
              Cancel
            </button>
          </>
        ) : (
          <>
            <p class="muted grow">The graph opens when it is done and stays among the files.</p>
            <button type="submit" class="button primary" data-action="trace">
              Trace
            </button>
          </>
        )}
      </div>
      <fieldset class="live-steer" disabled>
        <legend>Steering</legend>
        <p class="muted">Changing features from here and reading what the model then says comes with interventions, in a later version.</p>
        <button type="button" class="button small" data-action="steer">
          Steer
        </button>
      </fieldset>
      {session.graph.value && !running && (
        <button
          type="button" class="link-button muted live-same" data-action="live-same"
          onClick={() => (typed.value = { ...typed.value, prompt: session.graph.value!.header.prompt })}
        >
          Take the prompt of the graph that is open
        </button>
      )}
    </form>
  );
}
