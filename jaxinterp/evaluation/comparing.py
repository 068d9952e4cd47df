"""Two dictionaries side by side on the same tokens, layer by layer. See `matching` for what is counted."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxinterp.activations.flax_source import FlaxSource
from jaxinterp.activations.text import Batch
from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.base import Dictionary, kind_of
from jaxinterp.evaluation import text
from jaxinterp.evaluation.applying import check_fit
from jaxinterp.evaluation.matching import DRAWS, HUNGARIAN, greedy, matching, one_to_one
from jaxinterp.evaluation.similarity import Correlation, Cosine, Similarity, codes, decoders
from jaxinterp.evaluation.splitting import LINK, splitting
from jaxinterp.models.model import Model

Subject = Model | FlaxSource


def compare(
    one: tuple[Subject, Dictionary], two: tuple[Subject, Dictionary], batches: list[Batch], *,
    microbatch: int = 16, draws: int = DRAWS, threshold: float = LINK, seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """What two dictionaries, seeds or models have in common.

    Features are matched by the correlation of their activations over the same tokens and, in one model, by the cosine
    of their decoder vectors; each layer's with the same layer's of the other. Between different sizes of one kind,
    splitting is counted, too.

    Args:
      one, two: a model and a dictionary that fits it.
      batches: text; the models must read it alike.
      microbatch: sequences that go through a model at a time.
      draws: of each null.
      threshold: of a link, for splitting.
      seed: of the nulls.

    Returns:
      JSON-ready figures, an entry of "layers" for every group of features.

    Raises:
      InputError: models of other vocabularies, or dictionaries of other numbers of layers.
    """
    _same_tokens(one[0], two[0])
    counts = [kind_of(d.config).groups(d.config) for _, d in (one, two)]
    if counts[0] != counts[1]:
        raise InputError(
            f"matching: one dictionary has features in {counts[0]} layers, the other in {counts[1]}; choose layers"
        )
    active = []
    for model, dictionary in (one, two):
        layers = check_fit(dictionary, model.config)
        active.append(codes(dictionary, text.rows(model, dictionary, layers, batches, microbatch)))
    own_space = one[0] is two[0] or one[0].digest() == two[0].digest()
    why_not = "" if own_space else "different models"
    if own_space and _space(one[1]) != _space(two[1]):
        why_not = "they do not write the same sites"
    found = []
    for group in range(counts[0]):
        entry: dict[str, Any] = {"group": group, "layer": _layer(one[1], group)}
        measures: dict[str, Similarity] = {"activations": Correlation(active[0][group], active[1][group])}
        if not why_not and not any(kind_of(d.config).maps for _, d in (one, two)):
            measures["decoders"] = Cosine(decoders(one[1], group), decoders(two[1], group))
        for name, similarity in measures.items():
            entry[name] = {
                **matching(similarity, draws=draws, seed=seed).to_dict(), "one_to_one": _pairs(similarity)
            }  # fmt: skip
        if "decoders" in measures and one[1].config.n_features != two[1].config.n_features:
            entry["splitting"] = _splits(one[1], two[1], group, threshold, seed)
        found.append(entry)
    result: dict[str, Any] = {"against": two[1].name, "digest": two[1].digest(), "layers": found}
    if why_not:
        result["decoders_not_compared"] = why_not
    return result


def _pairs(similarity: Similarity) -> dict[str, Any]:
    """One to one: exact where it is small enough."""
    exact = max(similarity.shape) <= HUNGARIAN
    pairs = one_to_one(similarity) if exact else greedy(similarity)
    return {
        "method": "exact" if exact else "greedy",
        "pairs": len(pairs.score),
        "mean": float(np.mean(pairs.score)) if len(pairs.score) else None,
        "above_0.7": float(np.mean(pairs.score > 0.7)) if len(pairs.score) else None,
    }


def _splits(one: Dictionary, two: Dictionary, group: int, threshold: float, seed: int) -> dict[str, Any]:
    small, large = sorted((one, two), key=lambda d: d.config.n_features)
    similarity = Cosine(decoders(small, group), decoders(large, group))
    found = splitting(similarity, threshold=threshold, seed=seed).to_dict()
    return {"coarse": small.name, "fine": large.name, **found}


def _space(dictionary: Dictionary) -> tuple[Any, ...]:
    config = dictionary.config
    kind = kind_of(config)
    return config.write_site, config.d_out, config.n_layers, config.layers, kind.writes(config)


def _layer(dictionary: Dictionary, group: int) -> int | None:
    config = dictionary.config
    if kind_of(config).groups(config) != config.n_layers:
        return None
    return config.layers[group] if config.layers else group


def _same_tokens(one: Subject, two: Subject) -> None:
    """Refuse models that mean other tokens by the same numbers."""
    if one is two:
        return
    sizes = one.config.vocab_size, two.config.vocab_size
    if sizes[0] != sizes[1]:
        raise InputError(
            f"matching: the models have vocabularies of {sizes[0]} and {sizes[1]} tokens; features are matched over "
            "the same tokens"
        )
    if one.tokenizer is None or two.tokenizer is None:
        return
    for token in np.linspace(0, sizes[0] - 1, min(sizes[0], 512)).astype(int).tolist():
        texts = one.tokenizer.text(token), two.tokenizer.text(token)
        if texts[0] != texts[1]:
            raise InputError(
                f"matching: token {token} is {texts[0]!r} to one model and {texts[1]!r} to the other; features are "
                "matched over the same tokens"
            )
