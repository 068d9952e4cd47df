import type { PaneProps } from "../../app";

export function SubgraphPane({ session }: PaneProps) {
  return <div>{session.current}</div>;
}
