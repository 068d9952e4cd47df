import type { PaneProps } from "../../app";

export function LivePane({ session }: PaneProps) {
  return <div>{session.current}</div>;
}
