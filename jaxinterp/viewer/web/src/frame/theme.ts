// Dark and light: the system's choice unless the user has made one, which is remembered.

import { signal } from "@preact/signals";
import { refreshPalette } from "../draw/colour";
import { recall, remember } from "./memory";

type Theme = "dark" | "light";

const wish = window.matchMedia("(prefers-color-scheme: dark)");
const kept = recall("theme");

export const theme = signal<Theme>(kept === "dark" || kept === "light" ? kept : wish.matches ? "dark" : "light");

function apply(): void {
  document.documentElement.dataset.theme = theme.value;
  refreshPalette();
}

apply();
theme.subscribe(apply);
wish.addEventListener("change", () => {
  if (recall("theme") === null) theme.value = wish.matches ? "dark" : "light";
});

/** Light while printing, whatever is chosen. */
window.addEventListener("beforeprint", () => {
  document.documentElement.dataset.theme = "light";
  refreshPalette();
});
window.addEventListener("afterprint", apply);

export function toggleTheme(): void {
  theme.value = theme.value === "dark" ? "light" : "dark";
  remember("theme", theme.value);
}
