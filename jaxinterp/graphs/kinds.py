"""What a node is: its kind, its record, and the order nodes are kept in.

Order: features by (layer, part, position, index) | errors by (layer, part, position) | biases by (layer, kind,
part, position) | embeddings by position | targets as given.

``part`` says which junction of a layer a node writes at: attention output, MLP output or the residual stream
after both, in the order in which they come. Features, errors and decoder biases have the part of their
dictionary; a target that is a feature's pre-activation has that feature's; every other node has part 1, which
says nothing there.

Embeddings and position biases stand at layer -1. A target stands where it reads: what is read after the final
norm at layer L, a feature's pre-activation at its feature's layer, with its number as index. The final norm's
biases stand at layer L.
"""

from __future__ import annotations

import numpy as np

FEATURE, ERROR, BIAS, EMBEDDING, TARGET = range(5)
KIND_NAMES = ("feature", "error", "bias", "embedding", "target")
# "mlp": the offset of a linearised MLP; "offset": the constant that linearisations other than the frozen one leave
BIAS_NAMES = ("decoder", "attention", "norm", "position", "mlp", "offset")
ATTENTION_PART, MLP_PART, RESIDUAL_PART = range(3)
PART_NAMES = ("attention", "mlp", "residual")
CONVENTIONS = ("paper", "circuit-tracer")

NODE = np.dtype(
    [
        ("kind", "u1"),  # one of the five above
        ("part", "u1"),  # place in PART_NAMES
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
    """An empty table of n nodes: unknown numbers are nan, sums are 0, indices are -1, parts 1."""
    table = np.zeros(n, NODE)
    for name, value in _DEFAULTS.items():
        table[name] = value
    table["index"] = -1
    table["part"] = MLP_PART
    return table


def node_order(nodes: np.ndarray) -> np.ndarray:
    """Indices (n,) that put the nodes into the order above; targets keep their own order."""
    n = len(nodes)
    target = nodes["kind"] == TARGET
    bias = nodes["kind"] == BIAS
    index = np.where(target, 0, nodes["index"])
    layer = np.where(target, 0, nodes["layer"])
    part = np.where(target, 0, nodes["part"])
    position = np.where(target, 0, nodes["position"])
    bias_kind, number = np.where(bias, index, 0), np.where(bias, 0, index)
    return np.lexsort((np.arange(n), number, position, part, bias_kind, layer, nodes["kind"]))
