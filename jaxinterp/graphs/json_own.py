"""Read back the JSON that this package wrote, as the same graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.graphs.build import from_triples
from jaxinterp.graphs.graph import Graph
from jaxinterp.graphs.ids import uncantor
from jaxinterp.graphs.json_quick import PlainLinks, Unusual
from jaxinterp.graphs.json_values import expect, number, optional_number
from jaxinterp.graphs.json_viewers import with_lists
from jaxinterp.graphs.json_write import ATTENTION_TYPES, FEATURE_TYPES, OWN_NUMBERS
from jaxinterp.graphs.kinds import ERROR, FEATURE, MLP_PART, PART_NAMES, TARGET, node_order, node_table

_NODE_KEYS = {
    *("node_id", "feature", "layer", "ctx_idx", "feature_type", "token_prob", "is_target_logit", "run_idx"),
    *("reverse_ctx_idx", "jsNodeId", "clerp", "influence", "activation", "jaxinterp"),
}
_TYPES = {name: kind for kind, name in enumerate(FEATURE_TYPES)} | {n: k for k, n in ATTENTION_TYPES.items()}
_NUMBERS = {key: float(node_table(1)[key][0]) for key in OWN_NUMBERS}
_COLUMNS = ("kind", "part", "layer", "position", "index", "activation", "share", *OWN_NUMBERS)
_LINK_KEYS = {"source", "target", "weight"}
_METADATA_KEYS = {
    *("slug", "scan", "transcoder_list", "prompt_tokens", "prompt", "node_threshold", "schema_version"),
    *("feature_details", "info", "generation_settings", "pruning_settings"),
    *("replacement_score", "completeness_score"),
}
_OWN = {
    "version": int,
    "dtype": str,
    "n_layers": int,
    "token_ids": list,
    "settings": dict,
    "provenance": dict,
    "measured": dict,
}


def read_own(where: str, parts: dict[str, Any], top: dict[str, Any]) -> Graph:
    """The graph of a document that has our key "jaxinterp" at the top and on every node.

    Keys that others have added since are kept. Raises InputError naming the file, key and expectation.
    """
    own = {key: expect(top["jaxinterp"], key, kind, f"{where}: jaxinterp") for key, kind in _OWN.items()}
    if own["version"] not in (1, 2):
        raise InputError(f"{where}: jaxinterp.version: {own['version']}: this jaxinterp reads 1 and 2")
    if own["dtype"] not in ("float32", "float64"):
        raise InputError(f"{where}: jaxinterp.dtype: {own['dtype']!r}: expected float32 or float64")
    metadata = parts["metadata"]
    texts = expect(metadata, "prompt_tokens", list, f"{where}: metadata")
    ids = own["token_ids"]
    if (
        not all(isinstance(t, str) for t in texts)
        or not all(type(i) is int for i in ids)
        or len(ids) != len(texts)
    ):
        raise InputError(
            f"{where}: jaxinterp.token_ids: expected one whole number for each of metadata.prompt_tokens"
        )

    raws = parts["nodes"]
    nodes, labels, extras, at = node_table(len(raws)), [], {}, {}
    records: list[tuple[float, ...]] = []
    for i, raw in enumerate(raws):
        here = f"{where}: nodes[{i}]"
        name = expect(raw, "node_id", str, here)
        if name in at:
            raise InputError(f"{here}.node_id: {name!r} is given twice")
        at[name] = i
        labels.append(_record(records, raw, here, len(texts)))
        extra = {k: v for k, v in raw.items() if k not in _NODE_KEYS}
        if extra:
            extras[i] = extra
    for name, column in zip(_COLUMNS, zip(*records, strict=True), strict=True):
        nodes[name] = column
    if not (nodes["kind"] == TARGET).any():
        raise InputError(f"{where}: nodes: none has feature_type 'logit': a graph needs a target")
    order = node_order(nodes)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))

    targets, sources, weights, link_extras = _links(where, parts["links"], at)
    rows, columns = place[targets], place[sources]
    try:
        csr = from_triples(
            len(raws), rows.astype(np.int32), columns.astype(np.int32), weights.astype(own["dtype"])
        )
    except InputError as error:
        raise InputError(f"{where}: links: {error}") from error
    link_place = np.empty(len(rows), np.int64)
    link_place[np.argsort(rows * len(raws) + columns, kind="stable")] = np.arange(len(rows))
    foreign = {
        "whole": False,
        "top": {k: v for k, v in top.items() if k != "jaxinterp"},
        "metadata": {k: v for k, v in metadata.items() if k not in _METADATA_KEYS},
        "nodes": {str(int(place[i])): extra for i, extra in extras.items()},
        "links": {str(int(link_place[i])): extra for i, extra in link_extras.items()},
        "node_order": [],
        "link_order": [],
        "loose_links": [],
    }
    top_target = raws[int(order[np.flatnonzero(nodes["kind"][order] == TARGET)[0]])]["node_id"]
    return Graph(
        nodes=nodes[order],
        indptr=csr.indptr,
        indices=csr.indices,
        weights=csr.weights,
        token_ids=tuple(ids),
        token_texts=tuple(texts),
        prompt=expect(metadata, "prompt", str, f"{where}: metadata"),
        n_layers=own["n_layers"],
        labels=tuple(labels[i] for i in order),
        settings=own["settings"],
        provenance=own["provenance"],
        measured=own["measured"],
        view=_view(with_lists(parts["qParams"]), top_target),
        foreign=foreign if any(foreign.values()) else None,
    )


def _record(records: list[tuple[float, ...]], raw: dict[str, Any], where: str, length: int) -> str:
    """Add the values of _COLUMNS of one JSON node; its label."""
    kind_text = expect(raw, "feature_type", str, where)
    if kind_text not in _TYPES:
        raise InputError(f"{where}.feature_type: {kind_text!r}: expected one of {', '.join(_TYPES)}")
    kind = _TYPES[kind_text]
    own = raw["jaxinterp"]
    part = MLP_PART
    if "part" in own:
        part = expect(own, "part", int, f"{where}.jaxinterp")
        if not 0 <= part < len(PART_NAMES):
            raise InputError(f"{where}.jaxinterp.part: {part}: expected 0 to {len(PART_NAMES) - 1}")
    position = expect(raw, "ctx_idx", int, where)
    if not 0 <= position < length:
        raise InputError(f"{where}.ctx_idx: {position}: the prompt has positions 0 to {length - 1}")
    if kind == FEATURE:
        feature = expect(raw, "feature", int, where)
        if not 0 <= feature < 2**62:
            raise InputError(f"{where}.feature: {feature}: expected a paired (layer, feature) number")
        layer, index = uncantor(feature)
    elif kind == ERROR:
        text = expect(raw, "layer", str, where)
        if not text.isdecimal():
            raise InputError(f"{where}.layer: {text!r}: expected a layer number")
        layer, index = int(text), -1
    else:
        layer, index = (
            expect(own, "layer", int, f"{where}.jaxinterp"),
            expect(own, "index", int, f"{where}.jaxinterp"),
        )
    if not (-1 <= layer < 2**31 and -1 <= index < 2**63):
        raise InputError(f"{where}: layer {layer} or number {index} is beyond any model")
    activation, share = optional_number(raw, "activation", where), optional_number(raw, "influence", where)
    numbers = [
        number(own[key], f"{where}.jaxinterp.{key}") if key in own else default
        for key, default in _NUMBERS.items()
    ]
    records.append((kind, part, layer, position, index, activation, share, *numbers))
    label = own.get("label", "")
    if not isinstance(label, str):
        raise InputError(f"{where}.jaxinterp.label: a {type(label).__name__}, expected a text")
    return label


def _links(
    where: str, raws: list[dict[str, Any]] | PlainLinks, at: dict[str, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[int, dict[str, Any]]]:
    if isinstance(raws, PlainLinks):
        targets, sources, plain_weights, loose = raws.arrays(at)
        if loose:
            raise Unusual
        return targets, sources, plain_weights, {}
    ends = np.zeros((2, len(raws)), np.int64)
    weights = np.zeros(len(raws))
    extras = {}
    for i, raw in enumerate(raws):
        here = f"{where}: links[{i}]"
        for row, key in enumerate(("target", "source")):
            name = expect(raw, key, str, here)
            if name not in at:
                raise InputError(f"{here}.{key}: {name!r} is no node of this file")
            ends[row, i] = at[name]
        weights[i] = number(raw.get("weight"), f"{here}.weight")
        if len(raw) > len(_LINK_KEYS):
            extras[i] = {k: v for k, v in raw.items() if k not in _LINK_KEYS}
    return ends[0], ends[1], weights, extras


def _view(view: dict[str, Any], clicked: str) -> dict[str, Any]:
    """The viewer state, without what the writer adds by itself."""
    default = {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": clicked, "sg_pos": ""}
    return {k: v for k, v in view.items() if k not in default or v != default[k]}
