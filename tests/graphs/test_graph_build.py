"""Edges from blocks, and assembling graphs from them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxinterp.core.errors import InputError
from jaxinterp.graphs import EdgeBuilder, assemble, node_table
from tests.graphs.graph_examples import dense_matrix, random_graph


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 5), st.sampled_from(["float32", "float64"]))
def test_the_result_does_not_depend_on_how_blocks_are_cut(seed, across, down, dtype):
    rng = np.random.default_rng(seed)
    n = 17
    dense = np.where(rng.random((n, n)) < 0.4, rng.normal(size=(n, n)), 0).astype(dtype)
    whole = EdgeBuilder(n, dtype)
    whole.add(np.arange(n), np.arange(n), dense)
    pieces = EdgeBuilder(n, dtype)
    blocks = [
        (t, s)
        for t in np.array_split(rng.permutation(n), across)
        for s in np.array_split(rng.permutation(n), down)
    ]
    # Permuted sources differ between rows of blocks, but every edge is in exactly one block of each row.
    for i in rng.permutation(len(blocks)):
        targets, sources = blocks[i]
        pieces.add(targets, sources, dense[np.ix_(targets, sources)])
    first, second = whole.finish(), pieces.finish()
    for a, b in zip(first, second, strict=True):
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()
    rebuilt = np.zeros((n, n), dtype)
    for target in range(n):
        row = slice(first.indptr[target], first.indptr[target + 1])
        rebuilt[target, first.indices[row]] = first.weights[row]
        assert (np.diff(first.indices[row]) > 0).all()
    np.testing.assert_array_equal(rebuilt, dense)


@pytest.mark.parametrize("rows_in_order", [True, False])
def test_edges_that_fill_many_segments_of_memory(monkeypatch, rows_in_order):
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((40, 40)) < 0.5, rng.normal(size=(40, 40)), 0).astype(np.float32)
    whole = EdgeBuilder(40)
    whole.add(np.arange(40), np.arange(40), dense)
    monkeypatch.setattr("jaxinterp.graphs.build.SEGMENT", 100)
    pieces = EdgeBuilder(40)
    for low in np.arange(0, 40, 3) if rows_in_order else rng.permutation(np.arange(0, 40, 3)):
        targets = np.arange(low, min(low + 3, 40))
        for sources in (np.arange(25, 40), np.arange(25)):  # the later sources first
            pieces.add(targets, sources, dense[np.ix_(targets, sources)])
    for a, b in zip(whole.finish(), pieces.finish(), strict=True):
        assert a.tobytes() == b.tobytes()


def test_zeros_and_padding_are_no_edges():
    builder = EdgeBuilder(3)
    builder.add([2, -1], [0, 1, -1], [[1.0, 0.0, 5.0], [7.0, 8.0, 9.0]])
    csr = builder.finish()
    assert (
        csr.indptr.tolist() == [0, 0, 0, 1] and csr.indices.tolist() == [0] and csr.weights.tolist() == [1.0]
    )


@pytest.mark.parametrize(
    ("targets", "sources", "block", "message"),
    [
        ([0], [1], [[np.nan]], "edge from node 1 to node 0 is nan"),
        ([0], [1], [[np.inf]], "edge from node 1 to node 0 is inf"),
        ([9], [1], [[1.0]], "names node 9, but there are 3"),
        ([0, 1], [1], [[1.0]], r"shape \(1, 1\) for 2 targets"),
        ([2], [1, 0, 1], [[1.0, 2.0, 3.0]], "names source 1 twice"),
    ],
)
def test_bad_blocks_are_refused(targets, sources, block, message):
    with pytest.raises(InputError, match=message):
        EdgeBuilder(3).add(targets, sources, block)


def test_an_edge_given_twice_is_refused():
    builder = EdgeBuilder(3)
    builder.add([2], [0], [[1.0]])
    builder.add([2], [0], [[1.0]])
    with pytest.raises(InputError, match="from node 0 to node 2 was given twice"):
        builder.finish()
    with pytest.raises(InputError, match="float32 or float64"):
        EdgeBuilder(3, "float16")


def test_views_of_the_edges_agree():
    graph = random_graph(dtype="float32")
    np.testing.assert_array_equal(graph.matrix(), dense_matrix(graph).astype(np.float32))
    assert graph.matrix().dtype == np.float32
    assert sum(graph.counts().values()) == len(graph) == len(graph.nodes)
    assert graph.nodes["activation"].shape == (len(graph),)


def test_a_dense_matrix_above_the_limit_is_refused(monkeypatch):
    monkeypatch.setattr("jaxinterp.graphs.graph.DENSE_LIMIT", 100)
    with pytest.raises(InputError, match=r"GiB: use edges\(\)"):
        random_graph().matrix()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ("x",)}, "1 labels for"),
        ({"token_ids": (1,)}, "1 token ids"),
        ({"settings": {"convention": "papr"}}, "unknown convention"),
        ({"nodes": node_table(2)}, "edges are for"),
        ({"nodes": np.zeros(3)}, "other fields"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message):
    graph = random_graph()
    parts = {
        "nodes": graph.nodes,
        "csr": graph.csr,
        "token_ids": graph.token_ids,
        "token_texts": graph.token_texts,
        "prompt": graph.prompt,
        "n_layers": graph.n_layers,
    }
    with pytest.raises(InputError, match=message):
        assemble(**{**parts, **change})
    with pytest.raises(InputError, match="not in the order"):
        assemble(**{**parts, "nodes": graph.nodes[::-1].copy()})
