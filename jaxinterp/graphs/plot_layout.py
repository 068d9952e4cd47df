"""Where everything of a figure goes: tokens across, layers up, no two things on top of each other. Lengths in inches.

A row is a layer (and part), a column a position of the prompt. What shares a row and a column stands side by side, as
many as the width allows, else in lines above each other; the column is as wide as its widest line. Texts stand right of
their marks, so that edges leave a mark at its top and enter it from below without crossing its text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxinterp.graphs.plot_records import (
    BOLD,
    ELLIPSIS,
    GAP,
    LINE,
    MARK,
    ROW_GAP,
    SIDES,
    Item,
    Layout,
    Measure,
    Placed,
    declash,
    within,
)


def lay_out(
    items: Sequence[Item],
    edges: Sequence[tuple[int, int, float]],
    tokens: Sequence[str] | None,
    width: float,
    measure: Measure,
    size: float = 7.0,
) -> Layout:
    """Place items in ``width`` inches; the height follows.

    edges: (target, source, weight), which only order what stands side by side. tokens: texts of all positions, for
    the line at the bottom; None for none. Where the width is not enough, tokens are turned, texts become shorter and
    letters smaller, down to 5 points; texts that have no place then are left out and counted.
    """
    attempts = [
        (size, 22, False), (size, 18, False), (size, 18, True), (size, 14, True), (0.9 * size, 14, True),
        (0.85 * size, 11, True), (0.75 * size, 9, True),
    ]  # fmt: skip
    for letters, longest, turned in attempts:
        plan = _Plan(items, edges, tokens, measure, max(letters, 5.0), longest, turned)
        for skip in (0, 1, 2) if turned else (0, 1):
            if plan.columns(skip, width) <= width + 1e-9:
                return plan.finish(width)
    return plan.finish(width)


class _Plan:
    """One attempt with letters of a size and texts of a length."""

    def __init__(
        self,
        items: Sequence[Item],
        edges: Sequence[tuple[int, int, float]],
        tokens: Sequence[str] | None,
        measure: Measure,
        size: float,
        longest: int,
        turned: bool,
    ) -> None:
        self.items, self.tokens, self.size, self.turned = items, tokens, size, turned
        self.measure = lambda text: measure(text, size)
        self.line = size / 72 * LINE
        inside = ("token", "target")
        self.texts = [wrap(i.text, longest, 1 if i.mark == "token" else 2) for i in items]
        self.cut = sum("".join(found).endswith(ELLIPSIS) for found in self.texts)
        self.widths = []
        for item, lines in zip(items, self.texts, strict=True):
            text = self._wide(item, lines)
            if turned and item.mark == "token":
                text = self.line - 1.5 * GAP
            self.widths.append(text + (2 * GAP if item.mark in inside else MARK + 0.5 * GAP * bool(text)))
        self.cells: dict[tuple[float, int], list[int]] = {}
        for i in _ordered(items, edges):
            self.cells.setdefault((items[i].row, items[i].column), []).append(i)
        self.rows = sorted({item.row for item in items})
        self.used = sorted({item.column for item in items})
        self.longest = longest

    def columns(self, skip: int, width: float) -> float:
        """Decide the columns and how many items stand side by side in each; the width that this takes.

        skip: 0 every position has a column, 1 stretches without items are one sign, 2 nothing.
        """
        self.capacity = dict.fromkeys(self.used, 1)
        self.order: list[int | None] = list(self.used)  # None: positions that are left out
        if self.tokens is not None:
            shown = set(self.used)
            self.order = []
            for at in range(len(self.tokens)):
                if at in shown or not skip:
                    self.order.append(at)
                elif skip == 1 and (not self.order or self.order[-1] is not None):
                    self.order.append(None)
        total = self._total()
        while True:  # wider columns as long as there is room and a row gets lower by it
            best: tuple[float, int] | None = None
            now = self._lines()
            for column in self.used:
                self.capacity[column] += 1
                gained, more = now - self._lines(), self._total()
                self.capacity[column] -= 1
                if (
                    gained > 0
                    and more <= width
                    and (best is None or gained / (more - total + 0.01) > best[0])
                ):
                    best = gained / (more - total + 0.01), column
            if best is None:
                return total
            self.capacity[best[1]] += 1
            total = self._total()

    def finish(self, width: float) -> Layout:
        """The places, with what width is left shared among the columns, most for those that hold most."""
        sizes = [self._width(column) for column in self.order]
        total = math.fsum(sizes)
        scale = min(1.0, width / total) if total > 0 else 1.0
        if scale < 1:  # marks keep their width as long as they can; texts that then have no place are dropped
            least = [min(self._least(c), own) for c, own in zip(self.order, sizes, strict=True)]
            part = (
                max(width - math.fsum(least), 0.0) / (total - math.fsum(least))
                if total > math.fsum(least)
                else 0.0
            )
            shrink = min(1.0, width / math.fsum(least))
            sizes = [(low + (own - low) * part) * shrink for low, own in zip(least, sizes, strict=True)]
        shares = [0.0 if c is None else 1.0 + 3.0 * len(self._inner(c)) for c in self.order]
        spare = max(width - total, 0.0) / max(math.fsum(shares), 1.0)
        span: dict[int, tuple[float, float]] = {}
        tokens, at = [], 0.0
        for column, own, share in zip(self.order, sizes, shares, strict=True):
            wide = own + spare * share
            if column is not None:
                span[column] = at, at + wide
            if self.tokens is not None:
                if column is None:
                    tokens.append((at + wide / 2, ELLIPSIS))
                elif column < len(self.tokens) and not any(
                    self.items[i].mark == "token" for i in self._column(column)
                ):
                    tokens.append((at + wide / 2, self._token(column)))
            at += wide
        with_marks = self.tokens is not None and any(item.mark == "token" for item in self.items)
        own_line = bool(tokens) and not with_marks
        skipped = (
            0 if self.tokens is None else len(self.tokens) - sum(column is not None for column in self.order)
        )
        bottom = self._token_height() + ROW_GAP if own_line else 0.0
        placed: list[Placed | None] = [None] * len(self.items)
        heights: dict[float, float] = {}
        turn = dict.fromkeys(self.used, 0)
        for row in self.rows:
            lines = {column: self._split(row, column) for column in self.used if (row, column) in self.cells}
            count, step = max(len(found) for found in lines.values()), self._step(row)
            for column, found in lines.items():
                for k, line in enumerate(found):
                    # Few lines stand in the middle of a row of many.
                    y = bottom + step * (k + 0.5 + (count - len(found)) / 2)
                    gap = 2 * GAP * scale
                    free = (
                        span[column][1]
                        - span[column][0]
                        - gap * (len(line) - 1)
                        - math.fsum(self.widths[i] for i in line)
                    )
                    where = 0.5
                    if self.items[line[0]].mark not in (
                        "token",
                        "target",
                    ):  # from side to side, for the edges
                        where, turn[column] = SIDES[turn[column] % len(SIDES)], turn[column] + 1
                    x = span[column][0] + (0.5 * free if free < 0 else GAP / 2 + where * max(free - GAP, 0.0))
                    for i in line:
                        placed[i] = self._place(i, x, y)
                        x += self.widths[i] + gap
            heights[row] = bottom + step * count / 2
            bottom += step * count + ROW_GAP
        level = heights[self.rows[0]] if with_marks else self._token_height() / 2
        shown, lost = declash([within(one, width) for one in placed if one is not None], self.items)
        return Layout(
            shown,
            tuple(tokens),
            self.turned,
            heights,
            self.size,
            max(width, at),
            bottom - ROW_GAP,
            self.cut,
            lost,
            skipped,
            level,
        )

    def _wide(self, item: Item, lines: Sequence[str]) -> float:
        text = max((self.measure(line) for line in lines), default=0.0)
        return text * BOLD if item.mark == "target" else text

    def _place(self, i: int, x: float, y: float) -> Placed:
        item, lines, wide = self.items[i], self.texts[i], self.widths[i]
        text = self._wide(item, lines)
        if item.mark == "token" and self.turned:
            height = self._step(item.row) - GAP
            return Placed(x + wide / 2, y, wide, height, lines, x + (wide - self.line) / 2, self.line, height)
        if item.mark in ("token", "target"):
            height = self.line * len(lines) + 0.6 * GAP
            return Placed(x + wide / 2, y, wide, height, lines, x + (wide - text) / 2, text, height)
        height = max(MARK, self.line * len(lines))
        return Placed(x + MARK / 2, y, MARK, height, lines, x + MARK + 0.5 * GAP, text, MARK)

    def _inner(self, column: int) -> list[int]:
        """What stands in a column between its token and its target."""
        return [i for i in self._column(column) if self.items[i].mark not in ("token", "target")]

    def _token_height(self) -> float:
        """The height of the line of tokens."""
        if not self.turned:
            return self.line + GAP
        texts: list[str] = []
        if self.tokens is not None:
            texts += [self._token(column) for column in self.order if column is not None]
        texts += [
            line
            for item, lines in zip(self.items, self.texts, strict=True)
            if item.mark == "token"
            for line in lines
        ]
        return max((self.measure(text) for text in texts), default=0.0) + 2 * GAP

    def _column(self, column: int) -> list[int]:
        return [i for (_, at), found in self.cells.items() if at == column for i in found]

    def _token(self, column: int) -> str:
        assert self.tokens is not None
        return wrap(self.tokens[column], min(self.longest, 12), 1)[0]

    def _split(self, row: float, column: int) -> list[list[int]]:
        """The lines of a cell, lowest first."""
        cell, most = self.cells[row, column], self.capacity[column]
        count = -(-len(cell) // most)
        return [cell[k::count] for k in range(count)]  # in turns, so that neighbours are not above each other

    def _step(self, row: float) -> float:
        """The height of one line of a row."""
        if self.turned and any(
            self.items[i].mark == "token" for (at, _), f in self.cells.items() if at == row for i in f
        ):
            return self._token_height() + GAP
        texts = [len(self.texts[i]) for (at, _), found in self.cells.items() if at == row for i in found]
        return max(self.line * max(texts), MARK) + GAP

    def _lines(self) -> float:
        """The height of all rows."""
        found = 0.0
        for row in self.rows:
            counts = [-(-len(cell) // self.capacity[c]) for (r, c), cell in self.cells.items() if r == row]
            found += max(counts) * self._step(row)
        return found

    def _width(self, column: int | None) -> float:
        if column is None:
            return self.measure(ELLIPSIS) + (0.3 if self.turned else 1.0) * GAP
        own = 0.0
        if self.tokens is not None:
            own = self.line if self.turned else self.measure(self._token(column))
        for row in self.rows:
            if (row, column) in self.cells:
                for line in self._split(row, column):
                    own = max(own, math.fsum(self.widths[i] for i in line) + 2 * GAP * (len(line) - 1))
        return own + (0.7 if self.turned else 1.5) * GAP

    def _least(self, column: int | None) -> float:
        """The width of a column's marks alone."""
        inside = [] if column is None else [i for i in self._column(column) if self.items[i].mark == "token"]
        text = self.line if column is not None and self.tokens is not None else 0.0
        return max((self.widths[i] for i in inside), default=max(MARK, text)) + 0.3 * GAP

    def _total(self) -> float:
        return math.fsum(self._width(column) for column in self.order)


