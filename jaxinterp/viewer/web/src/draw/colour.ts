// Colours of the theme for canvases, and numbers as short text.

import { signal } from "@preact/signals";

export type Rgb = readonly [number, number, number];

export interface Palette {
  dark: boolean;
  bg: string;
  panel: string;
  raise: string;
  text: string;
  muted: string;
  faint: string;
  line: string;
  accent: string;
  positive: string;
  negative: string;
  warn: string;
  bad: string;
  good: string;
  font: string;
}

const NAMES = ["bg", "panel", "raise", "text", "muted", "faint", "line", "accent", "positive", "negative", "warn", "bad", "good", "font"] as const;

function read(): Palette {
  const style = getComputedStyle(document.documentElement);
  const found = Object.fromEntries(NAMES.map((name) => [name, style.getPropertyValue(`--${name}`).trim()])) as Record<(typeof NAMES)[number], string>;
  return { ...found, dark: luminance(rgb(found.panel)) < 0.4 };
}

/** The light colours as they are in theme.css: for pictures on white, whatever the page looks like. */
export const LIGHT: Palette = {
  dark: false, bg: "#f1f1ee", panel: "#ffffff", raise: "#f7f7f5", text: "#1b1d22", muted: "#5c606a", faint: "#72767f", line: "#e2e2dd",
  accent: "#d0157f", positive: "#0e8552", negative: "#5226a6", warn: "#a05a00", bad: "#b3261e", good: "#1a7f4b", font: "sans-serif",
};

/** The theme's colours now; canvases that read it inside an effect are drawn again when the theme changes. */
export const palette = signal<Palette>(typeof document === "undefined" ? LIGHT : read());

/** Read the theme again, after it has changed. */
export function refreshPalette(): void {
  ramps.clear();
  palette.value = read();
}

/** "#rgb" or "#rrggbb" as three numbers 0..255. */
export function rgb(colour: string): Rgb {
  const hex = colour.replace("#", "");
  const full = hex.length === 3 ? [...hex].map((c) => c + c).join("") : hex;
  const value = Number.parseInt(full, 16);
  return Number.isNaN(value) ? [128, 128, 128] : [(value >> 16) & 255, (value >> 8) & 255, value & 255];
}

function luminance([r, g, b]: Rgb): number {
  return (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255;
}

/** A colour between two, t = 0 the first; "#rrggbb". */
export function mix(from: string, to: string, t: number): string {
  const a = rgb(from);
  const b = rgb(to);
  const part = (i: 0 | 1 | 2): string => Math.round(a[i] + (b[i] - a[i]) * t).toString(16).padStart(2, "0");
  return `#${part(0)}${part(1)}${part(2)}`;
}

const ramps = new Map<string, string[]>();
const STEPS = 64;

/** The colour of a signed share, -1..1: neutral near 0, the theme's negative and positive colours from about ±0.5 on. */
export function signed(share: number): string {
  return signedOn(palette.peek(), share);
}

/** The same in the colours of any palette. */
export function signedOn(p: Palette, share: number): string {
  if (!(Math.abs(share) > 0)) return p.faint;
  const end = share > 0 ? p.positive : p.negative;
  const key = `${p.panel}${end}`;
  let ramp = ramps.get(key);
  if (!ramp) {
    const start = mix(p.panel, p.faint, 0.55);
    ramp = Array.from({ length: STEPS + 1 }, (_, i) => mix(start, end, i / STEPS));
    ramps.set(key, ramp);
  }
  // Shares of most edges are small: the square root keeps their sign visible.
  const t = Math.min(1, 0.25 + 1.06 * Math.sqrt(Math.abs(share)));
  return ramp[Math.round(t * STEPS)]!;
}

/** A number in few characters: 1.23, 0.0041, 5.2e-7, 12,400; "–" where there is none. */
export function sizeText(x: number | null | undefined): string {
  if (x === null || x === undefined || !Number.isFinite(x)) return "–";
  const size = Math.abs(x);
  let text: string;
  if (size === 0) text = "0";
  else if (size >= 1e7 || size < 1e-4) text = size.toExponential(1);
  else if (size >= 1000) text = count(Math.round(size));
  else text = String(Number(size.toPrecision(3)));
  return x < 0 ? `−${text}` : text;
}

/** A share as percent: 61 %, 4.2 %, <0.1 %, −12 %; "–" where there is none. */
export function percent(x: number | null | undefined): string {
  if (x === null || x === undefined || !Number.isFinite(x)) return "–";
  const size = Math.abs(x) * 100;
  const sign = x < 0 ? "−" : "";
  if (size === 0) return "0 %";
  if (size < 0.1) return `${sign}<0.1 %`;
  return `${sign}${size < 9.95 ? size.toFixed(1) : Math.round(size)} %`;
}

/** 1234567 as 1,234,567. (By hand: the browser's own formatter takes longer to start than a graph to draw.) */
export const count = (n: number): string => String(n).replace(/\B(?=(\d{3})+$)/g, ",");
