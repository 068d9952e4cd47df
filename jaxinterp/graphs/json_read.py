"""Read a graph from JSON, whichever program wrote it: ours, circuit-tracer, Neuronpedia, Anthropic, CRM
(Lorsa).

The file is untrusted: every key that is used is checked first, and an error names the file, the key and what
was expected. What this package does not use is kept (Graph.foreign, Graph.view) and written again.
"""

from __future__ import annotations

import math
import re
import warnings
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError, near
from jaxinterp.core.files import read_bytes, read_json
from jaxinterp.graphs import json_quick, json_repair
from jaxinterp.graphs.build import Csr, from_triples
from jaxinterp.graphs.graph import Graph, with_influence
from jaxinterp.graphs.ids import uncantor
from jaxinterp.graphs.json_own import read_own
from jaxinterp.graphs.json_quick import PlainLinks
from jaxinterp.graphs.json_values import expect, optional_number
from jaxinterp.graphs.json_viewers import with_lists
from jaxinterp.graphs.kinds import (
    ATTENTION_PART,
    BIAS,
    BIAS_NAMES,
    EMBEDDING,
    ERROR,
    FEATURE,
    MLP_PART,
    TARGET,
    node_order,
    node_table,
)

_KINDS = {
    "cross layer transcoder": FEATURE,
    "lorsa": FEATURE,
    "unknown": FEATURE,
    "mlp reconstruction error": ERROR,
    "lorsa error": ERROR,
    "unexplored node": FEATURE,
    "embedding": EMBEDDING,
    "logit": TARGET,
    "bias": BIAS,
}
_COLUMNS = ("kind", "part", "layer", "position", "index", "activation", "share", "probability")
_PROBABILITY = re.compile(r"\(p=([0-9.eE+-]+)\)")


def read_json_graph(path: str | PathLike[str]) -> Graph:
    """A graph from a JSON file of any dialect; settings["dialect"] names the one found (not on our own
    files).

    Duplicate ids, as circuit-tracer 0.4 gives some error nodes, are repaired with a warning
    (settings["repairs"]). Raises InputError naming the file, the key and what was expected.
    """
    path = Path(path)
    try:
        return _read(path, *json_quick.document(read_bytes(path)))
    except (json_quick.Unusual, InputError):
        pass  # the tolerant way reads it, or says what is wrong
    return _read(path, read_json(path))


def _read(path: Path, document: Any, links: PlainLinks | None = None) -> Graph:
    where = str(path)
    if not isinstance(document, dict):
        raise InputError(
            f"{where}: not a graph: a {type(document).__name__} at the top level, expected an object"
        )
    parts = {
        key: expect(document, key, kind, where)
        for key, kind in (("metadata", dict), ("qParams", dict), ("nodes", list), ("links", list))
    }
    if not parts["nodes"]:
        raise InputError(f"{where}: nodes: the graph is empty, expected at least a target node")
    for name, items in (("nodes", parts["nodes"]), ("links", parts["links"])):
        for i, item in enumerate(items):
            if not isinstance(item, dict):
                raise InputError(f"{where}: {name}[{i}]: a {type(item).__name__}, expected an object")
    top = {key: value for key, value in document.items() if key not in parts}
    if links is not None:
        parts["links"] = links
    own = top.get("jaxinterp")
    if isinstance(own, dict) and all(isinstance(n.get("jaxinterp"), dict) for n in parts["nodes"]):
        return read_own(where, parts, top)
    return _read_foreign(where, path.stem, parts, top)


