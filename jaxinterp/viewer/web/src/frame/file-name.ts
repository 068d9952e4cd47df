// What to call a graph among others: many files may hold graphs of one name.

import type { FileEntry } from "../io/types";

/** The file's name where it says more than the graph's own, else "". */
export const fileBeside = ({ slug, file }: Pick<FileEntry, "slug" | "file">): string => (slug === "" || slug === file.replace(/\.(jigraph|json)$/, "") ? "" : file);

/** One line that no other file of the list has. */
export function fileTitle(entry: Pick<FileEntry, "slug" | "file">): string {
  const beside = fileBeside(entry);
  return beside ? `${entry.slug} (${beside})` : entry.slug || entry.file;
}
