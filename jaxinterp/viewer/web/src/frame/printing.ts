// Whether the page is being printed: what shows only what is in sight then shows more.

import { signal } from "@preact/signals";

export const printing = signal(false);

if (typeof window !== "undefined" && window.addEventListener) {
  window.addEventListener("beforeprint", () => {
    printing.value = true;
  });
  window.addEventListener("afterprint", () => {
    printing.value = false;
  });
}
