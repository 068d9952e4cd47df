"""Draw a graph as a figure for a paper.

  jaxinterp plot graph.jigraph figure.svg
  jaxinterp plot graph.json figure.pdf --width single --nodes saved
  jaxinterp plot graph.json figure.png --theme dark --title "Two hops"

Tokens across, layers up. Without --nodes the supernodes and pins that the file holds are drawn, and where it holds none
the strongest paths to the most probable target. What is left out is counted in the caption. The same file gives the
same bytes. See docs/figures.md.
"""

from __future__ import annotations

import argparse
import re

from jaxinterp.cli import shared
from jaxinterp.core.errors import InputError


def options(sub: argparse.ArgumentParser) -> None:
    """The verb's options."""
    sub.add_argument("graph", help="a graph file, .json or .jigraph")
    sub.add_argument("out", help="the figure: .svg, .pdf or .png")
    sub.add_argument(
        "--nodes",
        help="'saved', 'automatic', or node numbers separated by commas (default: saved, else automatic)",
    )
    sub.add_argument(
        "--width", default="double", help="'single', 'double' or inches (default: double, 7 inches)"
    )
    sub.add_argument("--theme", choices=("light", "dark"), default="light", help="default: light")
    sub.add_argument(
        "--least",
        type=float,
        default=0.02,
        help="least share of its target's input that an edge is drawn from",
    )
    sub.add_argument("--most-edges", type=int, default=80, help="edges drawn at most (default: 80)")
    sub.add_argument("--title", default="", help="a line above the figure")
    sub.add_argument("--no-legend", action="store_true", help="without what marks and lines mean")
    sub.add_argument("--no-caption", action="store_true", help="without the count of what is left out")
    sub.add_argument("--size", type=float, default=7.0, help="of letters, in points (default: 7)")
    sub.add_argument("--font", action="append", help="a font family, may be repeated (default: DejaVu Sans)")
    sub.add_argument("--dpi", type=float, default=300, help="of .png (default: 300)")


def run(options: argparse.Namespace) -> int:
    """Load, draw, write."""
    from jaxinterp.graphs import load_graph

    shared.check_out(options.out, (".svg", ".pdf", ".png"))
    if not 20 <= options.dpi <= 2400:
        raise InputError(f"--dpi {options.dpi:g}: expected 20 to 2400")
    nodes = options.nodes
    if nodes is not None and re.match(r"[-0-9]", nodes):
        nodes = shared.integers("--nodes", nodes)
    width = (
        float(options.width) if re.fullmatch(r"[0-9]+(\.[0-9]*)?|\.[0-9]+", options.width) else options.width
    )
    figure = load_graph(options.graph).plot(
        nodes=nodes, width=width, theme=options.theme, least=options.least, most_edges=options.most_edges,
        title=options.title, legend=not options.no_legend, caption=not options.no_caption, size=options.size,
        font=options.font or "DejaVu Sans",
    )  # fmt: skip
    figure.save(options.out, dpi=options.dpi)
    print(f"saved {options.out}")
    return 0
