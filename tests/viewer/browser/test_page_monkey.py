"""Random clicks, keys and drags: nothing breaks, everything can be undone, what is kept is what was made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.viewer.browser.chromium import Page
from tests.viewer.browser.flows import SESSION, open_graph, view
from tests.viewer.browser.served import Server
from tests.viewer.synthetic import document, synthetic, write_json

Window = Callable[..., Page]
KEYS = (
    "p", "m", "g", "h", "i", "o", "f", "d", "z", "0", "+", "-", "?", "Escape", "Escape", "Tab", "Tab", "Enter", "F2",
    "ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "Control+z", "Control+y", "Control+Shift+Z", "Delete", "/",
)  # fmt: skip
# Buttons that leave the page, open a system dialog or open the graph anew are not pressed.
BUTTONS = """[...document.querySelectorAll("button, [role=row], select, summary, input:not([type=text])")]
  .filter((e) => !e.disabled && e.getClientRects().length && e.dataset.file === undefined)
  .filter((e) => !/export|share|view-file|save/.test(e.dataset.action ?? ""))
  .map((e) => { const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })
  .filter(([x, y]) => x > 0 && y > 0 && x < innerWidth && y < innerHeight)"""


def sound(now: dict[str, Any], size: int) -> None:
    """What holds of every view."""
    members = [i for group in now["groups"] for i in group["members"]]
    assert len(set(members)) == len(members) and set(members) <= set(now["pinned"])
    assert len(set(now["pinned"])) == len(now["pinned"]) and all(0 <= i < size for i in now["pinned"])
    assert len({group["name"] for group in now["groups"]}) == len(now["groups"])
    assert all(group["members"] for group in now["groups"])
    assert all(0 <= c <= 1 for place in now["positions"].values() for c in place)


def step(page: Page, rng: np.random.Generator) -> None:
    """One thing that a careless user might do."""
    what = rng.integers(0, 10)
    place = [float(rng.uniform(5, 1435)), float(rng.uniform(45, 895))]
    if what < 3:
        page.press(str(rng.choice(KEYS)))
    elif what < 6:
        buttons = page.js(BUTTONS)
        if buttons:
            page.mouse(buttons[rng.integers(len(buttons))])
    elif what < 8:
        page.mouse(place, modifiers=[str(rng.choice(["Shift", "Alt"]))] if rng.random() < 0.4 else [])
    elif what == 8:
        page.ask(
            "drag",
            **{"from": place, "to": [float(rng.uniform(5, 1435)), float(rng.uniform(45, 895))], "steps": 4},
        )
    else:
        page.mouse(place, click=False)
        page.ask("wheel", dy=float(rng.choice([-300, 300])))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_nothing_breaks(window: Window, tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    file = write_json(
        tmp_path / "g.json", document(synthetic(130, 900, layers=6, tokens=8, targets=4, seed=seed))
    )
    with Server(file) as server:
        page = open_graph(window, server.url)
        first = view(page)
        page.js(f"void (window.__first = {SESSION}.graph.value)")
        for _ in range(150):
            step(page, rng)
            sound(view(page), 130)
        page.press("Escape", 4)
        page.wait(
            f"{SESSION}.saveState.value.kind !== 'changed' && {SESSION}.saveState.value.kind !== 'saving'"
        )
        made = view(page)
        again = view(open_graph(window, server.url))
        if page.js(f"{SESSION}.saveState.value.kind") == "saved":
            for key in ("pinned", "groups", "labels", "hidden", "positions", "views", "notes"):
                assert again[key] == made[key], key
        page.js(f"(() => {{ while ({SESSION}.undoName.value !== null) {SESSION}.undo(); }})()")
        page.js(f"{SESSION}.flush()")
        now = view(page)
        if not page.js(f"{SESSION}.graph.value === window.__first"):
            first = now  # opened anew from the menu of files: what came before that can no more be undone
        for key in ("pinned", "groups", "labels", "hidden", "positions", "views", "notes"):
            assert now[key] == first[key], key
