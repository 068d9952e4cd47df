// A field over a box to change its name.

import { useEffect, useRef } from "preact/hooks";
import type { PaneProps } from "../../app";
import { renameBox, renaming } from "./actions";
import type { Drawing } from "./geometry";

export function Rename({ session, drawing, at }: PaneProps & { drawing: Drawing; at: { x: number; y: number; k: number } }) {
  const field = useRef<HTMLInputElement>(null);
  const key = renaming.value;
  const shape = drawing.shapes.find((s) => s.box.key === key);
  useEffect(() => {
    field.current?.focus();
    field.current?.select();
  }, [key]);
  if (!key || !shape) return null;
  // A node's own label, not the text that stands in for a missing one.
  const now = key.startsWith("g:") ? key.slice(2) : session.label(Number(key.slice(1)));
  const close = (keep: boolean): void => {
    const text = field.current?.value ?? now;
    renaming.value = null;
    if (keep && text.trim() !== now) renameBox(session, key, text);
  };
  const width = Math.max(140, shape.width * at.k);
  return (
    <input
      ref={field}
      class="field sg-rename"
      aria-label={`New name of ${shape.box.name}`}
      data-field="rename"
      value={now}
      placeholder={shape.box.name}
      maxLength={190}
      style={{ left: `${at.x + at.k * shape.x - width / 2}px`, top: `${at.y + at.k * shape.y - 14}px`, width: `${width}px` }}
      onBlur={() => renaming.value === key && close(true)}
      onKeyDown={(event) => {
        event.stopPropagation();
        if (event.key === "Enter") close(true);
        else if (event.key === "Escape") close(false);
      }}
    />
  );
}
