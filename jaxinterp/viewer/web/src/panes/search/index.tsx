import type { PaneProps } from "../../app";

export function SearchBar({ session }: PaneProps) {
  return <div>{session.current}</div>;
}
