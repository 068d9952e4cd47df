import { describe, expect, it } from "vitest";
import { percent, sizeText } from "../draw/colour";
import { splitReading } from "./reading-text";
import { DEFAULT, readSizes } from "./sizes";

describe("the reading", () => {
  it("is taken apart at its arrows", () => {
    expect(splitReading("Dallas → Texas → say Austin, 61 % of influence; 22 % through error nodes", 3)).toEqual({
      names: ["Dallas", "Texas", "say Austin"],
      rest: ", 61 % of influence; 22 % through error nodes",
    });
    expect(splitReading("Dallas → Austin", 2)).toEqual({ names: ["Dallas", "Austin"], rest: "" });
  });

  it("stays as it is where a label holds an arrow or there is no path", () => {
    expect(splitReading("a → b → c, 5 %", 2)).toBeNull();
    expect(splitReading("This graph has no links.", 0)).toBeNull();
    expect(splitReading("Only this", 2)).toBeNull();
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
    expect([0.61, 0.042, 0.0001, -0.12, 0, Number.NaN].map(percent)).toEqual(["61 %", "4.2 %", "<0.1 %", "−12 %", "0 %", "–"]);
  });
});
