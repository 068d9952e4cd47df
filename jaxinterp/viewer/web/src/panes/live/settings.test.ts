import { describe, expect, it } from "vitest";
import { FIRST, request } from "./settings";

describe("what live mode asks for", () => {
  it("sends a prompt as it was typed, and empty fields as none", () => {
    expect(request({ ...FIRST, prompt: " the capital " })).toEqual({
      asked: { prompt: " the capital ", targets: null, max_feature_nodes: null, node_threshold: 0.8, edge_threshold: 0.98 },
    });
    expect(request({ ...FIRST, prompt: "a", features: "7,500", nodes: "1", edges: "0,9", targets: " x \n y " })).toEqual({
      asked: { prompt: "a", targets: "x \n y", max_feature_nodes: 7500, node_threshold: 1, edge_threshold: 0.9 },
    });
  });

  it("says which field is wrong", () => {
    const wrong = (part: Partial<typeof FIRST>) => (request({ ...FIRST, prompt: "a", ...part }) as { field: string }).field;
    expect(wrong({ prompt: "" })).toBe("prompt");
    expect(wrong({ features: "0" })).toBe("features");
    expect(wrong({ features: "1.5" })).toBe("features");
    expect(wrong({ nodes: "0" })).toBe("nodes");
    expect(wrong({ nodes: "" })).toBe("nodes");
    expect(wrong({ edges: "1.1" })).toBe("edges");
  });
});
