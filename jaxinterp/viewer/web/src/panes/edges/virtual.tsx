// A long list of which only the lines in sight are in the page. All lines are of one height, but what hangs below
// one opened line, which is measured.

import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { count as countText } from "../../draw/colour";
import { printing } from "../../frame/printing";

const AROUND = 5;
/** Lines on paper. */
const PRINTED = 100;

export interface VirtualProps {
  count: number;
  height: number;
  /** The line that is opened, -1 for none, and what hangs below it. */
  open: number;
  below: ComponentChildren;
  /** The line that must be in sight; the list scrolls when it changes. */
  active: number;
  /** Another list: scroll to its start. */
  reset: unknown;
  line: (at: number) => ComponentChildren;
}

export function Virtual({ count, height, open, below, active, reset, line }: VirtualProps) {
  const box = useRef<HTMLDivElement>(null);
  const hung = useRef<HTMLDivElement>(null);
  const known = useRef(0); // asking the page for it would cost a layout
  const [top, setTop] = useState(0);
  const [room, setRoom] = useState(400);
  const [extra, setExtra] = useState(0);

  useLayoutEffect(() => {
    const scroller = box.current!.parentElement!;
    const observer = new ResizeObserver(() => setRoom(scroller.clientHeight));
    observer.observe(scroller);
    const onScroll = (): void => {
      known.current = scroller.scrollTop;
      setTop(known.current);
    };
    scroller.addEventListener("scroll", onScroll, { passive: true });
    return () => {
      observer.disconnect();
      scroller.removeEventListener("scroll", onScroll);
    };
  }, []);

  useLayoutEffect(() => {
    if (known.current === 0) return;
    known.current = 0;
    box.current!.parentElement!.scrollTop = 0;
    setTop(0);
  }, [reset]);

  useLayoutEffect(() => {
    if (!hung.current) return setExtra(0);
    const observer = new ResizeObserver(() => setExtra(hung.current?.offsetHeight ?? 0));
    observer.observe(hung.current);
    return () => observer.disconnect();
  }, [open]);

  const at = (i: number): number => i * height + (open >= 0 && i > open ? extra : 0);

  useLayoutEffect(() => {
    if (active < 0 || active >= count) return;
    const scroller = box.current!.parentElement!;
    const head = box.current!.offsetTop - scroller.offsetTop;
    if (at(active) < scroller.scrollTop) scroller.scrollTop = at(active);
    else if (head + at(active) + height > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = head + at(active) + height - scroller.clientHeight;
  }, [active]);

  const paper = printing.value;
  const first = paper ? 0 : Math.max(0, Math.floor((top - extra) / height) - AROUND);
  const last = Math.min(count, paper ? PRINTED : Math.ceil((top + room) / height) + AROUND);
  // Elements go round: a line that leaves at one end is the one that comes in at the other.
  const slots = paper ? PRINTED : Math.ceil(room / height) + 2 * AROUND + 2 + Math.ceil(extra / height);
  const lines = [];
  for (let i = first; i < last; i++) {
    lines.push(
      <div class="virtual-line" role="presentation" key={i % slots} style={{ top: `${at(i)}px`, height: `${height}px` }}>
        {line(i)}
      </div>,
    );
  }
  return (
    <div class="virtual" role="presentation" ref={box} style={{ height: `${(paper ? last : count) * height + (open >= 0 ? extra : 0)}px` }}>
      {lines}
      {open >= 0 && open < count && (
        <div class="virtual-below" role="presentation" ref={hung} style={{ top: `${(open + 1) * height}px` }}>
          {below}
        </div>
      )}
      {paper && last < count && <p class="virtual-rest muted">{`and ${countText(count - last)} more`}</p>}
    </div>
  );
}
