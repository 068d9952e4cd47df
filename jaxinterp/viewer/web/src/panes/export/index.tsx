import type { PaneProps } from "../../app";

export function ExportMenu({ session }: PaneProps) {
  return <div>{session.current}</div>;
}
