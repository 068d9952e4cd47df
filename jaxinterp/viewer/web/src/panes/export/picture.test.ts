import { expect, test } from "vitest";
import { movePath, shifted } from "./frame";
import { escaped, type Picture, toSvg } from "./picture";

const picture = (text: string): Picture => ({
  title: text, width: 100, height: 50, background: "#ffffff", font: 'Inter, "Segoe UI", sans-serif',
  marks: [
    { kind: "text", x: 1, y: 2, text, size: 12, bold: true, fill: "#000000", anchor: "middle", turn: -40, halo: "#ffffff" },
    { kind: "rect", x: 1, y: 2, width: 3, height: 4, round: 1, fill: "#123456", stroke: "#654321" },
    { kind: "path", d: "M1 2L3 4", stroke: "#654321", line: 2, opacity: 0.5 },
  ],
});

test("text cannot become markup", () => {
  const svg = toSvg(picture(`</text><script>alert("1")</script>'&amp;`));
  expect(svg).not.toContain("<script");
  expect(svg.match(/</g)!.length).toBe(svg.match(/>/g)!.length);
  expect(svg).toContain("&#60;script&#62;");
  expect(svg).not.toContain('font-family="Inter, "');
});

test("what XML forbids is left out", () => {
  expect(escaped("a\u0000b\u001bc\ufffed")).toBe("abcd");
  expect(escaped("\ud83d\ude00 \ud83d x \ude00")).toBe("\ud83d\ude00 \ufffd x \ufffd");
});

test("a file of its own: no address, no style sheet, no font file", () => {
  const svg = toSvg(picture("x"));
  expect(svg.replace('xmlns="http://www.w3.org/2000/svg"', "")).not.toMatch(/http|url\(|<style|@import|href/);
  expect(svg.startsWith("<svg ")).toBe(true);
  expect(svg).toContain('viewBox="0 0 100 50"');
});

test("paths move with their marks", () => {
  expect(movePath("M1,2L3,4C1 2 3 4 5 6Z", 10, 100)).toBe("M11 102L13 104C11 102 13 104 15 106Z");
  expect(movePath("M5.0 1.0A4.0 4.0 0 1 1 -3.0 1.0Z", 1, 2)).toBe("M6 3A4 4 0 1 1 -2 3Z");
  expect(movePath("M1 1h4v-2h-4Z", 1, 1)).toBe("M2 2h4v-2h-4Z");
  expect(movePath("M-1-2", 0, 0)).not.toContain("NaN");
  expect(shifted({ kind: "rect", x: 1, y: 2, width: 3, height: 4 }, 1, 1)).toMatchObject({ x: 2, y: 3, width: 3 });
});