def dialect_of(parts: dict[str, Any], top: dict[str, Any]) -> str:
    """Whose conventions a document follows: circuit-tracer, neuronpedia, anthropic, crm, jaxinterp."""
    nodes, metadata = parts["nodes"], parts["metadata"]
    types = {str(n.get("feature_type")) for n in nodes}
    if "jaxinterp" in top:
        return "jaxinterp, changed by another program"
    marks = ("_cro_", "_lor_", "_error_mlp_", "_error_attn_")
    if types & {"lorsa", "lorsa error"} or "qk_only_nodes" in top:
        return "crm"
    if any(mark in str(n.get("node_id")) for n in nodes for mark in marks):
        return "crm"
    if any(key in metadata for key in ("info", "feature_details", "generation_settings")):
        return "neuronpedia"
    if "transcoder_list" in metadata or all("run_idx" in n and "token_prob" in n for n in nodes):
        return "circuit-tracer"
    if (
        any("isLogit" in n or "nodeId" in n or "vis_link" in n for n in nodes)
        or "schema_version" not in metadata
    ):
        return "anthropic"
    return "neuronpedia"


def _read_foreign(where: str, stem: str, parts: dict[str, Any], top: dict[str, Any]) -> Graph:
    dialect = dialect_of(parts, top)
    metadata = dict(parts["metadata"])
    tokens = expect(metadata, "prompt_tokens", list, f"{where}: metadata")
    if not all(isinstance(t, str) for t in tokens):
        raise InputError(f"{where}: metadata.prompt_tokens: expected a list of texts")
    metadata.setdefault("slug", stem)
    metadata.setdefault("scan", "")
    for key in ("slug", "scan", "prompt"):
        if key in metadata:
            expect(metadata, key, str, f"{where}: metadata")

    raws, repairs = json_repair.unique_nodes(where, parts["nodes"])
    paired = metadata.get("schema_version") == 1
    nodes, labels, records = node_table(len(raws)), [], []
    for i, raw in enumerate(raws):
        here = f"{where}: nodes[{i}]"
        records.append(_record(raw, here, paired, len(tokens)))
        labels.append(_text(raw, "clerp", here))
    for name, column in zip(_COLUMNS, zip(*records, strict=True), strict=True):
        nodes[name] = column
    if not (nodes["kind"] == TARGET).any():
        raise InputError(f"{where}: nodes: none has feature_type 'logit': a graph needs a target")

    order = node_order(nodes)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    ends, weights, extras, loose = json_repair.links(where, parts["links"], raws, nodes, repairs)
    csr, link_order = _rows(where, len(raws), place[ends[0]], place[ends[1]], weights)
    if repairs:
        warnings.warn(f"{where}: " + "; ".join(repairs), stacklevel=5)
    settings: dict[str, Any] = {"convention": "circuit-tracer", "dialect": dialect}
    if repairs:
        settings["repairs"] = repairs
    ranked = nodes[order]
    try:
        filled = with_influence(ranked, csr, "circuit-tracer")
        filled["share"] = ranked["share"]
    except InputError as error:  # a cycle: everything but influence still works
        settings["repairs"] = [*repairs, f"no influence: {error}"]
        filled = ranked
    file_place = np.empty(len(link_order), np.int64)
    file_place[link_order] = np.arange(len(link_order))
    in_order = bool((file_place == np.arange(len(link_order))).all())
    token_ids = [-1] * len(tokens)
    for node in filled[filled["kind"] == EMBEDDING]:
        token_ids[int(node["position"])] = int(node["index"])
    return Graph(
        nodes=filled,
        indptr=csr.indptr,
        indices=csr.indices,
        weights=csr.weights,
        token_ids=tuple(token_ids),
        token_texts=tuple(tokens),
        prompt=metadata.get("prompt", "".join(tokens)),
        n_layers=_n_layers(nodes, dialect),
        labels=tuple(labels[i] for i in order),
        settings=settings,
        view=with_lists(parts["qParams"]),
        foreign={
            "whole": True,
            "top": top,
            "metadata": metadata,
            "nodes": {str(at): raws[i] for at, i in enumerate(order)},
            "links": {str(int(file_place[i])): extra for i, extra in extras.items()},
            "node_order": place.tolist(),
            "link_order": [] if in_order else file_place.tolist(),
            "loose_links": loose,
        },
    )


