"""Graphs for the viewer's tests, a parser of bundles that shares nothing with the writer, and requests."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.graphs import EMBEDDING, FEATURE, TARGET, EdgeBuilder, Graph, assemble, node_order, node_table
from jaxinterp.viewer.library import Library
from jaxinterp.viewer.messages import Answer, Request
from jaxinterp.viewer.pages import viewer_app
from jaxinterp.viewer.routes import App
from tests.graphs.graph_examples import random_graph

TOKEN = "a token of the tests"
PORT = 8765
REAL = ("mit-dallas_ea", "mit-gemma2-2b-clthp-night", "mit-war_ea")


def parsed(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays of a bundle, checked byte by byte."""
    assert data[:8] == b"JIPAGE01"
    length, zero = struct.unpack("<II", data[8:16])
    assert zero == 0
    header = json.loads(data[16 : 16 + length].decode("utf-8"))
    base = -(-(16 + length) // 8) * 8
    assert not any(data[16 + length : base])
    types = {"u1": "<u1", "i4": "<i4", "f4": "<f4", "f8": "<f8"}
    arrays, end = {}, base
    for name, entry in header["arrays"].items():
        assert entry["offset"] % 8 == 0
        start = base + entry["offset"]
        assert start >= end
        arrays[name] = np.frombuffer(data, types[entry["dtype"]], entry["length"], start)
        end = start + arrays[name].nbytes
    assert len(data) - end < 8
    assert not any(data[end:])
    return header, arrays


def chain(**changes: Any) -> Graph:
    """Two tokens, three features, one target: token 0 -> a -> b -> target, with a token's edge beside it.

    Every number is known: of walks back from the target 3/4 go to b, all of them on to a, and 1/2 of those to token 0.
    """
    rows = [
        (FEATURE, 0, 0, 5), (FEATURE, 1, 1, 6), (FEATURE, 1, 0, 7), (EMBEDDING, -1, 0, 10), (EMBEDDING, -1, 1, 11),
        (TARGET, 2, 1, 12),
    ]  # fmt: skip
    nodes = node_table(len(rows))
    for name, column in zip(("kind", "layer", "position", "index"), zip(*rows, strict=True), strict=True):
        nodes[name] = column
    nodes = nodes[node_order(nodes)]  # a: layer 0; c: layer 1, position 0; b: layer 1, position 1
    nodes["activation"][:3] = 1.0
    nodes["probability"][5] = 0.9
    block = np.zeros((6, 6))
    a, _, b, first, second, target = range(6)
    block[target, b], block[target, second] = 3.0, -1.0
    block[b, a] = 2.0
    block[a, first], block[a, second] = 1.0, 1.0
    builder = EdgeBuilder(6, np.float64)
    builder.add(np.arange(6), np.arange(6), block)
    given = {
        "token_ids": (10, 11), "token_texts": (" red", " sky"), "prompt": " red sky", "n_layers": 2,
        "labels": ("first", "", "second", "", "", " blue"),
    }  # fmt: skip
    return assemble(nodes, builder.finish(), **{**given, **changes})


def cyclic() -> Graph:
    """A graph whose features feed each other, as an imported file may say; influence is unknown."""
    graph = random_graph(3, layers=2, positions=2, per_place=2)
    target = int(graph.targets[0])
    nodes = graph.nodes.copy()
    nodes["influence"] = nodes["share"] = np.nan
    dense = np.zeros((len(graph), len(graph)))
    dense[0, 1] = dense[1, 0] = dense[target, 0] = 1.0
    builder = EdgeBuilder(len(graph), np.float64)
    builder.add(np.arange(len(graph)), np.arange(len(graph)), dense)
    csr = builder.finish()
    return replace(
        graph, nodes=nodes, indptr=csr.indptr, indices=csr.indices, weights=csr.weights, measured={}
    )


def app_for(*paths: Path, **more: Any) -> App:
    """The viewer over these files, without a socket."""
    return viewer_app(Library(paths), token=TOKEN, port=PORT, **more)


def ask(app: App, path: str, body: Any = None, *, method: str | None = None, **headers: str) -> Answer:
    """One request of the page: GET, or POST with a JSON body."""
    address, _, query = path.partition("?")
    asked = dict(pair.split("=", 1) for pair in query.split("&")) if query else {}
    given = {"host": f"127.0.0.1:{PORT}", "x-jaxinterp-token": TOKEN}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    return app.handle(Request(method or ("GET" if body is None else "POST"), address, asked, given, data))


def told(answer: Answer) -> Any:
    """The JSON of an answer."""
    assert isinstance(answer.body, bytes)
    return json.loads(answer.body)
