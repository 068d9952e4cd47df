"""Say what a file or folder is: model, dictionary or graph, with its sizes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def options(sub: argparse.ArgumentParser) -> None:
    """The verb's options."""
    sub.add_argument(
        "path", help="file or folder, 'pocket', 'pocket-plt', or a public model's name (llama-3.1-8b)"
    )
    sub.add_argument(
        "--digest", action="store_true", help="of a large dictionary too, for which every value is read"
    )
    sub.add_argument("--json", action="store_true", help="print as JSON")


def run(options: argparse.Namespace) -> int:
    """Find out and print."""
    from jaxinterp.cli import shared

    facts = describe(options.path, options.digest)
    if options.json:
        shared.print_json(facts)
        return 0
    for part in facts if isinstance(facts, list) else [facts]:
        for key, value in part.items():
            print(f"{key:<25} {value}")
        print()
    return 0


def describe(path: str, digest: bool = False) -> Any:
    """The facts about a path as JSON values; for "pocket" a list, its model and its dictionary."""
    if path == "pocket":
        return [_model(path), _dictionary("pocket-clt"), _dictionary("pocket-plt")]
    if path in ("pocket-clt", "pocket-plt"):
        return _dictionary(path)
    place = Path(path)
    if place.exists() and _is_dictionary(place):
        return _dictionary(path, digest or None)
    if place.suffix.lower() in (".json", ".jigraph"):
        return _graph(path)
    return _model(path)


def _model(path: str) -> dict[str, Any]:
    from jaxinterp.checkpoints import load_model
    from jaxinterp.checkpoints.shapes import SHAPES, shape
    from jaxinterp.models import cost

    facts: dict[str, Any] = {"kind": "model"}
    if path in SHAPES and not Path(path).exists():
        facts |= {"kind": "model shape", "name": path}
        config = shape(path)
    else:
        model = load_model(path)
        config, tokenizer = model.config, model.tokenizer
        facts |= {
            "name": model.name, "digest": model.digest(),
            "tokenizer": None if tokenizer is None else tokenizer.vocab_size,
        }  # fmt: skip
    fields = {key: value for key, value in config.to_dict().items() if value not in (None, [], False)}
    return {**facts, **cost.summary(config), **fields}


def _dictionary(path: str, digest: bool | None = None) -> dict[str, Any]:
    from jaxinterp.dictionaries.convert import describe as describe_dictionary

    return describe_dictionary(path, digest)


def _is_dictionary(place: Path) -> bool:
    from jaxinterp.core.errors import InputError
    from jaxinterp.dictionaries.formats import registry

    try:
        registry.detect(place)
    except InputError:
        return False
    return True


def _graph(path: str) -> dict[str, Any]:
    from jaxinterp.graphs import load_graph

    graph = load_graph(path)
    scores = graph.scores()
    return {
        "kind": "graph", "prompt": graph.prompt, "tokens": len(graph.token_ids), "layers": graph.n_layers,
        "nodes": graph.counts(), "edges": len(graph.weights), "convention": graph.convention,
        "replacement": scores.replacement, "completeness": scores.completeness, "checks": str(graph.checks()),
        "pruned": graph.pruned, "settings": graph.settings, "provenance": graph.provenance,
    }  # fmt: skip
