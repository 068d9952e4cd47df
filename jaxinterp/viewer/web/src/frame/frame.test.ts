import { describe, expect, it } from "vitest";
import { count, percent, sizeText } from "../draw/colour";
import { fileTitle } from "./file-name";
import { stopsOf } from "./reading-text";
import { DEFAULT, readSizes } from "./sizes";

describe("the reading", () => {
  const text = "Dallas → a, b → say Austin, 61 % of influence; 22 % through error nodes";
  const stops: [string, number[]][] = [
    ["Dallas", [3]],
    ["a, b", [5, 6]],
    ["say Austin", [9]],
  ];

  it("is taken apart into stops that select the nodes of the path", () => {
    expect(stopsOf(text, stops, [3, 6, 9], 10)).toEqual({
      stops: [
        { name: "Dallas", node: 3 },
        { name: "a, b", node: 6 },
        { name: "say Austin", node: 9 },
      ],
      rest: ", 61 % of influence; 22 % through error nodes",
    });
  });

  it("stays a line where its stops do not fit it", () => {
    expect(stopsOf("say x: no token has influence on it", [], [], 10)).toBeNull();
    expect(stopsOf("something else", stops, [], 10)).toBeNull();
    expect(stopsOf(text, stops, [3], 4)).toBeNull();
  });
});

describe("sizes of panes", () => {
  it("come from what was kept, if it makes sense", () => {
    expect(readSizes('{"columns":0.4,"left":0.99,"right":"x"}')).toEqual({ columns: 0.4, left: 0.85, right: DEFAULT.right });
    for (const text of [null, "", "null", "no json", "[]"]) expect(readSizes(text)).toEqual(DEFAULT);
  });
});

describe("numbers", () => {
  it("are short", () => {
    expect([0, 1.234, -0.004123, 5.2e-7, 12400, Number.NaN, null].map(sizeText)).toEqual(["0", "1.23", "−0.00412", "5.2e-7", "12,400", "–", "–"]);
    expect([0, 999, 1000, 1234567].map(count)).toEqual(["0", "999", "1,000", "1,234,567"]);
    expect([0.61, 0.042, 0.0001, -0.12, 0, Number.NaN].map(percent)).toEqual(["61 %", "4.2 %", "<0.1 %", "−12 %", "0 %", "–"]);
  });
});

describe("names of files", () => {
  it("tell graphs of one name apart", () => {
    expect(fileTitle({ slug: "war", file: "war.json" })).toBe("war");
    expect(fileTitle({ slug: "war", file: "b/other.json" })).toBe("war (b/other.json)");
    expect(fileTitle({ slug: "", file: "broken.json" })).toBe("broken.json");
  });
});
