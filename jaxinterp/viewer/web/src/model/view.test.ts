import { describe, expect, it } from "vitest";
import { History } from "./history";
import { addToGroup, complete, EMPTY, group, hide, label, pin, place, renameGroup, setGroups, show, ungroup, unpin, type View } from "./view";

/** What holds of every view, whatever was done. */
function sound(view: View, n: number): void {
  const members = view.groups.flatMap((g) => g.members);
  expect(new Set(members).size).toBe(members.length);
  expect(new Set(view.pinned).size).toBe(view.pinned.length);
  expect(new Set(view.groups.map((g) => g.name)).size).toBe(view.groups.length);
  expect(view.groups.every((g) => g.members.length > 0)).toBe(true);
  expect(members.every((i) => view.pinned.includes(i))).toBe(true);
  expect([...view.pinned, ...members].every((i) => i >= 0 && i < n)).toBe(true);
}

/** A seeded stream of whole numbers below k. */
function random(seed: number): (k: number) => number {
  let state = seed;
  return (k) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * k);
  };
}

describe("edits of a view", () => {
  it("pins once, in the order of pinning", () => {
    expect(pin(pin(EMPTY, [3, 1]), [1, 2]).pinned).toEqual([3, 1, 2]);
  });

  it("does not change the view it was given", () => {
    const before = group(pin(EMPTY, [1, 2]), "a", [1]);
    const copy = structuredClone(before);
    unpin(before, [1]);
    renameGroup(before, "a", "b");
    addToGroup(before, "a", [2]);
    label(before, 1, "text");
    place(before, "n1", 0.5, 0.5);
    hide(before, [1]);
    expect(before).toEqual(copy);
  });

  it("takes nodes out of the group they were in", () => {
    const view = group(group(EMPTY, "a", [1, 2]), "b", [2, 3]);
    expect(view.groups).toEqual([
      { name: "a", members: [1] },
      { name: "b", members: [2, 3] },
    ]);
  });

  it("removes a group that has no members left", () => {
    expect(unpin(group(EMPTY, "a", [1, 2]), [1, 2]).groups).toEqual([]);
    expect(group(group(EMPTY, "a", [1]), "b", [1]).groups).toEqual([{ name: "b", members: [1] }]);
  });

  it("gives groups names of their own", () => {
    const view = group(group(group(EMPTY, "a", [1]), "a", [2]), "a", [3]);
    expect(view.groups.map((g) => g.name)).toEqual(["a", "a (2)", "a (3)"]);
    expect(renameGroup(view, "a (3)", "a").groups[2]!.name).toBe("a (3)");
  });

  it("renaming takes the place along and refuses an empty name", () => {
    const view = place(group(EMPTY, "a", [1]), "g:a", 0.1, 0.2);
    expect(renameGroup(view, "a", " b ").positions).toEqual({ "g:b": [0.1, 0.2] });
    expect(renameGroup(view, "a", "  ")).toBe(view);
  });

  it("ungrouping keeps the members pinned", () => {
    const view = ungroup(group(EMPTY, "a", [1, 2]), "a");
    expect([view.groups, view.pinned]).toEqual([[], [1, 2]]);
  });

  it("an empty label takes the user's label away", () => {
    expect(label(label(EMPTY, 4, "x"), 4, " ").labels).toEqual({});
  });

  it("hides and shows", () => {
    expect(show(hide(hide(EMPTY, [1, 2]), [2, 3]), [1]).hidden).toEqual([2, 3]);
  });

  it("stays sound under any sequence of edits", () => {
    for (let seed = 1; seed <= 40; seed++) {
      const below = random(seed);
      const n = 12;
      let view: View = EMPTY;
      for (let step = 0; step < 60; step++) {
        const nodes = Array.from({ length: 1 + below(4) }, () => below(n));
        const some = [...new Set(nodes)];
        const named = view.groups[below(view.groups.length + 1)]?.name ?? "g";
        const edits = [pin(view, some), unpin(view, some), group(view, "g", some), ungroup(view, named)];
        edits.push(addToGroup(view, named, some), renameGroup(view, named, "h"), setGroups(view, [{ name: "s", members: some }]));
        view = edits[below(edits.length)]!;
        sound(view, n);
        expect(complete(view, n)).toEqual(view);
      }
    }
  });
});

describe("a view from a file", () => {
  it("drops nodes that do not exist, twice-grouped nodes and groups without members", () => {
    const view = complete({ pinned: [1, 1, 99, -1, 2.5], groups: [{ name: "a", members: [1, 2] }, { name: "b", members: [2] }], clicked: 77, hidden: [3, 44] }, 10);
    expect(view.pinned).toEqual([1, 2]);
    expect(view.groups).toEqual([{ name: "a", members: [1, 2] }]);
    expect(view.clicked).toBe(null);
    expect(view.hidden).toEqual([3]);
  });

  it("an empty one is the empty view", () => {
    expect(complete({}, 5)).toEqual(EMPTY);
  });
});

describe("history", () => {
  it("goes back and forward through every step", () => {
    const history = new History(0);
    for (let i = 1; i <= 5; i++) history.push(`to ${i}`, i);
    expect(history.undoName).toBe("to 5");
    for (let i = 4; i >= 0; i--) {
      expect(history.undo()).toBe(true);
      expect(history.current).toBe(i);
    }
    expect(history.undo()).toBe(false);
    expect(history.redoName).toBe("to 1");
    while (history.redo());
    expect(history.current).toBe(5);
  });

  it("a new step ends what could be redone", () => {
    const history = new History("a");
    history.push("1", "b");
    history.undo();
    history.push("2", "c");
    expect(history.redo()).toBe(false);
    expect(history.undoName).toBe("2");
  });

  it("steps with the same key that follow each other are one", () => {
    const history = new History(0);
    history.push("drag", 1, "n1");
    history.push("drag", 2, "n1");
    history.push("drag", 3, "n2");
    history.undo();
    expect(history.current).toBe(2);
    history.undo();
    expect(history.current).toBe(0);
  });

  it("forgets the oldest beyond its length", () => {
    const history = new History(0, 3);
    for (let i = 1; i <= 9; i++) history.push("", i);
    while (history.undo());
    expect(history.current).toBe(6);
  });
});
