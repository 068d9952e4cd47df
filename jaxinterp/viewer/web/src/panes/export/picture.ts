// A picture as a list of marks, which becomes SVG text or is painted on a canvas: so both show the same, and neither
// needs the page's style sheet or its fonts.

export type Mark =
  | { kind: "rect"; x: number; y: number; width: number; height: number; round?: number; fill?: string; stroke?: string; line?: number }
  | { kind: "path"; d: string; fill?: string; stroke?: string; line?: number; opacity?: number; dash?: readonly number[] }
  | { kind: "text"; x: number; y: number; text: string; size: number; bold?: boolean; fill: string; anchor?: "start" | "middle" | "end"; turn?: number; halo?: string };

export interface Picture {
  title: string;
  width: number;
  height: number;
  background: string;
  font: string;
  marks: Mark[];
}

/** Text inside SVG: what XML minds is escaped, what it forbids is left out. */
export function escaped(text: string): string {
  return text
    // biome-ignore lint: control characters are what is looked for
    .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "")
    .replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "\ufffd")
    .replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}

const number = (x: number): string => String(Math.round(x * 100) / 100);

/** The picture as a file of its own: no style sheet, no font, no address but the name of SVG. */
export function toSvg(picture: Picture): string {
  const { width, height, font } = picture;
  const lines = [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${number(width)}" height="${number(height)}" viewBox="0 0 ${number(width)} ${number(height)}" font-family="${escaped(font)}" role="img">`,
    `<title>${escaped(picture.title)}</title>`,
    `<rect width="${number(width)}" height="${number(height)}" fill="${picture.background}"/>`,
    ...picture.marks.map(element),
    "</svg>",
  ];
  return `${lines.join("\n")}\n`;
}

function paintOf(mark: { fill?: string; stroke?: string; line?: number; opacity?: number; dash?: readonly number[] }): string {
  const dash = mark.dash ? ` stroke-dasharray="${mark.dash.join(" ")}"` : "";
  const stroke = mark.stroke ? ` stroke="${mark.stroke}" stroke-width="${number(mark.line ?? 1)}"${dash}` : "";
  const opacity = mark.opacity !== undefined && mark.opacity < 1 ? ` opacity="${number(mark.opacity)}"` : "";
  return ` fill="${mark.fill ?? "none"}"${stroke}${opacity}`;
}

function element(mark: Mark): string {
  switch (mark.kind) {
    case "rect":
      return `<rect x="${number(mark.x)}" y="${number(mark.y)}" width="${number(mark.width)}" height="${number(mark.height)}"${mark.round ? ` rx="${number(mark.round)}"` : ""}${paintOf(mark)}/>`;
    case "path":
      return `<path d="${mark.d}"${paintOf(mark)}/>`;
    default: {
      const anchor = mark.anchor && mark.anchor !== "start" ? ` text-anchor="${mark.anchor}"` : "";
      const weight = mark.bold ? ' font-weight="600"' : "";
      const turn = mark.turn ? ` transform="rotate(${number(mark.turn)} ${number(mark.x)} ${number(mark.y)})"` : "";
      const halo = mark.halo ? ` stroke="${mark.halo}" stroke-width="3" stroke-linejoin="round" paint-order="stroke"` : "";
      return `<text x="${number(mark.x)}" y="${number(mark.y)}" font-size="${number(mark.size)}"${weight}${anchor} fill="${mark.fill}"${halo}${turn} xml:space="preserve">${escaped(mark.text)}</text>`;
    }
  }
}

/** Paint the picture on a canvas that is scaled already. */
export function paint(picture: Picture, context: CanvasRenderingContext2D): void {
  context.fillStyle = picture.background;
  context.fillRect(0, 0, picture.width, picture.height);
  for (const mark of picture.marks) {
    context.save();
    if (mark.kind === "text") {
      context.font = `${mark.bold ? 600 : 400} ${mark.size}px ${picture.font}`;
      context.textAlign = mark.anchor === "middle" ? "center" : (mark.anchor ?? "start");
      context.translate(mark.x, mark.y);
      if (mark.turn) context.rotate((mark.turn * Math.PI) / 180);
      if (mark.halo) {
        context.strokeStyle = mark.halo;
        context.lineWidth = 3;
        context.lineJoin = "round";
        context.strokeText(mark.text, 0, 0);
      }
      context.fillStyle = mark.fill;
      context.fillText(mark.text, 0, 0);
    } else {
      const path = new Path2D(mark.kind === "path" ? mark.d : undefined);
      if (mark.kind === "rect") path.roundRect(mark.x, mark.y, mark.width, mark.height, mark.round ?? 0);
      else {
        context.globalAlpha = mark.opacity ?? 1;
        context.setLineDash([...(mark.dash ?? [])]);
      }
      if (mark.fill && mark.fill !== "none") {
        context.fillStyle = mark.fill;
        context.fill(path);
      }
      if (mark.stroke) {
        context.strokeStyle = mark.stroke;
        context.lineWidth = mark.line ?? 1;
        context.stroke(path);
      }
    }
    context.restore();
  }
}

const MOST_SIDE = 16_000;
const MOST_PIXELS = 120e6;

/** The picture as a PNG, `scale` pixels a unit, fewer where that were more than a canvas holds. */
export function toPng(picture: Picture, scale: number): Promise<Blob> {
  const { width, height } = picture;
  const most = Math.min(scale, MOST_SIDE / width, MOST_SIDE / height, Math.sqrt(MOST_PIXELS / (width * height)));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * most));
  canvas.height = Math.max(1, Math.round(height * most));
  const context = canvas.getContext("2d");
  if (!context) return Promise.reject(new Error("this browser gives no canvas of that size"));
  context.scale(most, most);
  paint(picture, context);
  return new Promise((done, fail) => canvas.toBlob((blob) => (blob ? done(blob) : fail(new Error("the browser could not make the PNG"))), "image/png"));
}
