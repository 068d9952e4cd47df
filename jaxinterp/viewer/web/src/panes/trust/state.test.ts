import { describe, expect, it } from "vitest";
import type { Report } from "../../io/types";
import { columns, score, state } from "./state";

const report = (part: Partial<Report>): Report =>
  ({ scores: { replacement: 0.8 }, checks: [], error_share: { total: 0.1, by_layer: [], by_position: [] }, warnings: [], ...part }) as Report;
const check = (ok: boolean | null) => ({ name: "I2", text: "", value: null, ok });

describe("the trust card in short", () => {
  it("is bad when a check fails, whatever else", () => {
    expect(state(report({ checks: [check(true), check(false)], warnings: ["w"] }))).toEqual({ level: "bad", why: "Check I2 fails: this graph is not exact." });
    expect(state(report({ checks: [check(false), check(false)] })).why).toMatch(/^2 checks fail/);
  });

  it("warns of errors, low scores and the report's own warnings", () => {
    expect(state(report({ error_share: { total: 0.7, by_layer: [], by_position: [] } })).level).toBe("warn");
    expect(state(report({ scores: { replacement: 0.3 } })).level).toBe("warn");
    expect(state(report({ warnings: ["The file was repaired."] }))).toEqual({ level: "warn", why: "The file was repaired." });
  });

  it("knows good from unknown", () => {
    expect(state(report({ checks: [check(true), check(null)] })).level).toBe("good");
    expect(state(report({ scores: {}, error_share: null })).level).toBe("unknown");
    expect(state(report({ checks: [check(null)] })).level).toBe("unknown");
  });

  it("says nothing of a graph without edges", () => {
    expect(state(report({ scores: { replacement: 0 } }), 0).level).toBe("unknown");
  });

  it("writes scores with two decimals", () => {
    expect([0.744, 1, null, undefined, Number.NaN].map(score)).toEqual(["0.74", "1.00", "–", "–", "–"]);
  });

  it("has a column for every layer, also beyond the model's", () => {
    const found = columns([[0, "mlp", 0.1], [0, "attention", 0.05], [5, "mlp", 0.2], [2, "mlp", 0]], 4);
    expect(found.length).toBe(6);
    expect(found[0]!.share).toBeCloseTo(0.15, 9);
    expect(found[2]!.parts).toEqual([]);
    expect(columns([], 1)).toEqual([{ layer: 0, parts: [], share: 0 }]);
  });
});
