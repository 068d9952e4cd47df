// A subgraph out to a file and back in.

import type { Session } from "../../model/session";
import { readViewFile, viewFile, viewFileName } from "./file";

/** Let the browser keep something as a file. */
export function download(name: string, content: Blob | string, type = "application/json"): void {
  const blob = typeof content === "string" ? new Blob([content], { type }) : content;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export function shareFile(session: Session): void {
  const graph = session.graph.value;
  if (graph) download(viewFileName(graph), viewFile(graph, session.view.value));
}

/** Ask for a file and open the subgraph in it. */
export function openFile(session: Session): void {
  const input = document.createElement("input");
  input.type = "file";
  input.accept = ".json,application/json";
  input.addEventListener("change", () => {
    const file = input.files?.[0];
    if (file) void restore(session, file);
  });
  input.click();
}

export async function dropped(session: Session, event: DragEvent): Promise<void> {
  const files = [...(event.dataTransfer?.files ?? [])];
  if (!files.length) return;
  event.preventDefault();
  if (files.length > 1) return session.say(`${files.length} files were dropped: drop one .view.json file.`, true);
  await restore(session, files[0]!);
}

export async function restore(session: Session, file: File): Promise<void> {
  const graph = session.graph.value;
  if (!graph) return;
  try {
    if (file.size > 32_000_000) throw new Error(`the file has ${file.size} bytes: a view has at most 32 MB`);
    const { view, notes } = readViewFile(graph, await file.text());
    if (!view.pinned.length && notes.length) throw new Error(`no pinned node of it is in this graph; ${notes.join("; ")}`);
    session.change(`open ${file.name}`, (now) => ({
      ...view,
      clicked: view.clicked ?? now.clicked,
      // Views of the same name come from the file, others stay.
      views: [...now.views.filter((v) => !view.views.some((w) => w.name === v.name)), ...view.views].slice(-200),
    }));
    session.say(`Opened the subgraph of ${file.name}${notes.length ? `: ${notes.join("; ")}` : ""}.`, false);
  } catch (error) {
    session.say(`${file.name}: ${error instanceof Error ? error.message : String(error)}`, true);
  }
}
