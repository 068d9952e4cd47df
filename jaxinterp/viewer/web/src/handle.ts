// For the browser's console and for tests: the session, and where a node is drawn (client coordinates).

import type { Session } from "./model/session";

export const handle = {
  session: null as Session | null,
  places: {} as Record<string, (node: number) => [number, number] | null>,
};

(window as unknown as { jaxinterp: typeof handle }).jaxinterp = handle;
