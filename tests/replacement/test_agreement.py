"""How far two sets of edges agree."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.stats import spearmanr

from jaxinterp.core.errors import InputError
from jaxinterp.graphs.build import EdgeBuilder
from jaxinterp.graphs.graph import Graph, assemble
from jaxinterp.graphs.kinds import BIAS, BIAS_NAMES, EMBEDDING, FEATURE, TARGET, node_table
from jaxinterp.replacement import agreement


def test_by_hand_and_by_scipy() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 5, 9))
    one[1], other[2] = 0, 0  # rows without edges say nothing
    one[:, 3], other[:, 3] = 0, 0  # a source without an edge in either is none
    found = agreement(one, sparse.csr_array(other))
    assert found.targets.tolist() == [0, 3, 4]
    kept = np.arange(9) != 3
    for i, row in enumerate(found.targets):
        u, v = one[row, kept], other[row, kept]
        assert found.cosine[i] == pytest.approx(u @ v / np.sqrt((u @ u) * (v @ v)))
        assert found.rank[i] == pytest.approx(spearmanr(u, v).statistic)
        assert found.size[i] == pytest.approx(np.abs(v).sum() / np.abs(u).sum())
    assert str(found).startswith("3 targets, median")


def test_the_same_edges_scaled_agree() -> None:
    one = np.abs(np.random.default_rng(1).normal(size=(4, 6)))
    found = agreement(one, 3 * one)
    np.testing.assert_allclose(found.cosine, 1)
    np.testing.assert_allclose(found.rank, 1)
    np.testing.assert_allclose(found.size, 3)
    single = agreement([[0.0, 2.0]], [[0.0, -1.0]])
    assert (single.cosine.tolist(), single.rank.tolist()) == ([-1.0], [1.0])


def graph(index: int, weights: list[float], offset: bool) -> Graph:
    """A feature, perhaps an offset, an embedding and a target that they write to."""
    nodes = node_table(3 + offset)
    kinds = [FEATURE, *([BIAS] if offset else []), EMBEDDING, TARGET]
    nodes["kind"], nodes["layer"] = kinds, [0, *([-1] if offset else []), -1, 1]
    nodes["index"][0], nodes["probability"][-1] = index, 1
    if offset:
        nodes["index"][1] = BIAS_NAMES.index("offset")
    builder = EdgeBuilder(len(nodes), np.float32)
    builder.add(np.array([len(nodes) - 1]), np.arange(len(nodes) - 1), np.array([weights], np.float32))
    return assemble(nodes, builder.finish(), token_ids=(1,), token_texts=("a",), prompt="a", n_layers=1)


def test_offsets_are_no_sources() -> None:
    found = agreement(graph(5, [1, 2], False), graph(5, [2, 9, 4], True))
    assert (found.targets.tolist(), found.size.tolist()) == ([2], [2.0])
    assert found.cosine[0] == pytest.approx(1)
    assert agreement(graph(5, [2, 9, 4], True), graph(5, [1, 2], False)).targets.tolist() == [3]


def test_bad_input() -> None:
    with pytest.raises(InputError, match="shape"):
        agreement(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(InputError, match="index 5 where the other has 6"):
        agreement(graph(5, [1, 2], False), graph(6, [1, 2], False))
