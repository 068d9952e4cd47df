"""The quick way through JSON links: the same graph, or the same error, as the tolerant way. And what it is for."""

from __future__ import annotations

import copy
import json
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxinterp.core.errors import InputError
from jaxinterp.graphs import json_quick, json_read, load_graph
from jaxinterp.graphs.neuronpedia import json_document
from jaxinterp.graphs.plain import float_texts
from tests.graphs.graph_examples import random_graph, same
from tests.graphs.test_graph_dialects import ANTHROPIC, CRM
from tests.graphs.test_graph_fuzz import VALUES, change, spots

OWN = json_document(random_graph(layers=2, positions=2, per_place=1))
LOOSE = copy.deepcopy(CRM)
LOOSE["links"][1:1] = [
    {"weight": 1, "source": "gone", "target": "2_9_1"},
    {**LOOSE["links"][0], "target": "é},{"},
]
DOCUMENTS = [json.loads(json.dumps(d)) for d in (OWN, CRM, ANTHROPIC, LOOSE)]
LINK_SPOTS = [
    [spot for spot in spots(document) if spot[0] == "links"] + [("nodes", 0, "node_id"), ("links",)]
    for document in DOCUMENTS
]


def outcome(path, quick):
    """The graph and the warnings, or the error, of reading by one way."""
    found = []
    with warnings.catch_warnings(record=True) as caught, pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("always")

        def count(data):
            found.append(None)
            if not quick:
                raise json_quick.Unusual
            return json_quick_document(data)

        json_quick_document = json_quick.document
        patch.setattr(json_read.json_quick, "document", count)
        try:
            graph = json_read.read_json_graph(path)
        except InputError as error:
            return None, str(error)
    assert found
    return graph, [str(warning.message) for warning in caught]


def agree(path):
    quick, said = outcome(path, quick=True)
    slow, also_said = outcome(path, quick=False)
    assert said == also_said
    assert (quick is None) == (slow is None)
    assert quick is None or same(quick, slow)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), st.integers(0, 3), VALUES, st.booleans(), st.sampled_from([40, 300, 1 << 20]))
def test_one_odd_value_in_the_links(tmp_path_factory, data, which, value, remove, piece):
    document = copy.deepcopy(DOCUMENTS[which])
    change(document, data.draw(st.sampled_from(LINK_SPOTS[which])), value, remove)
    if data.draw(st.booleans()) and isinstance(document.get("links"), list):
        document["links"] = data.draw(st.permutations(document["links"][:8])) + document["links"][8:]
    path = tmp_path_factory.getbasetemp() / "quick.json"
    path.write_text(json.dumps(document, indent=data.draw(st.sampled_from([None, 1]))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_quick, "PIECE", piece)
        agree(path)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), st.integers(0, 3), st.sampled_from([40, 1 << 20]))
def test_text_changed_anywhere(tmp_path_factory, data, which, piece):
    text = json.dumps(DOCUMENTS[which]).encode()
    start = text.index(b'"links"') if data.draw(st.booleans()) else 0
    at = data.draw(st.integers(start, len(text)))
    odd = [
        b"",
        b",",
        b"}",
        b"{",
        b"]",
        b'"',
        b"\\",
        b"-",
        b"1e999",
        b"\xff",
        b"\x00",
        b" ",
        b'"source":"x",',
        b"},{",
    ]
    put, cut = data.draw(st.sampled_from(odd)), data.draw(st.integers(0, 3))
    path = tmp_path_factory.getbasetemp() / "quick_text.json"
    path.write_bytes(text[:at] + put + text[at + cut :])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_quick, "PIECE", piece)
        agree(path)


@pytest.mark.parametrize(
    "number",
    ["-0", "-0.0", "1E5", "1e-400", "0.1e1", "9007199254740993", "18446744073709551617", "3" * 200, "1e400"],
)
def test_numbers_are_read_alike(tmp_path, number):
    text = json.dumps(CRM).replace('"weight": 2.0', f'"weight": {number}')
    assert number in text
    (tmp_path / "g.json").write_text(text)
    agree(tmp_path / "g.json")


@pytest.mark.parametrize(
    "text",
    [
        '{"links": "\xff", "links": []}', "[]", "3", '{"links": {}}', "{}", '{"links": [[{},{}]]}', "",
        '\ufeff{"links": []}', '{"links": [{"source": "\xff", "source": "a"}]}',
    ],
)  # fmt: skip
def test_odd_documents_are_left_to_the_tolerant_way(tmp_path, text):
    (tmp_path / "g.json").write_bytes(text.encode("latin-1" if "\ufeff" not in text else "utf-8"))
    agree(tmp_path / "g.json")


def test_plain_files_do_take_the_quick_way(tmp_path, monkeypatch):
    monkeypatch.setattr(json_read, "read_json", None)  # the tolerant way begins with it
    for i, document in enumerate(DOCUMENTS):
        path = tmp_path / f"{i}.json"
        path.write_text(json.dumps(document, indent=i))
        # The last has an id that looks like the end of a link; a cut there sends the file the other way.
        monkeypatch.setattr(json_quick, "PIECE", 200 if i < 3 else 1 << 20)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert len(load_graph(path).weights) == len(document["links"]) - 2 * (i == 3)


def test_loose_links_come_back_where_they_were(tmp_path):
    document = copy.deepcopy(LOOSE)
    document["links"] += [{"source": "gone", "target": "too", "weight": 2, "note": "x"}]
    path = tmp_path / "g.json"
    for version in (LOOSE, document):  # the second is not of the plain form
        path.write_text(json.dumps(version))
        with pytest.warns(UserWarning, match="lead to nodes that are not in the file"):
            load_graph(path).save(path)
        assert json.loads(path.read_text()) == version


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_weights_as_texts(values):
    single = np.array(values, np.float32)
    texts = float_texts(single)
    assert [np.float32(text) for text in texts] == values
    assert texts == [repr(float(str(x))) for x in single]
    assert [json.loads(text) for text in float_texts(single.astype(np.float64))] == values
    assert all(len(text) <= len(repr(x)) for text, x in zip(texts, values, strict=True))


def test_a_weight_that_json_cannot_hold(tmp_path):
    graph = random_graph()
    graph.weights[3] = np.inf
    with pytest.raises(InputError, match="no finite number"):
        graph.save(tmp_path / "g.json")
    assert not list(tmp_path.iterdir())
