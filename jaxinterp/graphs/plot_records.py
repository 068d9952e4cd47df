"""What a figure is laid out from and into, and how texts that have no place are found. Lengths in inches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

MARK = 0.11  # side of a mark
GAP = 0.07
LINE = 1.25  # of the letter size
ROW_GAP = 0.17
BOLD = 1.14  # of the width of plain letters
ELLIPSIS = "…"
SIDES = (0.2, 0.75, 0.05, 0.55, 0.95, 0.35)

Measure = Callable[[str, float], float]  # (text, size in points) -> width in inches


@dataclass(frozen=True)
class Item:
    """Something to draw: mark "feature", "group", "error", "bias", "token" or "target"; the last two hold their text.

    row: any number, higher is further up. column: the position.
    """

    text: str
    mark: str
    row: float
    column: int
    weight: float = 0.0  # which text goes first where there is too little room


@dataclass(frozen=True)
class Placed:
    """Middle of a mark and its text; width of the mark, height of both; left edge and width of the text."""

    x: float
    y: float
    width: float
    height: float
    lines: tuple[str, ...]
    text_x: float
    text_width: float
    height_of_mark: float

    def box(self) -> tuple[float, float, float, float]:
        """Left, bottom, right, top of mark and text together."""
        left, right = self.x - self.width / 2, self.x + self.width / 2
        return (
            left,
            self.y - self.height / 2,
            max(right, self.text_x + self.text_width),
            self.y + self.height / 2,
        )


@dataclass(frozen=True)
class Layout:
    """placed: of every item. tokens: (x, text) along the bottom, of positions without a mark of their own; turned:
    whether they run upwards; token_level: their height. rows: the height of each row by its number. size: of letters,
    in points. width, height: of all. cut: texts shortened; lost: texts left out, because there is no place for them;
    skipped: positions of the prompt left out."""

    placed: tuple[Placed, ...]
    tokens: tuple[tuple[float, str], ...]
    turned: bool
    rows: dict[float, float]
    size: float
    width: float
    height: float
    cut: int
    lost: int
    skipped: int
    token_level: float


def within(place: Placed, width: float) -> Placed:
    """The same, moved onto the sheet."""
    left, _, right, _ = place.box()
    move = max(min(0.0, width - right), -left)
    return replace(place, x=place.x + move, text_x=place.text_x + move) if move else place


def declash(placed: list[Placed], items: Sequence[Item]) -> tuple[tuple[Placed, ...], int]:
    """The same without the texts that would lie on another mark or text, the weightiest kept; how many those are."""
    boxes = [one.box() for one in placed]
    kept = [
        (
            one.x - one.width / 2,
            one.y - one.height_of_mark / 2,
            one.x + one.width / 2,
            one.y + one.height_of_mark / 2,
        )
        for one in placed
    ]
    found = list(placed)
    lost = 0
    for i in sorted(range(len(placed)), key=lambda i: (-items[i].weight, i)):
        if any(j != i and _meet(boxes[i], box) for j, box in enumerate(kept)):
            lost += any(found[i].lines)
            found[i] = replace(found[i], lines=())
        else:
            kept[i] = boxes[i]
    return tuple(found), lost


def _meet(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    slack = 1e-6
    return a[0] < b[2] - slack and b[0] < a[2] - slack and a[1] < b[3] - slack and b[1] < a[3] - slack
