// The grid of panes: dividers to drag (or to move with the arrow keys), one pane at a time can fill the window.

import { useEffect, useRef, useState } from "preact/hooks";
import type { Pane, PaneProps } from "../app";
import { Icon } from "../draw/icons";
import { DEFAULT, limit, resize, type Sizes, sizes } from "./sizes";

export function Panes({ session, panes }: PaneProps & { panes: Pane[] }) {
  const full = session.maximised.value;
  const [graph, edges, subgraph, feature] = panes as [Pane, Pane, Pane, Pane];
  const { columns, left, right } = sizes.value;
  // The graph is drawn first; the lists beside it are filled in the next moment.
  const [rest, setRest] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setRest(true));
    return () => clearTimeout(timer);
  }, []);
  const frame = (pane: Pane) => <Frame session={session} pane={pane} filled={rest || pane === graph} key={pane.id} />;
  return (
    <main class={full ? "panes one" : "panes"} style={{ "--columns": columns, "--left": left, "--right": right }}>
      <div class="column">
        {frame(graph)}
        <Divider name="left" label="Height of the graph pane" upright={false} />
        {frame(subgraph)}
      </div>
      <Divider name="columns" label="Width of the left column" upright />
      <div class="column">
        {frame(edges)}
        <Divider name="right" label="Height of the inputs and outputs" upright={false} />
        {frame(feature)}
      </div>
    </main>
  );
}

function Frame({ session, pane, filled }: PaneProps & { pane: Pane; filled: boolean }) {
  const full = session.maximised.value;
  const here = full === pane.id;
  const View = pane.view;
  const Tools = pane.tools;
  return (
    <section class={`pane${here ? " full" : full ? " away" : ""}`} id={`pane-${pane.id}`} aria-label={pane.title}>
      <header class="pane-head">
        <h2>{pane.title}</h2>
        <div class="pane-tools">{Tools && filled && <Tools session={session} />}</div>
        <button
          class="icon-button"
          type="button"
          data-action="maximise"
          aria-pressed={here}
          aria-label={here ? `Make ${pane.title} small again` : `Maximise ${pane.title}`}
          title={here ? "Back (Escape)" : "Maximise (f)"}
          onClick={() => {
            session.maximised.value = here ? null : pane.id;
          }}
        >
          <Icon name={here ? "restore" : "maximise"} size={14} />
        </button>
      </header>
      <div class="pane-body">{filled && <View session={session} />}</div>
    </section>
  );
}

function Divider({ name, label, upright }: { name: keyof Sizes; label: string; upright: boolean }) {
  const bar = useRef<HTMLDivElement>(null);
  const at = (event: PointerEvent): number => {
    const box = bar.current!.parentElement!.getBoundingClientRect();
    return limit(upright ? (event.clientX - box.left) / box.width : (event.clientY - box.top) / box.height);
  };
  const value = sizes.value[name];
  return (
    <div
      ref={bar}
      class={upright ? "divider upright" : "divider"}
      role="separator"
      tabIndex={0}
      aria-label={label}
      aria-orientation={upright ? "vertical" : "horizontal"}
      aria-valuenow={Math.round(value * 100)}
      aria-valuemin={15}
      aria-valuemax={85}
      onPointerDown={(event) => {
        event.preventDefault();
        bar.current!.setPointerCapture(event.pointerId);
      }}
      onPointerMove={(event) => {
        if (bar.current!.hasPointerCapture(event.pointerId)) resize({ [name]: at(event) });
      }}
      onDblClick={() => resize({ [name]: DEFAULT[name] })}
      onKeyDown={(event) => {
        const step = { ArrowLeft: -0.02, ArrowUp: -0.02, ArrowRight: 0.02, ArrowDown: 0.02 }[event.key];
        if (!step) return;
        event.preventDefault();
        event.stopPropagation();
        resize({ [name]: limit(value + step) });
      }}
    />
  );
}
