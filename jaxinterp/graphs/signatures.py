"""How alike the features of a graph are in what they do on this prompt.

Three signals, each a cosine: what features act on, with sign (outputs); what acts on them (inputs); and, where the
caller gives them, their decoder vectors. Members of a supernode should have effects of the same sign downstream
("Circuit Tracing", supernodes), so outputs that point against each other rule a pair out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import sparse

from jaxinterp.core.errors import InputError, near
from jaxinterp.graphs.graph import Graph
from jaxinterp.graphs.influence import Flow, target_weights
from jaxinterp.graphs.kinds import FEATURE, TARGET

SIGNALS = {"outputs": 1.0, "inputs": 1.0, "decoders": 1.0}


def similarities(
    graph: Graph, features: np.ndarray, vectors: Any = None, weights: Mapping[str, float] | None = None
) -> np.ndarray:
    """Likeness (F, F) in [-1, 1] of the features with these node numbers (F,); 1 on the diagonal.

    vectors: [A, D] a vector for every feature node of the graph in node order, or None. weights: of the signals
    "outputs", "inputs" and "decoders", 1 each by default; the result is their weighted mean, or the cosine of the
    outputs where that is below 0. Raises InputError on vectors of another shape and on unknown signals.
    """
    chosen = {**SIGNALS, **(weights or {})}
    for name, value in chosen.items():
        if name not in SIGNALS:
            raise InputError(f"unknown signal {name!r}{near(name, SIGNALS)}: expected {', '.join(SIGNALS)}")
        if not (np.isfinite(value) and value >= 0):
            raise InputError(f"the weight of signal {name!r} is {value}: expected a number from 0")
    n_features = int((graph.nodes["kind"] == FEATURE).sum())
    outputs, inputs = profiles(graph, features)
    found = {"outputs": cosine(outputs), "inputs": cosine(inputs)}
    if vectors is not None:
        vectors = np.asarray(vectors)
        if vectors.ndim != 2 or len(vectors) != n_features:
            raise InputError(
                f"vectors of shape {vectors.shape}: expected one row for each of {n_features} features"
            )
        if not np.isfinite(vectors).all():
            raise InputError("the feature vectors hold a value that is no finite number")
        found["decoders"] = cosine(vectors[features].astype(np.float64))
    total = sum(chosen[name] for name in found)
    if total <= 0:
        raise InputError("every signal has weight 0: give at least one of them a weight")
    mean = sum(chosen[name] * part for name, part in found.items()) / total
    alike = np.where(found["outputs"] < 0, np.minimum(found["outputs"], mean), mean)
    np.fill_diagonal(alike, 1.0)
    return alike


def profiles(graph: Graph, features: np.ndarray) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Outputs and inputs of features (F,), both (F, n): signed shares A[t, s] / Σ_s |A[t, s]|.

    An output is weighted by the influence of the node that it acts on, so that what matters for the targets
    decides.
    """
    csr, n = graph.csr, len(graph)
    flow = Flow.of(csr, graph.nodes["kind"] == TARGET, graph.convention)
    matter = np.nan_to_num(graph.nodes["influence"]) + target_weights(graph.nodes)
    rows = sparse.csr_array((csr.weights, csr.indices, csr.indptr), shape=(n, n))
    into, out = rows[features].astype(np.float64), rows[:, features].T.astype(np.float64)
    inputs = sparse.diags_array(1 / flow.divisor[features]) @ into
    return sparse.csr_array(out @ sparse.diags_array(matter / flow.divisor)), sparse.csr_array(inputs)


def cosine(rows: Any) -> np.ndarray:
    """Cosines (F, F) of the rows of a dense or sparse (F, n); 0 with a row of zeros."""
    product = rows @ rows.T
    product = product.toarray() if sparse.issparse(product) else np.asarray(product)
    size = np.sqrt(np.diagonal(product))
    size = np.where(size > 0, size, 1.0)
    return np.clip(product / size[:, None] / size[None, :], -1.0, 1.0)