def wrap(text: str, longest: int, lines: int) -> tuple[str, ...]:
    """The text in at most so many lines of so many characters, "…" where something is left out."""
    if len(text) <= longest or lines == 1:
        return (text if len(text) <= longest else text[: max(longest - 1, 1)].rstrip() + ELLIPSIS,)
    rest = text
    found: list[str] = []
    for k in range(lines):
        if len(rest) <= longest:
            return (*found, rest)
        if k == lines - 1:
            break
        cut = rest.rfind(" ", 1, longest + 1)
        if cut < longest // 3:  # no place to break it
            break
        found.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return (*found, rest[: max(longest - 1, 1)].rstrip() + ELLIPSIS)


def _ordered(items: Sequence[Item], edges: Sequence[tuple[int, int, float]]) -> list[int]:
    """Items from left to right: by the mean place of those that they have edges with, a few times over."""
    place = [float(item.column) for item in items]
    near: list[list[tuple[int, float]]] = [[] for _ in items]
    for target, source, weight in edges:
        near[target].append((source, abs(weight)))
        near[source].append((target, abs(weight)))
    for _ in range(4):
        pulled = []
        for i, item in enumerate(items):
            total = math.fsum(size for _, size in near[i])
            mean = math.fsum(place[j] * size for j, size in near[i]) / total if total > 0 else item.column
            away = mean - item.column
            pulled.append(
                item.column + 0.45 * away / (1 + abs(away))
            )  # within half a column: the column stays
        place = pulled
    return sorted(range(len(items)), key=lambda i: (place[i], i))
