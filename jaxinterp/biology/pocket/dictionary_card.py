"""The cards of the bundled dictionaries: what graphs traced with them are worth, beside what training measured.

`python -m jaxinterp.biology.pocket.dictionary_card RUN/dictionary` takes a dictionary trained on the bundled model,
traces graphs with it, and writes it into the package with its card.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.attribution.tracing import trace
from jaxinterp.biology.pocket import gates, items, states
from jaxinterp.biology.pocket.documents import Item
from jaxinterp.checkpoints import bundled, load_model
from jaxinterp.core.errors import InputError
from jaxinterp.core.files import atomic_folder, read_json, write_json
from jaxinterp.dictionaries.base import Dictionary, fits
from jaxinterp.dictionaries.load import load_dictionary
from jaxinterp.models.model import Model

PROMPTS = 10  # of a family
ROUND = 4  # digits in the card


def questions(model: Model, n: int = PROMPTS) -> dict[str, list[Item]]:
    """n held-out questions of each family that the model answers rightly, spread evenly."""
    result = {}
    every = items.all_items()
    for family in dict.fromkeys(item.family for item in every):
        own = [item for item in every if item.family == family and item.held_out]
        answered = [item for item, hit in zip(own, gates.right(model, own), strict=True) if hit]
        chosen = np.linspace(0, len(answered) - 1, min(n, len(answered))).round().astype(int)
        result[family] = [answered[i] for i in chosen]
    return result


def graph_scores(model: Model, dictionary: Dictionary, n: int = PROMPTS) -> dict[str, Any]:
    """Means over n prompts of each family of what whole graphs score (methods.md §2.5) and of how closely they add up.

    Returns:
      {"prompts", "replacement", "completeness", "nodes", "worst_check" (largest residual of any graph's
      identities), "families": {family: {"replacement", "completeness"}}}.
    """
    families: dict[str, dict[str, float]] = {}
    rows, worst = [], 0.0
    for family, chosen in questions(model, n).items():
        found = []
        for item in chosen:
            graph = trace(model, dictionary, item.prompt)
            scores, checks = graph.scores(), graph.checks()
            found.append((scores.replacement, scores.completeness, len(graph.nodes)))
            worst = max(
                worst, *(float(x or 0) for x in (checks.identity_1, checks.identity_2, checks.identity_3))
            )
        means = np.mean(found, axis=0)
        families[family] = {
            "replacement": round(float(means[0]), ROUND), "completeness": round(float(means[1]), ROUND),
        }  # fmt: skip
        rows += found
    replacement, completeness, nodes = np.mean(rows, axis=0)
    return {
        "prompts": len(rows), "replacement": round(float(replacement), ROUND),
        "completeness": round(float(completeness), ROUND), "nodes": round(float(nodes), 1), "worst_check": worst,
        "families": families,
    }  # fmt: skip


def card(model: Model, dictionary: Dictionary, trained: dict[str, Any]) -> dict[str, Any]:
    """What training wrote, with scores of graphs and the study of state features."""
    study = states.study(model, dictionary)
    kept = ("prompts", "surviving", "nodes", "share", "random_share", "states_with_features")
    return {
        **trained, "graphs": graph_scores(model, dictionary),
        "state_features": {name: round(study[name], ROUND) for name in kept},
    }  # fmt: skip


def main(arguments: Sequence[str]) -> None:
    """Write one dictionary, with its card, into the package."""
    if len(arguments) != 1:
        raise InputError("give the folder of one finished run's dictionary")
    source = Path(arguments[0])
    model, dictionary = load_model("pocket"), load_dictionary(source)
    fits(dictionary, model.config)
    trained = read_json(source / "card.json")
    if trained["model"]["digest"] != model.digest():
        raise InputError(f"{source} was trained on another model than the bundled one")
    content = card(model, dictionary, trained)
    with atomic_folder(bundled.path(dictionary.config.kind)) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        write_json(folder / "card.json", content)
    print({name: content[name] for name in ("held_out", "graphs", "state_features")})


if __name__ == "__main__":
    main(sys.argv[1:])
