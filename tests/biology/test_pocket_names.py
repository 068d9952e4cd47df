"""Names of pocket's features: the rules on small counts, and the bundled names made again."""

from __future__ import annotations

import numpy as np
import pytest

from jaxinterp.biology.pocket import feature_names, vocabulary, words
from jaxinterp.checkpoints import load_model
from jaxinterp.core.files import read_json
from jaxinterp.dashboards import bundled
from jaxinterp.dashboards.labels import FILE
from jaxinterp.dashboards.opening import BUNDLED
from jaxinterp.dictionaries import load_dictionary


def test_a_state_is_named_where_no_other_comes_near():
    states = [state for state in words.STATES for _ in range(10)]
    active = np.zeros((len(states), 1, 4), bool)
    own = np.array(states) == "pelandia"
    active[own, 0, 0] = True
    active[own, 0, 1] = True
    active[np.array(states) == "galtia", 0, 1] = np.arange(10) < 5  # half of another state's questions
    active[np.flatnonzero(own)[:7], 0, 2] = True  # too few of its own
    active[:, 0, 3] = True  # all states
    found = feature_names.state_names(active, states)
    assert {place: name.label for place, name in found.items()} == {(0, 0): "pelandia"}
    assert "100% of two-hop questions about cities of pelandia, in 0% of those" in found[0, 0].text


def test_a_token_is_named_where_nearly_all_counts_are_its():
    table = vocabulary.ids()
    counts = np.zeros((1, 3, len(vocabulary.tokens())), np.int64)
    counts[0, 0, table["hollow"]], counts[0, 0, table["port"]] = 95, 5
    counts[0, 1, table["hollow"]], counts[0, 1, table["port"]] = 60, 40
    counts[0, 2, table["hollow"]] = feature_names.LEAST - 1
    found = feature_names.token_names(counts, 0.9, "“{token}”", "{share}: {token}")
    assert found == {(0, 0): feature_names.Name("“hollow”", "95%: hollow", 0.95)}


def test_bundled_names_are_shown():
    found = bundled("pocket").feature(2, 37)
    assert found is not None and found["label"] == "pelandia"
    assert found["explanations"][0]["by"] == feature_names.BY


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pocket-clt", "pocket-plt"])
def test_the_bundled_names_are_those_that_the_rules_give(name):
    """All but those on the edge of a rule, where rounding on another machine may count one token more."""
    made = feature_names.document(feature_names.names(load_model("pocket"), load_dictionary(name)))[
        "features"
    ]
    kept = read_json(BUNDLED[name] / FILE)["features"]
    same = sum(made.get(key, {}).get("label") == one["label"] for key, one in kept.items())
    assert same >= 0.99 * max(len(made), len(kept))
