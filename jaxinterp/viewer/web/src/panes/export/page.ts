// The page itself as a file: for pages that hold their graph and have no server to make one.

/** The document as it was opened: its own texts, without what the page has drawn into it. */
export function pageText(): string {
  const copy = document.documentElement.cloneNode(true) as HTMLElement;
  copy.querySelector("#app")?.replaceChildren();
  for (const name of [...copy.getAttributeNames()]) if (name !== "lang") copy.removeAttribute(name);
  return `<!doctype html>\n${copy.outerHTML}\n`;
}
