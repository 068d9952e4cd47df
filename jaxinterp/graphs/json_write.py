"""Write a graph as JSON (formats: the Neuronpedia graph schema, draft 07).

Own graphs: node ids of ids.py, feature numbers paired after Cantor (schema_version 1), influence as running
share,
and under the key "jaxinterp" what the dialect has no place for, so that the file reads back as the same
graph. Imported graphs: what the file held, with the labels and the viewer state that the graph has now, and with
what viewers cannot do without (json_viewers).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from os import PathLike
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import atomic
from jaxinterp.graphs.build import rows_of
from jaxinterp.graphs.graph import Graph
from jaxinterp.graphs.ids import SHORT_PARTS, cantor, graph_ids, safe_name
from jaxinterp.graphs.json_viewers import QPARAMS, quoted_token, target_label, writable
from jaxinterp.graphs.kinds import (
    ATTENTION_PART,
    BIAS,
    BIAS_NAMES,
    EMBEDDING,
    ERROR,
    FEATURE,
    MLP_PART,
    TARGET,
)
from jaxinterp.graphs.plain import dumps, float_texts, ordered, plain

LINK_LIMIT = 2_000_000
LINK_WARNING = 200_000
GENERATOR = "jaxinterp"
FEATURE_TYPES = ("cross layer transcoder", "mlp reconstruction error", "bias", "embedding", "logit")
# The dialect has two names for the attention part; the residual part goes under the names of the MLP's.
ATTENTION_TYPES = {FEATURE: "lorsa", ERROR: "lorsa error"}
OWN_NUMBERS = ("influence", "value", "constant", "left_out", "probability")


def write_json_graph(graph: Graph, path: str | PathLike[str]) -> None:
    """Write the graph as JSON, one node or link a line. Equal graphs give equal bytes.

    Raises InputError above 2,000,000 links; warns above 200,000, which no viewer draws.
    """
    links = len(graph.weights)
    if links > LINK_LIMIT:
        raise InputError(
            f"{path}: {links} links are too many for JSON (limit {LINK_LIMIT}): prune it or save .jigraph"
        )
    if not np.isfinite(graph.weights).all():
        raise InputError(f"{path}: an edge weight is no finite number: JSON cannot hold it")
    if links > LINK_WARNING:
        warnings.warn(f"{path}: {links} links as JSON: viewers will be slow; prune first", stacklevel=3)
    first, lines, last = _parts(graph)
    with (
        atomic(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogatepass", newline="\n") as out,
    ):
        out.writelines(_pieces(first, lines, last))


def json_document(graph: Graph) -> dict[str, Any]:
    """The JSON document of a graph, as Python values."""
    first, lines, last = _parts(graph)
    return {**first, "links": [json.loads(line) for line in lines], **last}


def _parts(graph: Graph) -> tuple[dict[str, Any], list[str], dict[str, Any]]:
    """What stands before the links, each link as text, and what stands behind them."""
    foreign = graph.foreign or {}
    ids = graph_ids(graph)
    if foreign.get("whole"):
        metadata = dict(foreign["metadata"])
        for key, value in (("prompt_tokens", list(graph.token_texts)), ("prompt", graph.prompt)):
            metadata.setdefault(key, value)
        if graph.pruned:
            metadata["pruning_settings"] = {**metadata.get("pruning_settings", {}), **ordered(graph.pruned)}
        top: dict[str, Any] = dict(foreign["top"])
        nodes = [_foreign_node(graph, foreign, i, ids[i]) for i in range(len(ids))]
    else:
        metadata = {**_metadata(graph), **foreign.get("metadata", {})}
        top = {"jaxinterp": _own(graph), **foreign.get("top", {})}
        extras = foreign.get("nodes", {})
        nodes = [{**node, **extras.get(str(i), {})} for i, node in enumerate(_nodes(graph, ids))]
    if foreign.get("node_order"):
        nodes = [nodes[i] for i in foreign["node_order"]]
    first = {
        "metadata": plain(metadata, "metadata"),
        "qParams": plain(_view(graph, ids), "view"),
        "nodes": plain(nodes, "nodes"),
    }
    return first, _links(graph, foreign, ids), plain(top, "document")


def _metadata(graph: Graph) -> dict[str, Any]:
    settings = graph.settings
    metadata: dict[str, Any] = {
        "slug": safe_name(str(settings.get("slug") or graph.prompt), "graph"),
        "scan": safe_name(str(settings.get("scan") or settings.get("model") or ""), GENERATOR),
        "transcoder_list": [],
        "prompt_tokens": list(graph.token_texts),
        "prompt": graph.prompt,
    }
    if graph.pruned:
        metadata["node_threshold"] = graph.pruned["node_threshold"]
    metadata["schema_version"] = 1
    source = settings.get("source_set") or settings.get("dictionary")
    if source:
        metadata["feature_details"] = {"neuronpedia_source_set": safe_name(str(source), GENERATOR)}
    info: dict[str, Any] = {
        "description": f"Attribution graph made by {GENERATOR}, convention {graph.convention}.",
        "generator": {"name": GENERATOR, "version": _version(graph.provenance)},
    }
    if source:
        info["neuronpedia_source_set"] = safe_name(str(source), GENERATOR)
    metadata["info"] = info
    known = {"max_n_logits": int, "desired_logit_prob": float, "batch_size": int, "max_feature_nodes": int}
    metadata["generation_settings"] = {
        "convention": graph.convention,
        **{k: settings[k] for k, kind in known.items() if isinstance(settings.get(k), kind)},
    }
    if graph.pruned:
        metadata["pruning_settings"] = ordered(graph.pruned)
    found = graph.scores()
    metadata["replacement_score"], metadata["completeness_score"] = found.replacement, found.completeness
    return metadata


def _version(provenance: dict[str, Any]) -> str:
    versions = provenance.get("versions")
    return str(versions.get(GENERATOR, "")) if isinstance(versions, dict) else ""


def _own(graph: Graph) -> dict[str, Any]:
    """What the dialect has no place for."""
    return {
        "version": 1 if (graph.nodes["part"] == MLP_PART).all() else 2,
        "dtype": graph.weights.dtype.name,
        "n_layers": graph.n_layers,
        "token_ids": list(graph.token_ids),
        "settings": ordered(plain(graph.settings, "settings")),
        "provenance": ordered(plain(graph.provenance, "provenance")),
        "measured": ordered(plain(graph.measured, "measured")),
    }


def _nodes(graph: Graph, ids: list[str]) -> Iterator[dict[str, Any]]:
    top = int(graph.targets[0])
    for i, node in enumerate(graph.nodes):
        kind, part, layer, position, index = (
            int(node[k]) for k in ("kind", "part", "layer", "position", "index")
        )
        attention = part == ATTENTION_PART
        probability = float(node["probability"])
        written: dict[str, Any] = {
            "node_id": ids[i],
            "feature": _feature(kind, layer, position, index, graph.n_layers),
            "layer": str(graph.n_layers + 1) if kind == TARGET else "E" if layer < 0 else str(layer),
            "ctx_idx": position,
            "feature_type": ATTENTION_TYPES.get(kind, FEATURE_TYPES[kind])
            if attention
            else FEATURE_TYPES[kind],
            "token_prob": probability if np.isfinite(probability) else 0.0,
            "is_target_logit": kind == TARGET and i == top,
            "run_idx": 0,
            "reverse_ctx_idx": 0,
            "jsNodeId": ids[i],
            "clerp": _clerp(graph, i, kind, part, index, probability),
            "influence": None if kind == TARGET else float(node["share"]),
            "activation": float(node["activation"]),
        }
        own: dict[str, Any] = {k: float(node[k]) for k in OWN_NUMBERS if np.isfinite(node[k])}
        own = {k: x for k, x in own.items() if x != 0 or k not in ("constant", "left_out")}
        if graph.labels[i]:
            own["label"] = graph.labels[i]
        if kind not in (FEATURE, ERROR):
            own |= {"layer": layer, "index": index}
        if part != MLP_PART:
            own["part"] = part
        written["jaxinterp"] = own
        yield written


def _feature(kind: int, layer: int, position: int, index: int, n_layers: int) -> int | None:
    if kind == FEATURE:
        return cantor(layer, index)
    if kind == ERROR:
        return -1
    if kind == EMBEDDING:
        return position
    return index if kind == TARGET and index >= 0 and layer >= n_layers else None


def _clerp(graph: Graph, i: int, kind: int, part: int, index: int, probability: float) -> str:
    label = graph.labels[i]
    if kind == TARGET:
        # Viewers take the token between the first double quotes and the number after "(p=".
        shown = quoted_token(label) if label else str(index)
        return f'Output "{shown}" (p={probability if np.isfinite(probability) else 0.0:.3f})'
    if label:
        return label
    if kind == BIAS:
        return f"{BIAS_NAMES[index] if 0 <= index < len(BIAS_NAMES) else 'other'} bias"
    if kind == EMBEDDING:
        position = int(graph.nodes["position"][i])
        return f'Emb: "{graph.token_texts[position]}"' if 0 <= position < len(graph.token_texts) else ""
    return f"Err: {SHORT_PARTS[part]}" if kind == ERROR else ""


def _foreign_node(graph: Graph, foreign: dict[str, Any], i: int, name: str) -> dict[str, Any]:
    raw = {**foreign["nodes"][str(i)], "jsNodeId": name}
    label, node = graph.labels[i], graph.nodes[i]
    if node["kind"] == TARGET:
        label = target_label(label, float(node["probability"]))
    if raw.get("clerp", "") != label:
        raw["clerp"] = label
    for key, value in (("clerp", label), ("feature", None)):
        raw.setdefault(key, value)
    return raw


def _view(graph: Graph, ids: list[str]) -> dict[str, Any]:
    if graph.foreign and graph.foreign.get("whole"):
        return writable(graph.view)
    return {**QPARAMS, "clickedId": ids[int(graph.targets[0])], **writable(graph.view)}


def _links(graph: Graph, foreign: dict[str, Any], ids: list[str]) -> list[str]:
    """Every link as text, in the order of the file."""
    names = [dumps(name) for name in ids]
    ends = zip(rows_of(graph.csr).tolist(), graph.indices.tolist(), float_texts(graph.weights), strict=True)
    links = [f'{{"source":{names[s]},"target":{names[t]},"weight":{w}}}' for t, s, w in ends]
    for at, extra in foreign.get("links", {}).items():
        links[int(at)] = dumps({**json.loads(links[int(at)]), **plain(extra, "links")})
    if foreign.get("link_order"):
        links = [links[i] for i in foreign["link_order"]]
    loose = foreign.get("loose_links", [])
    if not loose:
        return links
    found: list[str] = []
    taken = 0
    for at, raw in loose:  # each at the place that it had in the file
        more = max(at - len(found), 0)
        found += links[taken : taken + more]
        taken += more
        found.insert(at, dumps(plain(raw, "links")))
    return found + links[taken:]


def _pieces(first: dict[str, Any], lines: list[str], last: dict[str, Any]) -> Iterator[str]:
    opening = "{"
    for key, value in first.items():
        yield f"{opening}{dumps(key)}:"
        opening = ",\n"
        yield from _list([dumps(item) for item in value]) if key == "nodes" else (dumps(value),)
    yield ',\n"links":'
    yield from _list(lines)
    for key, value in last.items():
        yield f",\n{dumps(key)}:{dumps(value)}"
    yield "}\n"


def _list(lines: list[str]) -> Iterator[str]:
    """A list with an item a line."""
    if not lines:
        yield "[]"
        return
    for start in range(0, len(lines), 10_000):
        yield (",\n" if start else "[\n") + ",\n".join(lines[start : start + 10_000])
    yield "\n]"
