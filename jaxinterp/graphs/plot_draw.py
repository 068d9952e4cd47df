"""Drawing a laid-out figure with matplotlib. Imported only when a figure is made; one unit of the axes is one inch."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import atomic
from jaxinterp.graphs.plot import row_name
from jaxinterp.graphs.plot_layout import lay_out
from jaxinterp.graphs.plot_records import ELLIPSIS, GAP, LINE, MARK, Item, Layout, Placed

MARGIN = 0.05
DASHES = (0, (2.6, 1.5))
ENDINGS = {
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None},
    ".png": {"Software": None},
}
# Paths, not text, in SVG: the same picture on every machine. Fonts are put into a PDF whole, so it can be edited.
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "path",
    "svg.hashsalt": "jaxinterp",
    "pdf.fonttype": 42,
    "path.simplify": False,
}


class Theme(NamedTuple):
    """Colours. Positive and negative differ in hue for the common kinds of colour blindness, and in lightness."""

    back: str
    raised: str
    text: str
    muted: str
    line: str
    positive: str
    negative: str


THEMES = {
    "light": Theme("#ffffff", "#f0f0ec", "#1b1d22", "#6a6e77", "#e4e4df", "#169b62", "#5b2bb0"),
    "dark": Theme("#14171c", "#262b33", "#e7e9ee", "#a0a6b2", "#2b313a", "#6fe0a4", "#9b6bff"),
}


def draw(
    items: Sequence[Item],
    edges: Sequence[tuple[int, int, float]],
    tokens: Sequence[str] | None,
    width: float,
    lines: Sequence[str],
    *,
    theme: str,
    title: str,
    legend: bool,
    caption: bool,
    size: float,
    font: str | Sequence[str],
) -> Any:
    """The figure; see plot.plot_graph."""
    with _settings():
        pen = _Pen(THEMES[theme], font)
        parts = {round(item.row % 1, 3) for item in items if 0 <= item.row < 1e6}
        names = {item.row: row_name(item.row, len(parts) > 1) for item in items}
        side = max((pen.measure(name, 0.9 * size) for name in names.values() if name), default=0.0)
        left = MARGIN + side + (GAP if side else 0)
        layout = lay_out(items, edges, tokens, width - left - MARGIN, pen.measure, size)
        small = 0.88 * layout.size
        if layout.cut:
            lines = [*lines, f"{layout.cut} {'label is' if layout.cut == 1 else 'labels are'} shortened."]
        if layout.skipped:
            lines = [
                *lines,
                f"{layout.skipped} tokens of the prompt, at which nothing is drawn, are left out.",
            ]
        if layout.lost:
            lines = [*lines, f"{layout.lost} labels are left out for want of room."]
        below: list[Callable[[float], float]] = []
        if legend:
            below.append(lambda top: pen.legend(items, edges, left, top, width - MARGIN, small))
        if caption:
            text = " ".join(lines)
            below.append(lambda top: pen.paragraph(text, left, top, width - MARGIN, small))
        foot = math.fsum(-part(0.0) + GAP for part in below) if below else 0.0
        head = 1.6 * size / 72 if title else 0.0
        height = MARGIN + foot + GAP + layout.height + head + MARGIN
        pen.open(width, height)
        base = MARGIN + foot + GAP
        if title:
            pen.text(left, height - MARGIN - head / 2, title, 1.1 * size, bold=True)
        pen.rows(layout, names, left, base, width)
        pen.edges(layout.placed, edges, left, base)
        pen.marks(items, layout, left, base)
        top = base - GAP
        for part in below:
            top = part(top) - GAP
    return pen.figure


def save(figure: Any, path: str | PathLike[str], dpi: float = 300) -> None:
    """Write a figure without anything that differs between two runs."""
    place = Path(path)
    ending = place.suffix.lower()
    if ending not in ENDINGS:
        raise InputError(f"cannot write {path}: expected a name ending in {', '.join(ENDINGS)}")
    data = _rendered(figure, ending, dpi)
    with atomic(place) as temporary:
        temporary.write_bytes(data)


def _rendered(figure: Any, ending: str, dpi: float = 300) -> bytes:
    stream = io.BytesIO()
    with _settings():
        figure.savefig(
            stream, format=ending[1:], dpi=dpi, metadata=ENDINGS[ending], facecolor=figure.get_facecolor()
        )
    return stream.getvalue()


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    """Matplotlib as it comes, whatever style the user has set, and without its warnings about signs that a font has
    not; they are drawn as boxes."""
    import matplotlib

    with warnings.catch_warnings(), matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        warnings.filterwarnings("ignore", message=".*Glyph.*missing")
        warnings.filterwarnings("ignore", message=".*does not support.*natively")
        yield


@cache
def _figure_class() -> type:
    from matplotlib.figure import Figure

    class GraphFigure(Figure):
        """A figure that notebooks show and that saves itself the same way every time."""

        def save(self, path: str | PathLike[str], dpi: float = 300) -> None:
            """Write .svg, .pdf or .png."""
            save(self, path, dpi)

        def _repr_svg_(self) -> str:
            return _rendered(self, ".svg").decode("utf-8")

    return GraphFigure


class _Pen:
    """One figure and what draws on it."""

    def __init__(self, theme: Theme, font: str | Sequence[str]) -> None:
        from matplotlib.font_manager import FontProperties

        self.theme = theme
        self.family = [font] if isinstance(font, str) else list(font)
        self._prop = FontProperties(family=self.family, size=100)
        self._known: dict[str, float] = {}
        self.figure: Any = None

    def measure(self, text: str, size: float) -> float:
        """The width of a text in inches."""
        from matplotlib.textpath import text_to_path

        if text not in self._known:
            # Blanks at the ends have no ink; a letter on either side gives them their width.
            whole, bare = (
                text_to_path.get_text_width_height_descent(one, self._prop, False)[0]
                for one in (f"x{text}x", "xx")
            )
            self._known[text] = float(whole - bare) / self._prop.get_size_in_points()
        return self._known[text] * size / 72

    def open(self, width: float, height: float) -> None:
        """A sheet of this size."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        self.figure = _figure_class()(figsize=(width, height), facecolor=self.theme.back)
        FigureCanvasAgg(self.figure)
        axes = self.figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, width)
        axes.set_ylim(0, height)
        axes.axis("off")
        self.axes = axes

    def text(self, x: float, y: float, text: str, size: float, **how: Any) -> None:
        """A line of text, its left edge and middle at (x, y)."""
        from matplotlib.patheffects import withStroke

        colour = how.get("colour", self.theme.text)
        halo = [withStroke(linewidth=1.5, foreground=self.theme.back)] if how.get("halo") else None
        self.axes.text(
            x, y, text, size=size, color=colour, family=self.family, ha=how.get("ha", "left"),
            va="center" if how.get("turn") else "center_baseline", rotation=90 if how.get("turn") else 0,
            weight="bold" if how.get("bold") else "normal", parse_math=False, path_effects=halo, zorder=5,
        )  # fmt: skip

    def rows(self, layout: Layout, names: dict[float, str], left: float, base: float, width: float) -> None:
        """Layers along the left, a faint line through each row, and the tokens that have no mark of their own."""
        for row, y in layout.rows.items():
            if names[row]:
                self.axes.plot(
                    [left, width - MARGIN], [base + y] * 2, color=self.theme.line, linewidth=0.5, zorder=0
                )
                self.text(
                    left - GAP, base + y, names[row], 0.9 * layout.size, colour=self.theme.muted, ha="right"
                )
        for x, text in layout.tokens:
            y = base + layout.token_level
            turn = layout.turned and text != ELLIPSIS
            self.text(left + x, y, text, layout.size, colour=self.theme.muted, ha="center", turn=turn)

    def edges(
        self, placed: Sequence[Placed], edges: Sequence[tuple[int, int, float]], left: float, base: float
    ) -> None:
        """Curves from the top of a mark to the foot of another, the widest on top."""
        from matplotlib.patches import PathPatch
        from matplotlib.path import Path as Curve

        for target, source, share in sorted(edges, key=lambda edge: abs(edge[2])):
            low, high = placed[source], placed[target]
            start = (left + low.x, base + low.y + low.height_of_mark / 2)
            end = (left + high.x, base + high.y - high.height_of_mark / 2)
            rise = max(0.45 * (end[1] - start[1]), 0.12)
            points = [start, (start[0], start[1] + rise), (end[0], end[1] - rise), end]
            curve = Curve(points, [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4])
            self.axes.add_patch(PathPatch(curve, fill=False, zorder=1, **self._stroke(share)))

    def _stroke(self, share: float) -> dict[str, Any]:
        size = min(abs(share), 1.0)
        return {
            "edgecolor": self.theme.positive if share > 0 else self.theme.negative,
            "linewidth": 0.4 + 3.6 * size,
            "linestyle": "solid" if share > 0 else DASHES,
            "alpha": min(1.0, 0.45 + 1.1 * size),
            "capstyle": "butt",
        }

    def marks(self, items: Sequence[Item], layout: Layout, left: float, base: float) -> None:
        """Every mark with its text."""
        for item, place in zip(items, layout.placed, strict=True):
            x, y = left + place.x, base + place.y
            self.mark(item.mark, x, y, place.width, place.height_of_mark)
            if item.mark == "token":
                self.text(x, y, "".join(place.lines), layout.size, ha="center", turn=layout.turned)
                continue
            step = layout.size / 72 * LINE
            target = item.mark == "target"
            for k, line in enumerate(place.lines):
                level = y + step * ((len(place.lines) - 1) / 2 - k)
                if line and target:
                    self.text(x, level, line, layout.size, bold=True, ha="center")
                elif line:
                    self.text(left + place.text_x, level, line, layout.size, halo=True)

    def mark(self, kind: str, x: float, y: float, width: float = MARK, height: float = MARK) -> None:
        """One mark with its middle at (x, y)."""
        from matplotlib.patches import Circle, Polygon, Rectangle

        theme, r = self.theme, MARK / 2
        how: dict[str, Any] = {
            "facecolor": theme.back,
            "edgecolor": theme.text,
            "linewidth": 0.7,
            "zorder": 3,
        }
        if kind in ("token", "target"):
            how |= {"facecolor": theme.raised, "linewidth": 1.2 if kind == "target" else 0.7}
            self.axes.add_patch(Rectangle((x - width / 2, y - height / 2), width, height, **how))
        elif kind == "error":
            corners = [(x, y + 1.15 * r), (x + 1.15 * r, y), (x, y - 1.15 * r), (x - 1.15 * r, y)]
            self.axes.add_patch(Polygon(corners, closed=True, **{**how, "facecolor": theme.muted}))
        elif kind == "bias":
            corners = [(x - r, y - 0.8 * r), (x + r, y - 0.8 * r), (x, y + r)]
            self.axes.add_patch(Polygon(corners, closed=True, **how))
        else:
            if kind == "group":
                self.axes.add_patch(Circle((x + 0.45 * r, y + 0.45 * r), r, **{**how, "zorder": 2}))
            self.axes.add_patch(Circle((x, y), r, **how))

    def legend(
        self, items: Sequence[Item], edges: Sequence[tuple[int, int, float]], left: float, top: float, right: float,
        size: float,
    ) -> float:  # fmt: skip
        """What marks and lines mean, of those that are there; the height where it ends. Draws once a sheet is open."""
        names = {
            "feature": "feature", "group": "supernode (×nodes)", "error": "error", "bias": "bias",
            "token": "token", "target": "output",
        }  # fmt: skip
        present = {item.mark for item in items}
        entries: list[tuple[str, str]] = [(mark, name) for mark, name in names.items() if mark in present]
        if any(share > 0 for _, _, share in edges):
            entries.append(("+", "positive"))
        if any(share < 0 for _, _, share in edges):
            entries.append(("-", "negative"))
        if edges:
            entries += [("0.1", "10 %"), ("0.5", "50 % of input")]
        step = max(size / 72 * LINE, MARK) + 0.02
        x, y = left, top - step / 2
        for mark, name in entries:
            wide = (MARK if mark in names else 0.26) + 0.6 * GAP
            whole = wide + self.measure(name, size)
            if x > left and x + whole > right:
                x, y = left, y - step
            if self.figure is not None:
                if mark in names:
                    self.mark(mark, x + MARK / 2, y)
                else:
                    share = {"+": 0.25, "-": -0.25}.get(mark) or float(mark)
                    style = self._stroke(share)
                    if mark not in "+-":
                        style |= {"edgecolor": self.theme.muted}
                    self._sample(x, y, style)
                self.text(x + wide, y, name, size, colour=self.theme.muted)
            x += whole + 2.2 * GAP
        return y - step / 2

    def _sample(self, x: float, y: float, style: dict[str, Any]) -> None:
        from matplotlib.patches import PathPatch
        from matplotlib.path import Path as Curve

        self.axes.add_patch(PathPatch(Curve([(x, y), (x + 0.26, y)]), fill=False, zorder=3, **style))

    def paragraph(self, text: str, left: float, top: float, right: float, size: float) -> float:
        """Words in lines; the height where they end. Draws once a sheet is open."""
        step, y = size / 72 * LINE, top - size / 72 * LINE / 2
        line: list[str] = []
        wide, blank = 0.0, self.measure(" ", size)
        for word in [*text.split(" "), None]:
            more = 0.0 if word is None else self.measure(word, size)
            if word is not None and (not line or left + wide + blank + more <= right):
                line.append(word)
                wide += more + blank * (len(line) > 1)
                continue
            if self.figure is not None:
                self.text(left, y, " ".join(line), size, colour=self.theme.muted)
            y -= step
            line, wide = [word or ""], more
        return y + step / 2
