"""What a person should know about a trained dictionary."""

from __future__ import annotations

from typing import Any

from jaxinterp.activations import FlaxSource, Store
from jaxinterp.core.provenance import versions
from jaxinterp.dictionaries.base import Dictionary
from jaxinterp.models.model import Model
from jaxinterp.training.configs import to_dict
from jaxinterp.training.dictionary_specs import DictionaryRun


def card(
    run: DictionaryRun, model: Model | FlaxSource, dictionary: Dictionary, figures: dict[str, Any]
) -> dict[str, Any]:
    """What a person should know about a trained dictionary."""
    recipe = to_dict(run)
    for elsewhere in ("model", "dictionaries"):
        recipe.pop(elsewhere)
    if path := recipe.pop("store"):
        recipe["store"] = Store(path).digest()
    return {
        "what": f"{dictionary.config.kind} of {dictionary.config.n_features} features a layer",
        "model": {"name": run.name or model.name, "digest": model.digest()},
        "dictionary": {**dictionary.config.to_dict(), "digest": dictionary.digest()},
        "held_out": figures,
        "training_tokens": run.steps * run.batch,
        "recipe": recipe,
        "versions": versions(),
    }
