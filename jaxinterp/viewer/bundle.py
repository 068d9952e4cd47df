"""A graph as the bytes that the page reads: one header and typed arrays, nothing that needs parsing link by link.

    bytes 0-7    magic "JIPAGE01"        8-11   length H of the header, uint32        12-15  zero
    16-          header, JSON (UTF-8), H bytes
    then         from the next multiple of 8, the base: arrays, each at a multiple of 8 from there

Everything is little-endian. The header names each array's dtype ("u1", "i4", "f4", "f8"), length and offset. Node
means row of the node table throughout. docs/viewer.md lists keys and arrays.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import sparse

from jaxinterp.graphs import BIAS_NAMES, PART_NAMES, TARGET, Csr, Graph
from jaxinterp.graphs.build import only
from jaxinterp.graphs.ids import graph_ids
from jaxinterp.graphs.influence import target_weights
from jaxinterp.graphs.order import row_sums
from jaxinterp.graphs.plain import plain
from jaxinterp.graphs.summary import target_text

MAGIC = b"JIPAGE01"
MOST_EDGES = 2_000_000  # sent at once; the page asks for more, node by node
MOST_STRONG = 20_000
_PREFIX = struct.Struct("<8sII")
_TYPES = {"u1": "|u1", "i4": "<i4", "f4": "<f4", "f8": "<f8"}
_NODE_FIELDS = {
    "kind": "u1", "part": "u1", "layer": "i4", "position": "i4", "index": "f8", "activation": "f4", "influence": "f4",
    "share": "f4", "probability": "f4", "value": "f4", "constant": "f4", "left_out": "f4",
}  # fmt: skip


def pack(header: dict[str, Any], arrays: dict[str, tuple[str, np.ndarray]]) -> bytes:
    """Header and arrays {name: (dtype, values)} as a bundle; the key "arrays" of the header is filled in."""
    layout, pieces, offset = {}, [], 0
    for name, (dtype, values) in arrays.items():
        data = np.ascontiguousarray(values, _TYPES[dtype])
        layout[name] = {"dtype": dtype, "length": len(data), "offset": offset}
        pieces += [data.data if data.size else b"", bytes(-data.nbytes % 8)]
        offset += data.nbytes + -data.nbytes % 8
    text = json.dumps(
        {**header, "arrays": layout}, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )
    head = text.encode("utf-8", "backslashreplace")
    start = _PREFIX.pack(MAGIC, len(head), 0) + head
    return b"".join([start, bytes(-len(start) % 8), *pieces])


def bundle(
    graph: Graph,
    header: dict[str, Any],
    arrays: dict[str, tuple[str, np.ndarray]] | None = None,
    labels: Mapping[int, str] | None = None,
) -> bytes:
    """The bundle of a graph.

    header: what the graph itself does not know (file, view, revision, ...), see `facts` for the rest. arrays: those
    of `graph_arrays`, where they have been made before. labels: of nodes that have none in the graph.
    """
    found = facts(graph)
    found["labels"] = {**{str(i): text for i, text in (labels or {}).items()}, **found["labels"]}
    return pack({**found, **header}, graph_arrays(graph) if arrays is None else arrays)


def facts(graph: Graph) -> dict[str, Any]:
    """What a graph says of itself, for the header."""
    settings = graph.settings
    metadata = (graph.foreign or {}).get("metadata", {})
    dialect, repairs = settings.get("dialect"), settings.get("repairs")
    texts = {
        i: target_text(graph, i) if graph.nodes["kind"][i] == TARGET else text
        for i, text in enumerate(graph.labels)
        if text
    }
    return {
        "slug": _text(metadata.get("slug") or settings.get("slug")),
        "scan": _text(metadata.get("scan") or settings.get("source_set") or settings.get("dictionary")),
        "prompt": graph.prompt,
        "tokens": list(graph.token_texts),
        "token_ids": [int(i) for i in graph.token_ids],
        "n_layers": int(graph.n_layers),
        "convention": graph.convention,
        "dialect": dialect if isinstance(dialect, str) else None,
        "parts": list(PART_NAMES),
        "bias_names": list(BIAS_NAMES),
        "counts": graph.counts(),
        "n_edges": len(graph.weights),
        "pruned": plain(graph.pruned, "pruned"),
        "repairs": [_text(line) for line in repairs] if isinstance(repairs, list) else [],
        "loose_links": len((graph.foreign or {}).get("loose_links", [])),
        "ids": graph_ids(graph),
        "labels": {str(i): text for i, text in texts.items()},
    }


def graph_arrays(graph: Graph, most: int = MOST_EDGES) -> dict[str, tuple[str, np.ndarray]]:
    """The arrays of a bundle: {name: (dtype, values)}; at most the ``most`` strongest edges."""
    found = {name: (dtype, _fitting(graph.nodes[name], dtype)) for name, dtype in _NODE_FIELDS.items()}
    total = row_sums(graph.csr)
    csr, strength = graph.csr, flow(graph, total)
    if len(csr.weights) > most:
        kept = np.zeros(len(csr.weights), bool)
        kept[np.argpartition(strength, len(strength) - most)[len(strength) - most :]] = True
        csr, strength = only(csr, kept), strength[kept]
    out_start, out_edge = by_source(csr)
    return {
        **found,
        "input_total": ("f4", _fitting(total, "f4")),
        "in_start": ("i4", csr.indptr),
        "in_source": ("i4", csr.indices),
        "weight": ("f4", _fitting(csr.weights, "f4")),
        "out_start": ("i4", out_start),
        "out_edge": ("i4", out_edge),
        "strong": ("i4", strongest_first(strength, MOST_STRONG)),
    }


def flow(graph: Graph, total: np.ndarray | None = None) -> np.ndarray:
    """How much of the influence on the targets runs along every edge, (edges,) float32.

    |A[t, s]| / Σ_s |A[t, s]| (q_t + p_t), with q the influence and p the weight of targets. Where influence is
    unknown the share of the target's inputs alone. total (n,): Σ_s |A[t, s]|, if at hand.
    """
    total = row_sums(graph.csr) if total is None else total
    matter = graph.nodes["influence"] + target_weights(graph.nodes)
    if np.isnan(matter).all() or not np.nan_to_num(matter).any():
        matter = np.ones(len(graph))
    factor = np.nan_to_num(matter) / np.where(total > 0, total, 1.0)
    with np.errstate(over="ignore", invalid="ignore"):
        found = np.abs(graph.weights).astype(np.float32, copy=False)
        found *= np.repeat(factor.astype(np.float32), np.diff(graph.indptr))
    return np.nan_to_num(found, copy=False)


def by_source(csr: Csr) -> tuple[np.ndarray, np.ndarray]:
    """(start (n + 1,), edge (m,)): edge numbers in the order of their sources, and where each source begins."""
    n, m = len(csr.indptr) - 1, len(csr.indices)
    numbers = sparse.csr_array((np.arange(m, dtype=np.int32), csr.indices, csr.indptr), shape=(n, n))
    columns = numbers.tocsc()
    return columns.indptr, columns.data


def strongest_first(strength: np.ndarray, most: int) -> np.ndarray:
    """The places of the ``most`` largest values, largest first, equal ones in their order."""
    count = min(most, len(strength))
    if count == 0:
        return np.zeros(0, np.int32)
    least = np.partition(strength, len(strength) - count)[len(strength) - count]
    above, level = np.flatnonzero(strength > least), np.flatnonzero(strength == least)
    chosen = np.concatenate([above, level[: count - len(above)]])
    chosen.sort()
    return chosen[np.argsort(-strength[chosen], kind="stable")]


def node_rows(graph: Graph, node: int, most: int = 5000) -> dict[str, Any]:
    """All inputs and outputs of one node as JSON values, strongest first, at most ``most`` each."""
    low, high = int(graph.indptr[node]), int(graph.indptr[node + 1])
    weights = np.asarray(graph.weights[low:high])
    into = strongest_first(np.abs(weights), most)
    edges = np.flatnonzero(graph.indices == node)
    targets = np.searchsorted(graph.indptr, edges, side="right") - 1
    passed = np.asarray(graph.weights[edges])
    out = strongest_first(np.abs(passed), most)
    return {
        "inputs": [
            list(x) for x in zip(graph.indices[low:high][into].tolist(), weights[into].tolist(), strict=True)
        ],
        "outputs": [list(x) for x in zip(targets[out].tolist(), passed[out].tolist(), strict=True)],
        "input_total": float(np.abs(weights, dtype=np.float64).sum()),
        "n_inputs": high - low,
        "n_outputs": len(edges),
    }


def _fitting(values: np.ndarray, dtype: str) -> np.ndarray:
    """Values in this dtype; numbers beyond float32 become its largest, so that none turns infinite."""
    if dtype == "f4" and values.dtype != np.float32:
        largest = float(np.finfo(np.float32).max)
        return np.clip(values, -largest, largest).astype(np.float32)
    return values.astype(_TYPES[dtype], copy=False)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)
