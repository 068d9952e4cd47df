/** The names of the path's nodes and what is said after them; null where the text is no path of that many nodes. */
export function splitReading(text: string, nodes: number): { names: string[]; rest: string } | null {
  if (nodes < 1) return null;
  const pieces = text.split(" → ");
  if (pieces.length < nodes) return null;
  // Labels may hold arrows or commas of their own: then the line is shown as it is.
  if (pieces.length > nodes) return null;
  const last = pieces.at(-1)!;
  const found = /^(.*?)(, [^,]*% .*|: .*|; .*)$/s.exec(last);
  const names = [...pieces.slice(0, -1), found ? found[1]! : last];
  return { names, rest: found ? found[2]! : "" };
}
