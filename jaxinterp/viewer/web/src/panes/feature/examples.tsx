// Texts on which a feature is active: one line each around the peak, the whole text on a click.

import { useMemo, useState } from "preact/hooks";
import { count as countText, sizeText } from "../../draw/colour";
import type { Example, Feature } from "../../io/types";
import "./examples.css";
import { areWords, cellsOf, inText, type Cell } from "./bytes";

const SIDE = 48; // cells on each side of the peak in a line
const MOST_SHADE = 58; // percent: text stays readable on it

export function Examples({ feature }: { feature: Feature }) {
  const groups = feature.examples.filter((group) => group.examples.length);
  const [chosen, setChosen] = useState(0);
  const [whole, setWhole] = useState(false);
  const top = useMemo(() => highest(feature), [feature]);
  if (!groups.length) return null;
  const group = groups[Math.min(chosen, groups.length - 1)]!;
  const seen = new Set<string>();
  const apart = useMemo(() => areWords(feature.examples.flatMap((one) => one.examples.flatMap((example) => example.tokens))), [feature]);
  const step = (event: KeyboardEvent): void => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    event.stopPropagation();
    const next = (Math.min(chosen, groups.length - 1) + by + groups.length) % groups.length;
    setChosen(next);
    ((event.currentTarget as HTMLElement).children[next] as HTMLElement | undefined)?.focus();
  };
  return (
    <section class="feature-part examples" aria-label="Examples">
      <div class="examples-head">
        <h3 class="caption">Examples</h3>
        <div class="example-tabs" role="tablist" aria-label="Which examples" onKeyDown={step}>
          {groups.map((one, i) => (
            <button key={one.name} type="button" role="tab" class="example-tab" data-action="example-tab" aria-selected={one === group} tabIndex={one === group ? 0 : -1} onClick={() => setChosen(i)}>
              {short(one.name)}
            </button>
          ))}
        </div>
        <button type="button" class="link-button muted example-whole" data-action="expand-examples" aria-pressed={whole} onClick={() => setWhole(!whole)}>
          {whole ? "one line each" : "whole texts"}
        </button>
      </div>
      <div role="tabpanel">
      <ol class={apart ? "list apart" : "list"}>
        {group.examples.map((example, i) => {
          const text = example.tokens.join("\u0000");
          const again = seen.has(text);
          seen.add(text);
          return <Line key={`${feature.layer} ${feature.index} ${group.name} ${i} ${whole}`} example={example} top={top} open={whole} again={again} counted={feature.source === "jaxinterp"} />;
        })}
      </ol>
      </div>
    </section>
  );
}

interface LineProps {
  example: Example;
  top: number;
  open: boolean;
  /** The same text is above. */
  again: boolean;
  /** Whether the file counts how often a text came; others only say that it came before. */
  counted: boolean;
}

function Line({ example, top, open: first, again, counted }: LineProps) {
  const [open, setOpen] = useState(first);
  const cells = useMemo(() => cellsOf(example.tokens, example.values), [example]);
  const at = Math.max(0, cells.findIndex((cell) => example.at >= cell.from && example.at < cell.to));
  const peak = example.values[example.at] ?? 0;
  const repeated = again || (!counted && example.repeats > 1);
  const times = counted && example.repeats > 1 ? countText(example.repeats) : "";
  const note = [again ? "this text is listed above" : repeated ? "the file marks this text as a repeated one" : "", times && `this text came ${times} times`].filter(Boolean).join(", ");
  return (
    <li class={`example${open ? " open" : ""}${repeated ? " repeated" : ""}`}>
      <button type="button" class="example-line" data-action="expand-example" aria-expanded={open} title={open ? "Show one line" : "Show the whole text"} onClick={() => setOpen(!open)}>
        <span class="number example-value">{steady(peak)}</span>
        {open ? (
          <span class="example-all">{cells.map((cell, i) => <Token key={i} cell={cell} top={top} peak={i === at} wrap />)}</span>
        ) : (
          <>
            <span class="example-left">
              <span>{cells.slice(Math.max(0, at - SIDE), at).map((cell, i) => <Token key={i} cell={cell} top={top} peak={false} />)}</span>
            </span>
            <span class="example-right">{cells.slice(at, at + SIDE).map((cell, i) => <Token key={i} cell={cell} top={top} peak={i === 0} />)}</span>
          </>
        )}
        {!open && <span class="number example-repeats" title={note || undefined}>{repeated ? "again" : times && `×${times}`}</span>}
      </button>
      {open && (example.where || note) && <p class="example-from muted">{[example.where, note].filter(Boolean).join(" · ")}</p>}
    </li>
  );
}

function Token({ cell, top, peak, wrap = false }: { cell: Cell; top: number; peak: boolean; wrap?: boolean }) {
  const shade = top > 0 && cell.value > 0 ? Math.max(8, Math.min(1, cell.value / top) * MOST_SHADE) : 0;
  const text = inText(cell.text);
  return (
    <>
      <span
        class={peak ? "example-token peak" : "example-token"}
        style={shade ? { backgroundColor: `color-mix(in srgb, var(--warn) ${shade.toFixed(0)}%, transparent)` } : undefined}
        title={cell.value > 0 ? `“${text}” ${sizeText(cell.value)}` : undefined}
      >
        {text}
      </span>
      {wrap && cell.text.includes("\n") && <br />}
    </>
  );
}

function highest(feature: Feature): number {
  let top = feature.max_activation ?? 0;
  for (const group of feature.examples) for (const example of group.examples) for (const value of example.values) if (value > top) top = value;
  return top;
}

/** With three digits throughout, as the values are below each other. */
const steady = (x: number): string => (x >= 1e-3 && x < 1000 ? x.toPrecision(3) : sizeText(x));

const short = (name: string): string => name.replace(/^Subsample Interval /, "Interval ").replace(/^Quantile (\d+)$/, "Q$1");
