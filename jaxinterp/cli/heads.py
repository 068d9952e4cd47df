"""Open the edges of a graph into the attention heads that carry them.

  jaxinterp heads graph.json --model MODEL --dictionary DICTIONARY --out heads.json
  jaxinterp heads graph.json --model MODEL --dictionary DICTIONARY --edge 17 204

Printed: the heads through which most of the graph runs, and the strongest edges (or those of --edge SOURCE TARGET, by
node number) with what passes no head and what each head carries. A path counts for the last head that it passes, or
with --by first for the first. --out keeps the strongest heads of every edge.
"""

from __future__ import annotations

import argparse

from jaxinterp.cli import shared


def options(sub: argparse.ArgumentParser) -> None:
    """The verb's options."""
    sub.add_argument("graph", help=".json or .jigraph file made by jaxinterp trace")
    shared.model_options(sub)
    sub.add_argument(
        "--edge", nargs=2, type=int, action="append", metavar=("SOURCE", "TARGET"),
        help="node numbers of an edge to open; may be repeated (default: every edge)",
    )  # fmt: skip
    sub.add_argument("--by", choices=("last", "first"), default="last", help="which head a path counts for")
    sub.add_argument("--top", type=int, default=8, help="edges shown, and heads of each (default: 8)")
    sub.add_argument("--lazy", action="store_true", help="as for trace")
    sub.add_argument("--out", help="write the loadings: .json")
    sub.add_argument("--json", action="store_true", help="print the loadings as JSON")


def run(options: argparse.Namespace) -> int:
    """Open, print, save."""
    import numpy as np

    from jaxinterp.attribution.heads import head_loadings
    from jaxinterp.core.errors import InputError
    from jaxinterp.graphs import load_graph
    from jaxinterp.graphs.summary import node_text

    if options.top < 1:
        raise InputError(f"--top is {options.top}, at least 1 is needed")
    shared.check_out(options.out, (".json",))
    graph = load_graph(options.graph)
    model, dictionary = shared.load(options, dtype=graph.settings.get("dtype", "float32"))
    found = head_loadings(model, dictionary, graph, options.edge, by=options.by)
    if options.out:
        found.save(options.out, options.top)
    if options.json:
        shared.print_json(found.to_dict(options.top))
        return 0
    total = found.of_heads()
    order = np.argsort(-total, axis=None, kind="stable")[: options.top]
    heads = [divmod(int(i), total.shape[1]) for i in order]
    share = f"{np.abs(found.direct).sum() / (np.abs(found.direct).sum() + total.sum()):.1%}"
    print(
        f"{len(found)} edges; {share} of what they carry passes no head; the sums are off by {found.off:.1e}"
    )
    print(
        "heads by sum of |loading|: "
        + ", ".join(f"{layer}.{head} {total[layer, head]:.3f}" for layer, head in heads)
    )
    weights = found.weights
    for edge in np.argsort(-np.abs(weights), kind="stable")[: options.top].tolist():
        source, target = (node_text(graph, int(end[edge])) for end in (found.source, found.target))
        carried, rest = found.strongest(edge, options.top)
        print(f"\n{source} -> {target}: {weights[edge]:+.4f}")
        print(f"  {float(found.direct[edge]):+10.4f}  no head")
        for layer, head, value in carried:
            print(f"  {value:+10.4f}  head {layer}.{head}")
        if rest:
            print(f"  {rest:+10.4f}  all other heads")
    if options.out:
        print(f"\nsaved {options.out}")
    return 0
