"""The native file: round trips, equal bytes, and files that are not what they should be."""

from __future__ import annotations

import json
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxinterp.core.errors import InputError
from jaxinterp.graphs import load_graph
from tests.graphs.graph_examples import random_graph, same


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from(["float32", "float64"]),
    st.sampled_from([0.0, 0.5]),
    st.booleans(),
)
def test_a_graph_comes_back_the_same(tmp_path_factory, seed, dtype, density, prune):
    folder = tmp_path_factory.mktemp("native")
    graph = random_graph(seed, dtype=dtype, density=density, left_out=True)
    graph = graph.prune(0.7, 0.9) if prune else graph
    graph.save(folder / "a.jigraph")
    back = load_graph(folder / "a.jigraph")
    assert same(graph, back) and back.scores() == graph.scores() and back.checks() == graph.checks()
    back.save(folder / "b.jigraph")
    assert (folder / "a.jigraph").read_bytes() == (folder / "b.jigraph").read_bytes()
    assert sorted(p.name for p in folder.iterdir()) == ["a.jigraph", "b.jigraph"]


def test_arrays_are_read_only_and_a_loaded_graph_can_be_pruned(tmp_path):
    random_graph(dtype="float32").save(tmp_path / "g.jigraph")
    graph = load_graph(tmp_path / "g.jigraph")
    with pytest.raises(ValueError, match="read-only"):
        graph.weights[0] = 1
    assert len(graph.prune(0.5, 0.5)) < len(graph)


def test_a_file_is_known_by_content_not_by_name(tmp_path):
    graph = random_graph()
    graph.save(tmp_path / "g.jigraph")
    graph.save(tmp_path / "g.json")
    (tmp_path / "native").write_bytes((tmp_path / "g.jigraph").read_bytes())
    (tmp_path / "text").write_bytes((tmp_path / "g.json").read_bytes())
    assert same(load_graph(tmp_path / "native"), load_graph(tmp_path / "text"))


@pytest.fixture
def whole(tmp_path):
    path = tmp_path / "g.jigraph"
    random_graph(layers=2, positions=2, per_place=1).save(path)
    return path, path.read_bytes()


