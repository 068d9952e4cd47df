import { expect, test } from "vitest";
import type { GraphData } from "../../model/bundle";
import { EMPTY, type View } from "../../model/view";
import { fileSlug, readViewFile, viewFile, viewFileName } from "./file";

const graph = (ids: string[], slug = "two hops", prompt = "the capital"): GraphData =>
  ({ n: ids.length, header: { ids, slug, scan: "pocket", prompt, file: "two_hop.jigraph" } }) as unknown as GraphData;

const ids = ["E_1_0", "3_17_2", "4_9_2", "5_1_2", "6_0_3"];
const view: View = {
  ...EMPTY,
  pinned: [4, 1, 2, 3],
  groups: [{ name: 'a "<b>group</b>"', members: [1, 2] }],
  labels: { "3": "say a city" },
  clicked: 3,
  positions: { "g:a \"<b>group</b>\"": [0.25, 0.5], n3: [1, 0] },
  hidden: [0],
  notes: "two\nlines",
  views: [{ name: "first", view: { pinned: [4], groups: [], labels: {}, clicked: null, positions: {}, hidden: [], link_type: "both", notes: "" } }],
};

test("what is written is read back", () => {
  const { view: found, notes } = readViewFile(graph(ids), viewFile(graph(ids), view));
  expect(found).toEqual(view);
  expect(notes).toEqual([]);
});

test("a graph pruned in another way takes what it has and says what it lacks", () => {
  const other = graph(["6_0_3", "4_9_2", "7_7_7"], "two hops", "another prompt");
  const { view: found, notes } = readViewFile(other, viewFile(graph(ids), view));
  expect(found.pinned).toEqual([0, 1]);
  expect(found.groups).toEqual([{ name: 'a "<b>group</b>"', members: [1] }]);
  expect(found.labels).toEqual({});
  expect(found.clicked).toBe(null);
  expect(found.positions).toEqual({ 'g:a "<b>group</b>"': [0.25, 0.5] });
  expect(notes[0]).toContain("another prompt");
  expect(notes[1]).toContain("3 of its 5 nodes are not in this graph");
  expect(notes[1]).toContain("3_17_2");
});

const good = JSON.parse(viewFile(graph(ids), view));
const changed = (change: (file: any) => void): string => {
  const copy = structuredClone(good);
  change(copy);
  return JSON.stringify(copy);
};

test.each([
  ["no JSON at all", "{", "no JSON"],
  ["another format", '{"metadata": {}}', "no subgraph of this viewer"],
  ["a list", "[]", "expected an object"],
  ["a later version", changed((f) => (f.version = 2)), "version is 2"],
  ["pins that are no list", changed((f) => (f.view.pinned = "3_17_2")), "view.pinned: expected a list"],
  ["a pin that is no text", changed((f) => (f.view.pinned = [3])), "view.pinned: expected a text"],
  ["a place off the sheet", changed((f) => (f.view.positions[0][1] = [0.5, 1.5])), "from 0 to 1"],
  ["a place that is no number", changed((f) => (f.view.positions[0][1] = ["0.5", 0])), "from 0 to 1"],
  ["half a place", changed((f) => (f.view.positions[0][1] = [0.5])), "from 0 to 1"],
  ["a label that is an object", changed((f) => (f.view.labels["5_1_2"] = {})), "view.labels: expected a text"],
  ["groups that are null", changed((f) => (f.view.groups = null)), "view.groups: expected a list"],
  ["a long name", changed((f) => (f.view.groups[0].name = "x".repeat(201))), "at most 200"],
  ["no view", changed((f) => delete f.view), "view: expected an object"],
  ["a named view without name", changed((f) => delete f.views[0].name), "views.name: expected a text"],
  ["too many characters", " ".repeat(8_000_001), "at most"],
])("%s is refused in one line", (_, text, words) => {
  let said = "";
  try {
    readViewFile(graph(ids), text);
  } catch (error) {
    said = (error as Error).message;
  }
  expect(said).toContain(words);
  expect(said).not.toContain("\n");
});

test("names from a file cannot reach objects' own properties", () => {
  const text = changed((f) => {
    f.view.labels = JSON.parse('{"__proto__": "x", "constructor": "y", "5_1_2": "z"}');
  });
  expect(readViewFile(graph(ids), text).view.labels).toEqual({ "3": "z" });
});

test("file names hold nothing that a file system minds", () => {
  expect(viewFileName(graph(ids))).toBe("two-hops.view.json");
  expect(fileSlug(graph(ids, "../../etc/passwd"))).toBe("etc-passwd");
  expect(fileSlug(graph(ids, ""))).toBe("two_hop");
  expect(fileSlug(graph(ids, "///"))).toBe("graph");
});
