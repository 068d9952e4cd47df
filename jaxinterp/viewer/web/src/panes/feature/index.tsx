import type { PaneProps } from "../../app";

export function FeaturePane({ session }: PaneProps) {
  return <div>{session.current}</div>;
}
