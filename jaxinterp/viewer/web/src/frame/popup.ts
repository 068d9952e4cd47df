// Menus that close when something else is clicked or Escape is pressed.

import { useEffect, useRef, useState } from "preact/hooks";

/** State of a menu: put `anchor` on the element around its button and the menu. */
export function usePopup() {
  const [open, setOpen] = useState(false);
  const anchor = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (!open) return;
    const outside = (event: Event): void => {
      if (!anchor.current?.contains(event.target as Node)) setOpen(false);
    };
    const escape = (event: KeyboardEvent): void => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      event.preventDefault();
      setOpen(false);
      anchor.current?.querySelector<HTMLElement>("button")?.focus();
    };
    // In a list of commands arrows go from one to the next; fields keep theirs.
    const arrows = (event: KeyboardEvent): void => {
      const menu = anchor.current?.querySelector<HTMLElement>("[role=menu]");
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!menu || !step || (event.target as HTMLElement).matches?.("input:not([type=checkbox]), textarea, select")) return;
      event.stopPropagation();
      event.preventDefault();
      const items = [...menu.querySelectorAll<HTMLElement>("button:not(:disabled), input:not(:disabled), a[href]")];
      const at = items.indexOf(document.activeElement as HTMLElement);
      items.at(at < 0 ? (step > 0 ? 0 : -1) : (at + step) % items.length)?.focus();
    };
    anchor.current?.addEventListener("keydown", arrows);
    document.addEventListener("pointerdown", outside, true);
    document.addEventListener("focusin", outside);
    document.addEventListener("keydown", escape, true);
    const around = anchor.current;
    return () => {
      around?.removeEventListener("keydown", arrows);
      document.removeEventListener("pointerdown", outside, true);
      document.removeEventListener("focusin", outside);
      document.removeEventListener("keydown", escape, true);
    };
  }, [open]);
  return { open, setOpen, anchor };
}