def test_every_cut_is_noticed(whole):
    path, data = whole
    for size in [0, 3, 8, 15, 23, 24, 60, *range(100, len(data), 97), len(data) - 1]:
        path.write_bytes(data[:size])
        with pytest.raises(InputError, match=r"g\.jigraph"):
            load_graph(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(InputError, match="arrays end at byte"):
        load_graph(path)


def test_every_flipped_bit_is_noticed_or_harmless(whole):
    path, data = whole
    original = load_graph(path)
    original = (original.nodes.tobytes(), original.weights.tobytes(), original.prompt)
    messages: list[str] = []
    for at in range(0, len(data), 41):
        changed = bytearray(data)
        changed[at] ^= 0x10
        path.write_bytes(bytes(changed))
        try:
            graph = load_graph(path)
        except InputError as error:
            messages.append(str(error))
        else:  # bytes between arrays
            assert (graph.nodes.tobytes(), graph.weights.tobytes(), graph.prompt) == original
    assert len(messages) > 50 and all("g.jigraph" in message for message in messages)


def test_a_newer_version_is_named(whole):
    path, data = whole
    path.write_bytes(data[:8] + struct.pack("<I", 3) + data[12:])
    with pytest.raises(InputError, match="version 3; this jaxinterp reads up to 2"):
        load_graph(path)


def test_a_file_of_version_1_is_read(whole):
    path, data = whole
    graph = random_graph(layers=2, positions=2, per_place=1)
    fields = [name for name in graph.nodes.dtype.names if name != "part"]
    old = np.zeros(len(graph), np.dtype([(name, graph.nodes.dtype[name]) for name in fields]))
    for name in fields:
        old[name] = graph.nodes[name]
    length = struct.unpack("<Q", data[16:24])[0]
    header = json.loads(data[24 : 24 + length])
    layout = header["arrays"]
    first = -(-(24 + length) // 64) * 64
    start = first + layout["indptr"]["offset"]
    shift = -(-old.nbytes // 64) * 64 - layout["indptr"]["offset"]
    for name in ("indptr", "indices", "weights"):
        layout[name]["offset"] += shift
    layout["nodes"]["crc32"] = zlib.crc32(old.tobytes())
    text = json.dumps(header).encode()
    head = data[:8] + struct.pack("<IIQ", 1, zlib.crc32(text), len(text)) + text
    body = old.tobytes() + bytes(-old.nbytes % 64) + data[start:]
    path.write_bytes(head + bytes(-len(head) % 64) + body)
    assert same(load_graph(path), graph) and (load_graph(path).nodes["part"] == 1).all()


def forged(data: bytes, change) -> bytes:
    """The file with another header under a right checksum, arrays where they belong."""
    length = struct.unpack("<Q", data[16:24])[0]
    header = json.loads(data[24 : 24 + length])
    arrays = data[-(-(24 + length) // 64) * 64 :]
    change(header)
    text = json.dumps(header).encode()
    start = data[:12] + struct.pack("<IQ", zlib.crc32(text), len(text)) + text
    return start + bytes(-len(start) % 64) + arrays


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.pop("prompt"), "header holds"),
        (lambda h: h.update(prompt=3), "'prompt' is a int"),
        (lambda h: h["arrays"]["weights"].update(dtype="|O"), "array weights: expected one of dtype"),
        (lambda h: h["arrays"]["nodes"].update(shape=[2, 2]), "shape"),
        (lambda h: h["arrays"]["nodes"].update(shape=[2**60]), "cut short"),
        (lambda h: h["arrays"]["indices"].update(offset=-64), "offset"),
        (lambda h: h["arrays"]["indices"].update(offset=64), "checksum"),
        (lambda h: h["arrays"].pop("indptr"), "array indptr"),
        (lambda h: h["labels"].update({"999": "x"}), "labels"),
        (lambda h: h["token_ids"].append(1), "token_ids"),
        (lambda h: h.update(foreign=[1]), "foreign"),
        (lambda h: h.update(foreign={"whole": True}), "foreign.top"),
        (lambda h: h["settings"].update(convention="x"), "settings.convention"),
        (lambda h: h["settings"].update(pruned={"node_threshold": "x"}), "settings.pruned"),
        (lambda h: h["measured"].update(scores={"replacement": 1}), "measured.scores"),
        (lambda h: h["measured"].update(checks=[]), "measured.checks"),
        (lambda h: h["measured"].update(identity_1="small"), "measured.identity_1"),
        (lambda h: h.update(token_ids=[1], token_texts=["a"]), "outside the prompt"),
    ],
)
def test_a_forged_header_is_refused(whole, change, message):
    path, data = whole
    path.write_bytes(forged(data, change))
    with pytest.raises(InputError, match=message):
        load_graph(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("indices", 10_000, "outside"),
        ("indices", -1, "outside"),
        ("indptr", 5, "divide"),
        ("weights", np.nan, "no finite number"),
    ],
)
def test_arrays_that_are_no_graph_are_refused(whole, name, value, message):
    path, data = whole
    length = struct.unpack("<Q", data[16:24])[0]
    entry = json.loads(data[24 : 24 + length])["arrays"][name]
    base = -(-(24 + length) // 64) * 64
    start = base + entry["offset"]
    array = np.frombuffer(data[start:], entry["dtype"], entry["shape"][0]).copy()
    array[-1 if name != "indptr" else 0] = value
    changed = data[:start] + array.tobytes() + data[start + array.nbytes :]
    path.write_bytes(forged(changed, lambda h: h["arrays"][name].update(crc32=zlib.crc32(array.tobytes()))))
    with pytest.raises(InputError, match=message):
        load_graph(path)


def test_places_that_cannot_be_used(tmp_path):
    graph = random_graph()
    with pytest.raises(InputError, match=r"ending in \.json or \.jigraph"):
        graph.save(tmp_path / "g.pt")
    for name in ("nowhere/g.jigraph", "nowhere/g.json"):
        with pytest.raises(InputError, match="cannot write"):
            graph.save(tmp_path / name)
    with pytest.raises(InputError, match="cannot read"):
        load_graph(tmp_path / "absent.jigraph")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(InputError, match="not JSON"):
        load_graph(tmp_path / "empty")
    assert [p.name for p in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize("ending", ["jigraph", "json"])
def test_a_failing_write_keeps_the_old_file(tmp_path, monkeypatch, ending):
    path = tmp_path / f"g.{ending}"
    random_graph(1).save(path)
    before = path.read_bytes()

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match="No space left"):
        random_graph(2).save(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_settings_that_no_file_can_hold_are_refused(tmp_path):
    graph = random_graph()
    graph.settings["made_by"] = object()
    for name in ("g.jigraph", "g.json"):
        with pytest.raises(InputError, match=r"settings\.made_by: a value of type object"):
            graph.save(tmp_path / name)
    assert not list(tmp_path.iterdir())
