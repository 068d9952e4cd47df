import type { PaneProps } from "../../app";

export function GraphPane({ session }: PaneProps) {
  return <div>{session.current}</div>;
}
