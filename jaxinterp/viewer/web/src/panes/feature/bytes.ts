// Tokens that are pieces of characters, written as \xNN or <0xNN>, joined to what they spell.

const PIECE = /\\x([0-9a-fA-F]{2})|<0x([0-9a-fA-F]{2})>/g;
const LONGEST = 6; // tokens that one character can be spread over, with room to spare

/** Some neighbouring tokens shown as one text. */
export interface Cell {
  text: string;
  /** The largest activation among its tokens. */
  value: number;
  /** First token, and the one after the last. */
  from: number;
  to: number;
}

const strict = new TextDecoder("utf-8", { fatal: true });
const encoder = new TextEncoder();

/** The bytes of a token in which some are escaped, null for a token of plain text. Escapes below 0x80 are plain. */
function bytesOf(token: string): Uint8Array | null {
  if (!token.includes("\\x") && !token.includes("<0x")) return null;
  const bytes: number[] = [];
  let end = 0;
  let escaped = false;
  for (const match of token.matchAll(PIECE)) {
    const value = Number.parseInt(match[1] ?? match[2]!, 16);
    if (value < 0x80) continue;
    bytes.push(...encoder.encode(token.slice(end, match.index)), value);
    end = match.index + match[0].length;
    escaped = true;
  }
  if (!escaped) return null;
  bytes.push(...encoder.encode(token.slice(end)));
  return Uint8Array.from(bytes);
}

/** Tokens as cells: neighbours whose bytes are UTF-8 together become one; what makes no character stays as it is. */
export function cellsOf(tokens: string[], values: number[]): Cell[] {
  const bytes = tokens.map(bytesOf);
  const cells: Cell[] = [];
  for (let i = 0; i < tokens.length; ) {
    const joined = bytes[i] ? join(bytes, i) : null;
    const to = joined ? joined.to : i + 1;
    let value = 0;
    for (let k = i; k < to; k++) value = Math.max(value, values[k] ?? 0);
    cells.push({ text: joined ? joined.text : tokens[i]!, value, from: i, to });
    i = to;
  }
  return cells;
}

function join(bytes: (Uint8Array | null)[], from: number): { text: string; to: number } | null {
  const together: number[] = [];
  for (let to = from; to < Math.min(bytes.length, from + LONGEST) && bytes[to]; to++) {
    together.push(...bytes[to]!);
    try {
      return { text: strict.decode(Uint8Array.from(together)), to: to + 1 };
    } catch {
      // not complete yet
    }
  }
  return null;
}

/** One token's text, with its bytes joined where they are whole characters. */
export const tokenText = (token: string): string => cellsOf([token], [0])[0]!.text;

/** Whether tokens are words that have to be set apart: none has a blank at an end, and they are no single characters. */
export function areWords(tokens: string[]): boolean {
  if (tokens.some((token) => /^\s|\s$/.test(token))) return false;
  return tokens.reduce((sum, token) => sum + token.length, 0) > 2 * tokens.length;
}

/** A token inside running text: blanks stay blanks, line ends and control characters can be seen. */
export function inText(text: string): string {
  return text
    .replace(/\r?\n/g, "⏎")
    .replace(/\t/g, "⇥")
    // biome-ignore lint: control characters are what is looked for
    .replace(/[\u0000-\u001f\u007f]/g, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`);
}
