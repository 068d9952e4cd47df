// A node's name that can be changed in place.

import { useEffect, useRef, useState } from "preact/hooks";
import type { GraphData } from "../../model/bundle";
import type { Session } from "../../model/session";
import { label } from "../../model/view";

interface NameProps {
  session: Session;
  graph: GraphData;
  node: number;
  /** Of the text field, unique in the page. */
  id: string;
}

export function NodeName({ session, graph, node, id }: NameProps) {
  const [editing, setEditing] = useState(false);
  const field = useRef<HTMLInputElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  const back = useRef(false);
  const ended = useRef(true); // taking the field away blurs it once more
  const name = session.name(node);

  useEffect(() => setEditing(false), [node]);
  useEffect(() => {
    if (editing) field.current?.select();
    else if (back.current) button.current?.focus();
    back.current = false;
  }, [editing]);

  const begin = (): void => {
    ended.current = false;
    setEditing(true);
  };
  const finish = (keep: boolean, focus: boolean): void => {
    if (ended.current || !field.current) return;
    ended.current = true;
    const text = field.current.value.trim();
    back.current = focus;
    setEditing(false);
    if (!keep || text === session.label(node)) return;
    // The name that the file has is no change of the user's.
    const file = graph.header.labels[String(node)] ?? "";
    session.change(`rename ${name}`, (view) => label(view, node, text === file ? "" : text));
  };

  if (!editing) {
    return (
      <button ref={button} type="button" class="node-name ellipsis" dir="auto" data-action="rename" aria-label={`${name}: rename`} title={`${name}\nClick to rename`} onClick={begin}>
        {name}
      </button>
    );
  }
  return (
    <input
      ref={field} class="field node-field" id={id} aria-label="Label of the node" defaultValue={session.label(node)} placeholder={graph.place(node)} maxLength={400}
      onBlur={() => finish(true, false)}
      onKeyDown={(event) => {
        event.stopPropagation();
        if (event.key === "Enter") finish(true, true);
        if (event.key === "Escape") finish(false, true);
      }}
    />
  );
}
