import type { PaneProps } from "../../app";

export function ComparePane({ session }: PaneProps) {
  return <div>{session.current}</div>;
}
