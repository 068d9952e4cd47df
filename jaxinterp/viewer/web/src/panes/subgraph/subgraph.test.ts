import { beforeEach, expect, test, vi } from "vitest";
import type { Source } from "../../io/source";
import type { Report } from "../../io/types";
import { Session } from "../../model/session";
import { EMPTY, pin, setGroups, type View } from "../../model/view";
import { applyGroups, boxOf, groupMarked, join, moveBox, nameFor, openView, removeMember, renameBox, renameView, saveView, tidyUp, toAutomatic, ungroupBox, unpinBox } from "./actions";
import { boxesOf } from "./boxes";
import { LARGE, shapeOfPane } from "./geometry";
import { smallGraph } from "./graph.fixture";
import { chosen, measure, picture } from "./model";
import { hiddenInfluence, proposedView } from "./proposal";

const graph = smallGraph();
const none = (): string => "";
const inGroups = setGroups(pin(EMPTY, [7, 5]), [{ name: "two", members: [0, 1] }]);
let session: Session;

beforeEach(() => {
  vi.stubGlobal("document", { title: "", createElement: () => ({ getContext: () => null }) });
  session = new Session({ mode: "embedded" } as unknown as Source);
  session.graph.value = graph;
  session.report.value = { automatic: { pinned: [3, 7], groups: [{ name: "auto", members: [2, 3] }] } } as unknown as Report;
  session.change("start", () => inGroups);
});

const view = (): View => session.view.value;
const groups = (): [string, number[]][] => view().groups.map((g) => [g.name, g.members]);

test("a box for every group and every other pinned node, with what it says of them", () => {
  const { boxes, left } = boxesOf(graph, inGroups, (i) => graph.header.labels[String(i)] ?? "");
  expect(left).toBe(0);
  expect(boxes.map((b) => [b.key, b.name])).toEqual([["g:two", "two"], ["n7", "Austin"], ["n5", "“the”"]]);
  const [two, austin, the] = boxes;
  expect(two).toMatchObject({ group: true, members: [0, 1], kind: 0, activation: 3, position: 1, note: "L0 · 2 nodes · act. 3" });
  expect(two!.influence).toBeCloseTo(0.5, 6);
  expect(two!.share).toBeCloseTo(graph.passing(0) + graph.passing(1), 6);
  expect(austin).toMatchObject({ kind: 4, note: "p = 0.700", level: 3 });
  expect(the).toMatchObject({ kind: 3, level: -1 });
  expect(the!.activation).toBeNaN();
});

test("of too many boxes the least influential are left out, and counted", () => {
  const { boxes, left } = boxesOf(graph, pin(EMPTY, [0, 1, 2, 3, 4, 5, 6, 7, 8]), none, 4);
  expect(left).toBe(5);
  expect(boxes.map((b) => b.members[0]).sort()).toEqual([2, 3, 7, 8]);
});

test("weights between boxes, and where the rest comes from", () => {
  const { weights, boxes } = measure(graph, pin(EMPTY, [2, 3, 7]), none);
  const at = (s: number, t: number): number => weights.edges.find((e) => boxes[e.source]!.members[0] === s && boxes[e.target]!.members[0] === t)?.weight ?? 0;
  expect(at(2, 3)).toBe(1);
  expect(at(3, 7)).toBeCloseTo(0.8, 9);
  expect(at(2, 7)).toBeCloseTo(-0.2, 9);
  // Of the three nodes' inputs only those of 2 come from outside: 3 from 0, 1 from 1, 1 from the error.
  expect(weights.outside.nodes).toBe(3);
  expect(weights.outside.share).toBeCloseTo(1 / 3, 9);
  expect(weights.outside.errors).toBeCloseTo(1 / 15, 9);
});

test("edges that are drawn: strong ones, and of every box the strongest in and out", () => {
  const edges = [0.5, 0.2, 0.1, 0.05, 0.02, 0.005].map((weight, i) => ({ source: i, target: i + 1, weight }));
  expect(chosen(edges, 3, null).length).toBe(5);
  expect(chosen(edges, 3, 2)).toEqual(edges.slice(0, 2));
  const many = Array.from({ length: 100 }, (_, i) => ({ source: i % 3, target: 3 + (i % 2), weight: 0.9 - i * 0.005 }));
  expect(chosen([...many, { source: 9, target: 8, weight: 0.2 }], 4, null).at(-1)).toMatchObject({ source: 9 });
  expect(chosen(many, 4, null).length).toBe(20);
  expect(picture(measure(graph, inGroups, none), inGroups, 0, LARGE, "Inter").drawing.curves).toEqual([]);
});

