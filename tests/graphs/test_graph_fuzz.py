"""Whatever is in a graph file: it is read, or refused with one clear line; nothing else."""

from __future__ import annotations

import copy
import json
import struct
import warnings
import zlib

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxinterp.core.errors import InputError
from jaxinterp.graphs import load_graph, report
from jaxinterp.graphs.neuronpedia import json_document
from tests.graphs.graph_examples import random_graph
from tests.graphs.test_graph_dialects import ANTHROPIC, CRM

OWN = json_document(random_graph(layers=2, positions=2, per_place=1).prune(0.9, 0.95))
DOCUMENTS = [json.loads(json.dumps(d)) for d in (OWN, CRM, ANTHROPIC)]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**31, 2**63, -(2**70), 1e308, -0.5]),
    st.text(max_size=3),
    st.sampled_from(["E", "logit", "0_5_1", "embedding", "\ud800"]),
    st.lists(st.integers(0, 1), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)


def spots(value, path=()):
    """Every place in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from spots(inner, (*path, key))


SPOTS = [list(spots(document)) for document in DOCUMENTS]


def change(document, path, value, remove):
    holder = document
    for key in path[:-1]:
        holder = holder[key]
    if remove:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value


def read_or_refuse(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        message = ""
        try:
            graph = load_graph(path)
            graph.save(path.with_suffix(".again.json"))
            graph.save(path.with_suffix(".again.jigraph"))
            report(graph.prune(0.5, 0.5), 60)
        except InputError as error:
            message = str(error)
    assert "\n" not in message


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), st.integers(0, 2), VALUES, st.booleans())
def test_json_with_one_odd_value(tmp_path_factory, data, which, value, remove):
    document = copy.deepcopy(DOCUMENTS[which])
    change(document, data.draw(st.sampled_from(SPOTS[which])), value, remove)
    path = tmp_path_factory.getbasetemp() / "fuzz.json"
    path.write_text(json.dumps(document))
    read_or_refuse(path)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), VALUES, st.booleans())
def test_a_native_header_with_one_odd_value(tmp_path_factory, data, value, remove):
    path = tmp_path_factory.getbasetemp() / "fuzz.jigraph"
    random_graph(layers=1, positions=2, per_place=1).prune(0.9, 0.95).save(path)
    whole = path.read_bytes()
    length = struct.unpack("<Q", whole[16:24])[0]
    header = json.loads(whole[24 : 24 + length])
    change(header, data.draw(st.sampled_from(list(spots(header)))), value, remove)
    text = json.dumps(header).encode()
    start = whole[:12] + struct.pack("<IQ", zlib.crc32(text), len(text)) + text
    path.write_bytes(start + bytes(-len(start) % 64) + whole[-(-(24 + length) // 64) * 64 :])
    read_or_refuse(path)
