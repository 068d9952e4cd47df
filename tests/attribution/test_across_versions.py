"""A graph that Python 3.11 with jax 0.10.2 made and the repository keeps, made again by whatever runs the tests.

``python -m tests.attribution.test_across_versions FILE`` makes it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from jaxinterp.attribution import reproduce, trace
from jaxinterp.attribution.differences import differences
from jaxinterp.attribution.reproduce import TOLERANCE
from jaxinterp.core.provenance import versions
from jaxinterp.dictionaries import Dictionary
from jaxinterp.graphs import load_graph
from jaxinterp.models import Model
from tests.attribution.cases import TOKENS, random_dictionary
from tests.support import tiny_model

FILE = Path(__file__).with_name("data") / "gemma2-raw-clt.jigraph"


def subject() -> tuple[Model, Dictionary]:
    model = tiny_model("gemma2")
    return model, random_dictionary(model, "raw-clt", dtype="float32")


def test_a_graph_of_other_versions_is_made_again(record_property: pytest.RecordProperty) -> None:
    graph = load_graph(FILE)
    found = reproduce(graph, *subject())
    largest = differences(graph, found.graph).largest
    record_property("outcome", found.outcome)
    print(f"{found.outcome}, largest difference {largest}")
    assert largest is not None and largest <= TOLERANCE
    others = [name for name, was in graph.provenance["versions"].items() if versions().get(name) != was]
    if others:
        assert found.outcome in ("identical", "close"), str(found)
        assert any(name in line for line in found.differences for name in others)
    else:  # on another processor the last bits may differ, for which there is no word but "different"
        assert found.outcome == ("identical" if largest == 0 else "different")


if __name__ == "__main__":
    trace(*subject(), TOKENS).save(sys.argv[1])
