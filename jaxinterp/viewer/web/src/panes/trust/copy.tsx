// A command to copy, also where the browser does not let a page write to the clipboard.

import { useEffect, useRef, useState } from "preact/hooks";
import "./copy.css";

/** Copy a text; false where the browser forbids it. */
export async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

function copyBySelection(text: string): boolean {
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "hidden-text";
  area.readOnly = true;
  const parent = document.querySelector("dialog[open]") ?? document.body;
  const before = document.activeElement;
  parent.append(area);
  area.select();
  let done = false;
  try {
    done = document.execCommand("copy");
  } catch {
    // refused: the caller says so
  }
  area.remove();
  if (before instanceof HTMLElement) before.focus();
  return done;
}

export function Command({ text, label = "command" }: { text: string; label?: string }) {
  const code = useRef<HTMLElement>(null);
  const timer = useRef(0);
  const [state, setState] = useState<"" | "Copied" | "Selected: press Ctrl C">("");
  useEffect(() => () => clearTimeout(timer.current), []);

  const copy = async (): Promise<void> => {
    const done = await copyText(text);
    if (!done && code.current) getSelection()?.selectAllChildren(code.current);
    setState(done ? "Copied" : "Selected: press Ctrl C");
    clearTimeout(timer.current);
    timer.current = window.setTimeout(() => setState(""), 2500);
  };

  return (
    <div class="command">
      <code ref={code} class="mono" tabIndex={0} aria-label={label}>
        {text}
      </code>
      <button type="button" class="button small" data-action="copy" aria-label={`Copy the ${label}`} onClick={() => void copy()}>
        <span aria-live="polite">{state || "Copy"}</span>
      </button>
    </div>
  );
}
