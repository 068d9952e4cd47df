import type { PaneProps } from "../../app";

export function EdgesPane({ session }: PaneProps) {
  return <div>{session.current}</div>;
}
