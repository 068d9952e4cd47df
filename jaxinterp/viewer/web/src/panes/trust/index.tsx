import type { PaneProps } from "../../app";

export function TrustCard({ session }: PaneProps) {
  return <div>{session.current}</div>;
}
