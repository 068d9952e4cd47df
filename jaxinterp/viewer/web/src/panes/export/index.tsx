// The menu of everything that can be taken out of the page: pictures, the page as one file, data, paper.

import { useState } from "preact/hooks";
import type { PaneProps } from "../../app";
import { LIGHT, type Palette, palette } from "../../draw/colour";
import { Icon } from "../../draw/icons";
import { usePopup } from "../../frame/popup";
import { fileSlug } from "../subgraph/file";
import { download, shareFile } from "../subgraph/share";
import { graphPicture } from "./graph-picture";
import { pageText } from "./page";
import { type Picture, toPng, toSvg } from "./picture";
import { subgraphPicture } from "./subgraph-picture";
import "./export.css";

const SCALES = [1, 2, 3];

export function ExportMenu({ session }: PaneProps) {
  const { open, setOpen, anchor } = usePopup();
  const [light, setLight] = useState(true);
  const [scale, setScale] = useState(2);
  const graph = session.graph.value;
  const id = session.current.value;
  const empty = !session.view.value.pinned.length;

  const run = (work: () => Promise<void> | void): void => {
    setOpen(false);
    void (async () => {
      try {
        // What is exported is what is seen: nothing may be on its way to the file.
        await session.flush();
        await work();
      } catch (error) {
        session.say(error instanceof Error ? error.message : String(error), true);
      }
    })();
  };
  const colours = (): Palette => (light ? { ...LIGHT, font: palette.value.font } : palette.value);
  const picture = (make: (p: Palette) => Picture, name: string, form: "svg" | "png") => (): void =>
    run(async () => {
      const made = make(colours());
      if (form === "svg") download(`${name}.svg`, toSvg(made), "image/svg+xml");
      else download(`${name}.png`, await toPng(made, scale));
    });
  const data = (form: "json" | "html" | "jigraph") => (): void =>
    run(() => {
      const slug = graph ? fileSlug(graph) : "graph";
      const url = id === null ? null : session.source.exportUrl(id, form);
      if (url) fetchFile(url, `${slug}.${form}`);
      else if (form === "html") download(`${slug}.html`, pageText(), "text/html");
    });
  const there = (form: "json" | "jigraph"): boolean => id !== null && session.source.exportUrl(id, form) !== null;
  const slug = graph ? fileSlug(graph) : "graph";
  const pair = (what: string, action: string, make: (p: Palette) => Picture, name: string, disabled: boolean) => (
    <div class="export-pair">
      <span class="grow">{what}</span>
      <button class="button small" type="button" data-action={`${action}-svg`} disabled={disabled} title={`${name}.svg: vectors, for papers and slides`} aria-label={`${what} as SVG`} onClick={picture(make, name, "svg")}>
        SVG
      </button>
      <button class="button small" type="button" data-action={`${action}-png`} disabled={disabled} title={`${name}.png at ${scale} pixels a unit`} aria-label={`${what} as PNG`} onClick={picture(make, name, "png")}>
        PNG
      </button>
    </div>
  );
  const item = (action: string, text: string, note: string, work: () => void) => (
    <button class="menu-item" type="button" data-action={action} onClick={work}>
      <span class="grow">{text}</span>
      <span class="faint">{note}</span>
    </button>
  );
  return (
    <div class="anchor" ref={anchor}>
      <button class="button" type="button" data-action="export" aria-haspopup="dialog" aria-expanded={open} disabled={!graph} onClick={() => setOpen(!open)}>
        Export <Icon name="down" size={12} />
      </button>
      {open && graph && (
        <div class="menu right export-menu" role="dialog" aria-label="Export">
          <p class="caption">Picture</p>
          {pair("Subgraph", "export", (p) => subgraphPicture(session, p), `${slug}-subgraph`, empty)}
          {pair("Graph", "export-graph", (p) => graphPicture(session, p), `${slug}-graph`, false)}
          <div class="export-pair muted">
            <label class="row grow">
              <input type="checkbox" data-action="export-light" checked={light} onChange={(event) => setLight(event.currentTarget.checked)} />
              on white
            </label>
            <span role="radiogroup" aria-label="Pixels a unit in PNG files" class="row">
              PNG
              {SCALES.map((k) => (
                <label class="row" key={k}>
                  <input type="radio" name="export-scale" checked={scale === k} onChange={() => setScale(k)} />
                  {k}×
                </label>
              ))}
            </span>
          </div>
          <p class="caption">File</p>
          {item("export-html", "Single page", ".html", data("html"))}
          {there("json") && item("export-json", "Graph for other viewers", ".json", data("json"))}
          {there("jigraph") && item("export-jigraph", "Graph, native", ".jigraph", data("jigraph"))}
          {item("export-view", "This subgraph, to share", ".view.json", () => run(() => shareFile(session)))}
          <p class="caption">Paper</p>
          {item("print", "Print", "", () => {
            setOpen(false);
            setTimeout(() => window.print(), 50);
          })}
        </div>
      )}
    </div>
  );
}

/** Let the browser fetch a file from our server. */
function fetchFile(url: string, name: string): void {
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
}
