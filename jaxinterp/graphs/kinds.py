"""What a node is: its kind, its record, and the order nodes are kept in.

Order: features by (layer, position, index) | errors by (layer, position) | biases by (layer, kind, position)
|
embeddings by position | targets as given. Embeddings and position biases stand at layer -1, targets at layer
L.
"""

from __future__ import annotations

import numpy as np

FEATURE, ERROR, BIAS, EMBEDDING, TARGET = range(5)
KIND_NAMES = ("feature", "error", "bias", "embedding", "target")
BIAS_NAMES = ("decoder", "attention", "norm", "position")
CONVENTIONS = ("paper", "circuit-tracer")

NODE = np.dtype(
    [
        ("kind", "u1"),  # one of the five above
        ("layer", "<i4"),
        ("position", "<i4"),
        ("index", "<i8"),  # feature number, place in BIAS_NAMES, or token id; -1 where there is none
        ("activation", "<f8"),  # features
        ("influence", "<f8"),  # node influence q on the graph as traced
        ("share", "<f8"),  # running share of all influence, strongest node first; nan for targets
        ("probability", "<f8"),  # targets
        ("value", "<f8"),  # pre-activation of a feature, demeaned logit of a target; nan without inputs
        ("constant", "<f8"),  # part of value that is no edge: encoder bias, centred unembedding bias
        ("left_out", "<f8"),  # direct effects onto this node of sources that this graph leaves out
    ]
)
_DEFAULTS = {
    "activation": np.nan,
    "influence": np.nan,
    "share": np.nan,
    "probability": np.nan,
    "value": np.nan,
}


def node_table(n: int) -> np.ndarray:
    """An empty table of n nodes: unknown numbers are nan, sums are 0, indices are -1."""
    table = np.zeros(n, NODE)
    for name, value in _DEFAULTS.items():
        table[name] = value
    table["index"] = -1
    return table


def node_order(nodes: np.ndarray) -> np.ndarray:
    """Indices (n,) that put the nodes into the order above; targets keep their own order."""
    n = len(nodes)
    target = nodes["kind"] == TARGET
    bias = nodes["kind"] == BIAS
    index = np.where(target, 0, nodes["index"])
    layer = np.where(target, 0, nodes["layer"])
    position = np.where(target, 0, nodes["position"])
    second, third = np.where(bias, index, position), np.where(bias, position, index)
    return np.lexsort((np.arange(n), third, second, layer, nodes["kind"]))