test("marked nodes become a group under the commonest label, as one step", () => {
  session.marked.value = new Set([2, 3]);
  groupMarked(session);
  expect(groups()).toEqual([["two", [0, 1]], ["a city", [2, 3]]]);
  expect(view().pinned).toContain(3);
  expect(session.marked.value.size).toBe(0);
  session.undo();
  expect(view()).toEqual({ ...inGroups, clicked: null });
});

test("fewer than two marked nodes are no group: it is said how to mark", () => {
  session.marked.value = new Set([2]);
  groupMarked(session);
  expect(groups().length).toBe(1);
  expect(session.message.value?.text).toContain("Mark two or more");
});

test("a group takes the place of boxes that were placed by hand; they have theirs again when it is dissolved", () => {
  moveBox(session, "n7", 0.2, 0.4);
  moveBox(session, "n5", 0.6, 0.8);
  session.marked.value = new Set([5, 7]);
  groupMarked(session);
  expect(groups().at(-1)![0]).toBe("Austin");
  expect(view().positions["g:Austin"]).toEqual([0.4, expect.closeTo(0.6, 9)]);
  ungroupBox(session, "g:Austin");
  expect(view().positions).toEqual({ n7: [0.2, 0.4], n5: [0.6, 0.8] });
  unpinBox(session, "n7");
  expect(view().positions).toEqual({ n5: [0.6, 0.8] });
});

test("a box dragged onto another joins it", () => {
  join(session, "n7", "g:two");
  expect(groups()).toEqual([["two", [0, 1, 7]]]);
  join(session, "g:two", "n5");
  expect(groups()).toEqual([["two", [5, 0, 1, 7]]]);
  join(session, "g:two", "g:two");
  expect(session.undoName.value).toBe("group");
});

test("moves of one drag are one step; places stay on the sheet", () => {
  for (const x of [0.1, 0.2, 0.3]) moveBox(session, "n7", x, 2, "nudge n7");
  expect(view().positions.n7).toEqual([0.3, 1]);
  session.undo();
  expect(view().positions).toEqual({});
  moveBox(session, "n7", -1, 0.5);
  expect(view().positions.n7).toEqual([0, 0.5]);
  tidyUp(session);
  expect(view().positions).toEqual({});
});

test("rename, take out of a group, unpin", () => {
  renameBox(session, "g:two", "pair");
  renameBox(session, "n7", "say Austin");
  expect([groups()[0]![0], session.label(7)]).toEqual(["pair", "say Austin"]);
  expect(boxOf(view(), 0)).toBe("g:pair");
  removeMember(session, 0);
  expect(groups()).toEqual([["pair", [1]]]);
  expect(boxOf(view(), 0)).toBe("n0");
  unpinBox(session, "g:pair");
  expect(groups()).toEqual([]);
  expect(view().pinned).not.toContain(1);
  expect(nameFor(session, [0, 3])).toBe("L2 #13 and others");
  expect(nameFor(session, [6, 5])).toBe("the city");
});

test("named views come back whole, and none takes notes away", () => {
  saveView(session, "first");
  session.change("notes", (v) => ({ ...v, notes: "kept" }));
  toAutomatic(session);
  expect(groups()).toEqual([["auto", [2, 3]]]);
  openView(session, "first");
  expect(groups()).toEqual([["two", [0, 1]]]);
  expect(view().notes).toBe("kept");
  saveView(session, "second");
  renameView(session, "second", "first");
  expect(view().views.map((v) => v.name)).toEqual(["first", "second"]);
  expect(session.message.value?.error).toBe(true);
});

test("a preview is what applying it gives, and says what stays hidden", () => {
  const found = [{ name: "new", members: [1, 2] }];
  const seen = proposedView(graph, inGroups, found, true);
  applyGroups(session, found);
  expect({ ...view(), clicked: null }).toEqual({ ...seen, clicked: null });
  expect(groups()).toEqual([["new", [1, 2]]]);
  // Features 0, 1, 2 are shown (0 is still pinned); 3 with 0.8 of 1.9 is not.
  expect(hiddenInfluence(graph, seen)).toBeCloseTo(0.8 / 1.9, 6);
  const fresh = proposedView(graph, inGroups, found, false);
  expect(fresh.pinned.sort()).toEqual([1, 2, 5, 6, 7, 8]);
  expect(hiddenInfluence(graph, EMPTY)).toBe(1);
});

test("the layout follows the shape of the pane in steps", () => {
  expect(shapeOfPane(860, 250)).toEqual({ aspect: 3, compact: true });
  expect(shapeOfPane(870, 255)).toEqual(shapeOfPane(860, 250));
  expect(shapeOfPane(1420, 750)).toEqual({ aspect: 2, compact: false });
  expect(shapeOfPane(0, 0)).toEqual(LARGE);
});
