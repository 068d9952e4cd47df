// Small settings of the page that outlive it; where the browser allows none, they last as long as the page.

const PREFIX = "jaxinterp:setting:";

export function recall(name: string): string | null {
  try {
    return localStorage.getItem(PREFIX + name);
  } catch {
    return null;
  }
}

export function remember(name: string, value: string): void {
  try {
    localStorage.setItem(PREFIX + name, value);
  } catch {
    // a sandboxed page keeps nothing
  }
}
