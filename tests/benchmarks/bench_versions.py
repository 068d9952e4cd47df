"""How far graphs of one version of jax are from those of another.

  OLD/python -m tests.benchmarks.bench_versions make FOLDER     writes graphs
  NEW/python -m tests.benchmarks.bench_versions again FOLDER    makes them again and compares

Three families of tiny models, a dictionary kind each, and stories260K where it lies beside the repository; random
dictionaries, the same numbers wherever they are drawn.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxinterp.attribution import reproduce, trace
from jaxinterp.attribution.differences import differences
from jaxinterp.checkpoints import load_model
from jaxinterp.core.provenance import versions
from jaxinterp.graphs import load_graph
from tests.attribution.cases import TOKENS, random_dictionary
from tests.support import ROOT, tiny_model

STORIES = ROOT.parent / "shared" / "data" / "stories260K.bin"
CASES = (("llama", "skip-plt"), ("gpt2", "clt"), ("gemma2", "raw-clt"))
BEGINNING = (1, 403, 407, 261, 378, 372, 311, 414, 302, 406)


def cases() -> Iterator[tuple[str, Any, Any, tuple[int, ...]]]:
    """Name, model, dictionary and tokens."""
    for family, name in CASES:
        model = tiny_model(family)
        yield f"{family}-{name}", model, random_dictionary(model, name, dtype="float32"), TOKENS
    if STORIES.exists():
        model = load_model(STORIES)
        yield (
            "stories260K-clt",
            model,
            random_dictionary(model, "clt", n_features=64, dtype="float32"),
            BEGINNING,
        )


def main() -> None:
    """Make or compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("make", "again"))
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    print(", ".join(f"{name} {number}" for name, number in versions().items()))
    for name, model, dictionary, tokens in cases():
        path = options.folder / f"{name}.jigraph"
        if options.what == "make":
            graph = trace(model, dictionary, tokens)
            graph.save(path)
            print(f"{name}: {len(graph.nodes)} nodes, {len(graph.weights)} edges")
        else:
            graph = load_graph(path)
            found = reproduce(graph, model, dictionary)
            print(
                f"{name}: {found.outcome}, largest difference {differences(graph, found.graph).largest:.2g}"
            )


if __name__ == "__main__":
    main()
