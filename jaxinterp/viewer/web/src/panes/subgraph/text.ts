// Widths of text, and text cut into lines that fit.

let context: CanvasRenderingContext2D | null | undefined;
const known = new Map<string, number>();

/** Width in pixels of a text in this font, such as "600 13px Inter". Without a canvas (tests) an estimate from its letters. */
export function textWidth(text: string, font: string): number {
  if (context === undefined) context = typeof document === "undefined" ? null : document.createElement("canvas").getContext("2d");
  if (!context) return estimate(text, Number(/(\d+(?:\.\d+)?)px/.exec(font)?.[1] ?? 12));
  const key = `${font}\n${text}`;
  let width = known.get(key);
  if (width === undefined) {
    context.font = font;
    width = context.measureText(text).width;
    if (known.size > 5000) known.clear();
    known.set(key, width);
  }
  return width;
}

function estimate(text: string, size: number): number {
  let units = 0;
  for (const c of text) units += c > "\u2e7f" ? 1 : "ijl.,:;|!' ".includes(c) ? 0.32 : "mwMW@".includes(c) ? 0.9 : c >= "A" && c <= "Z" ? 0.7 : 0.57;
  return units * size;
}

/** Text cut to a width, "…" at the cut. */
export function cut(text: string, most: number, font: string): string {
  if (textWidth(text, font) <= most) return text;
  const letters = [...text];
  let low = 0;
  let high = letters.length;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (textWidth(`${letters.slice(0, middle).join("").trimEnd()}…`, font) <= most) low = middle;
    else high = middle - 1;
  }
  return `${letters.slice(0, low).join("").trimEnd()}…`;
}

/** Text in at most `lines` lines of this width, broken at blanks where there are some. */
export function wrap(text: string, most: number, font: string, lines: number): string[] {
  const found: string[] = [];
  let rest = text.replace(/\s+/g, " ").trim();
  while (rest && found.length < lines - 1 && textWidth(rest, font) > most) {
    const words = rest.split(" ");
    let line = "";
    while (words.length && textWidth(line ? `${line} ${words[0]}` : words[0]!, font) <= most) line = line ? `${line} ${words.shift()}` : words.shift()!;
    if (!line) {
      // One word longer than the line: as many letters as fit.
      const letters = [...rest];
      let k = letters.length - 1;
      while (k > 1 && textWidth(letters.slice(0, k).join(""), font) > most) k--;
      line = letters.slice(0, k).join("");
      rest = letters.slice(k).join("");
    } else rest = words.join(" ");
    found.push(line);
  }
  if (rest) found.push(cut(rest, most, font));
  return found.length ? found : [""];
}
