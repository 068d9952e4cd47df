"""How far two sets of edges agree."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.stats import spearmanr

from jaxinterp.core.errors import InputError
from jaxinterp.graphs.build import EdgeBuilder
from jaxinterp.graphs.graph import Graph, assemble
from jaxinterp.graphs.kinds import EMBEDDING, FEATURE, TARGET, node_table
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


def graph(index: int, weights: list[float]) -> Graph:
    """A feature, an embedding and a target that they write to."""
    nodes = node_table(3)
    nodes["kind"], nodes["layer"] = [FEATURE, EMBEDDING, TARGET], [0, -1, 1]
    nodes["index"][0], nodes["probability"][2] = index, 1
    builder = EdgeBuilder(3, np.float32)
    builder.add(np.array([2]), np.arange(2), np.array([weights], np.float32))
    return assemble(nodes, builder.finish(), token_ids=(1,), token_texts=("a",), prompt="a", n_layers=1)


def test_graphs() -> None:
    found = agreement(graph(5, [1, 2]), graph(5, [2, 4]))
    assert (found.targets.tolist(), found.size.tolist()) == ([2], [2.0])
    assert found.cosine[0] == pytest.approx(1)


def test_bad_input() -> None:
    with pytest.raises(InputError, match="shape"):
        agreement(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(InputError, match="index 5 where the other has 6"):
        agreement(graph(5, [1, 2]), graph(6, [1, 2]))