def _rows(
    where: str, n: int, targets: np.ndarray, sources: np.ndarray, weights: np.ndarray
) -> tuple[Csr, np.ndarray]:
    """Sparse rows, and for every edge in them its place in the file."""
    order = np.argsort(targets * n + sources, kind="stable")
    targets, sources = targets[order].astype(np.int32), sources[order].astype(np.int32)
    try:
        return from_triples(n, targets, sources, weights[order]), order
    except InputError as error:
        raise InputError(f"{where}: links: {error}") from error


def _record(raw: dict[str, Any], where: str, paired: bool, length: int) -> tuple[float, ...]:
    """One JSON node as the values of _COLUMNS."""
    kind_text = expect(raw, "feature_type", str, where)
    if kind_text not in _KINDS:
        known = ", ".join(_KINDS)
        raise InputError(
            f"{where}.feature_type: {kind_text!r}{near(kind_text, _KINDS)}: expected one of {known}"
        )
    kind = _KINDS[kind_text]
    part = ATTENTION_PART if kind_text in ("lorsa", "lorsa error") else MLP_PART
    position = expect(raw, "ctx_idx", int, where)
    if not 0 <= position < length:
        raise InputError(f"{where}.ctx_idx: {position}: the prompt has positions 0 to {length - 1}")
    layer = _layer(raw, where, kind)
    name = expect(raw, "node_id", str, where)
    index = _index(raw, name, kind, layer, where, paired)
    if not (-(2**31) < layer < 2**31 and -(2**63) <= index < 2**63):
        raise InputError(f"{where}: layer {layer} or feature {index} is beyond any model")
    activation = optional_number(raw, "activation", where)
    share = optional_number(raw, "influence", where)
    if kind == TARGET:
        return kind, part, layer, position, index, activation, math.nan, _probability(raw, where)
    return kind, part, layer, position, index, activation, share, math.nan


def _layer(raw: dict[str, Any], where: str, kind: int) -> int:
    layer = raw.get("layer")
    if layer == "E" or (kind == EMBEDDING and layer is None):
        return -1
    try:
        if isinstance(layer, bool | float):
            raise ValueError
        return int(layer)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InputError(f"{where}.layer: {layer!r}: expected a layer number or 'E'") from None


def _index(raw: dict[str, Any], name: str, kind: int, layer: int, where: str, paired: bool) -> int:
    """The feature number, bias kind or token id; -1 where the file does not say."""
    feature = raw.get("feature")
    if feature is not None and (isinstance(feature, bool) or not isinstance(feature, int)):
        raise InputError(f"{where}.feature: {feature!r}: expected a whole number or null")
    parts = name.split("_")
    if kind == FEATURE:
        if paired and feature is not None and feature >= 0 and uncantor(feature)[0] == layer:
            return uncantor(feature)[1]
        numbers = [p for p in parts if p.isdecimal()]
        if len(numbers) >= 3 and int(numbers[0]) == layer:
            return int(numbers[1])
        return feature if feature is not None else -1
    if kind in (EMBEDDING, TARGET):
        if len(parts) == 3 and parts[1].isdecimal():
            return int(parts[1])
        return feature if feature is not None and kind == TARGET else -1
    if kind == BIAS:
        return next((i for i, bias in enumerate(BIAS_NAMES) if bias in parts), -1)
    return -1


def _probability(raw: dict[str, Any], where: str) -> float:
    given = optional_number(raw, "token_prob", where)
    if not math.isnan(given):
        return given
    found = _PROBABILITY.search(_text(raw, "clerp", where))
    try:
        return float(found.group(1)) if found else math.nan
    except ValueError:
        return math.nan


def _text(raw: dict[str, Any], key: str, where: str) -> str:
    value = raw.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{where}.{key}: a {type(value).__name__}, expected a text")
    return value


def _n_layers(nodes: np.ndarray, dialect: str) -> int:
    """circuit-tracer places targets at layer L + 1, CRM at layer L."""
    inner = nodes["layer"][(nodes["kind"] == FEATURE) | (nodes["kind"] == ERROR)]
    least = int(inner.max(initial=-1)) + 1
    top = int(nodes["layer"][nodes["kind"] == TARGET].max())
    return max(least, top if dialect == "crm" else top - 1)
