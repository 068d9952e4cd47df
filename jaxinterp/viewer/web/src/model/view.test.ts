import { describe, expect, it } from "vitest";
import { History } from "./history";
import { addToGroup, complete, EMPTY, group, hide, label, pin, renameGroup, setGroups, show, ungroup, unpin } from "./view";

describe("view", () => {
  it("groups pin their members and a node is in one group only", () => {
    let view = group(EMPTY, "a", [1, 2]);
    view = group(view, "a", [2, 3]);
    expect(view.groups).toEqual([
      { name: "a", members: [1] },
      { name: "a (2)", members: [2, 3] },
    ]);
    expect(view.pinned).toEqual([1, 2, 3]);
    expect(ungroup(view, "a").groups.map((g) => g.name)).toEqual(["a (2)"]);
    expect(addToGroup(view, "a", [3]).groups).toEqual([
      { name: "a", members: [1, 3] },
      { name: "a (2)", members: [2] },
    ]);
  });

  it("unpinning takes nodes out of groups and empty groups away", () => {
    const view = unpin(group(pin(EMPTY, [9]), "a", [1, 2]), [1, 2]);
    expect(view.groups).toEqual([]);
    expect(view.pinned).toEqual([9]);
  });

  it("renaming moves the place and keeps names unique", () => {
    const view = { ...setGroups(EMPTY, [{ name: "a", members: [1] }, { name: "b", members: [2] }]), positions: { "g:a": [0.1, 0.2] as [number, number] } };
    const renamed = renameGroup(view, "a", "b");
    expect(renamed.groups.map((g) => g.name)).toEqual(["b (2)", "b"]);
    expect(renamed.positions).toEqual({ "g:b (2)": [0.1, 0.2] });
    expect(renameGroup(view, "a", "  ")).toBe(view);
  });

  it("labels come and go, nodes hide and show", () => {
    const view = label(EMPTY, 3, " Texas ");
    expect(view.labels).toEqual({ "3": "Texas" });
    expect(label(view, 3, "").labels).toEqual({});
    expect(show(hide(EMPTY, [1, 2, 2]), [1]).hidden).toEqual([2]);
  });

  it("drops from files what does not exist", () => {
    const view = complete({ pinned: [1, 1, 99, -1, 0.5], groups: [{ name: "g", members: [2, 2, 77] }, { name: "h", members: [2] }], clicked: 12, hidden: [3, 44] }, 10);
    expect(view).toMatchObject({ pinned: [1, 2], groups: [{ name: "g", members: [2] }], clicked: null, hidden: [3] });
  });
});

describe("history", () => {
  it("undoes, redoes and forgets the future after a new step", () => {
    const history = new History(0);
    history.push("one", 1);
    history.push("two", 2);
    expect(history.undoName).toBe("two");
    expect(history.undo()).toBe(true);
    expect(history.current).toBe(1);
    expect(history.redoName).toBe("two");
    history.push("three", 3);
    expect(history.redo()).toBe(false);
    expect(history.undo() && history.undo()).toBe(true);
    expect(history.current).toBe(0);
    expect(history.undo()).toBe(false);
  });

  it("takes a drag as one step and keeps a limited past", () => {
    const history = new History(0, 3);
    for (let i = 1; i <= 5; i++) history.push("drag", i, "drag n1");
    expect(history.undo()).toBe(true);
    expect(history.current).toBe(0);
    for (let i = 1; i <= 9; i++) history.push("step", i);
    let steps = 0;
    while (history.undo()) steps++;
    expect(steps).toBe(3);
  });
});
