"""Make a graph again from its own record and say whether it is the same.

  jaxinterp reproduce graph.json --model MODEL --dictionary DICTIONARY

A graph of the bundled model needs no options. Exit code 0: identical, or close where library versions
differ; 1: different, with the first differences named.
"""

from __future__ import annotations

import argparse

from jaxinterp.cli import shared


def options(sub: argparse.ArgumentParser) -> None:
    """The verb's options."""
    sub.add_argument("graph", help=".json or .jigraph file made by jaxinterp")
    sub.add_argument(
        "--model", help="the model it was made from (default: the recorded name if it is bundled)"
    )
    sub.add_argument(
        "--dictionary", action="append",
        help="the dictionary (default: the recorded name if it is bundled); repeated if there were several",
    )  # fmt: skip
    sub.add_argument("--tokenizer", help="as for trace")
    sub.add_argument("--lazy", action="store_true", help="as for trace")
    sub.add_argument("--json", action="store_true", help="print the outcome as JSON")


def run(options: argparse.Namespace) -> int:
    """Trace again, compare, say so."""
    from jaxinterp.attribution.reproduce import reproduce
    from jaxinterp.core.errors import InputError
    from jaxinterp.graphs import load_graph

    graph = load_graph(options.graph)
    for what in ("model", "dictionary"):
        recorded = graph.settings.get(what)
        if getattr(options, what) is None:
            if not str(recorded).startswith("pocket"):
                raise InputError(f"{options.graph} was made from the {what} {recorded!r}: give --{what}")
            setattr(options, what, [recorded] if what == "dictionary" else recorded)
    model, dictionary = shared.load(options, dtype=graph.settings.get("dtype", "float32"))
    found = reproduce(graph, model, dictionary)
    if options.json:
        shared.print_json({"outcome": found.outcome, "differences": list(found.differences)})
    else:
        print(found)
    return 1 if found.outcome == "different" else 0
