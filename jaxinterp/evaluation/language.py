"""What a dictionary in place of a model's values does to its predictions, beside taking those values away.

A figure is a mean over predicted tokens. *Replaced* is the dictionary live in all its layers at once (later layers read
what it wrote); for a dictionary that reads all layers before it writes, and for one layer alone, reconstructions are
those of the unchanged run. *Zero* and *mean* put zeros, or the site's mean over the evaluation, in their place.

CE recovered is ``(CE_ablated - CE_replaced) / (CE_ablated - CE_clean)``, KL recovered ``1 - KL_replaced / KL_ablated``,
where KL is KL(clean ‖ other). Agreement is the share of predictions whose most probable token stays the same;
*confident* agreement counts only tokens that the model predicts rightly with a probability below 0.8 (*Circuit
Tracing*, evaluation of the replacement model), and that are rare enough where a largest frequency is given.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.base import Dictionary
from jaxinterp.evaluation import predictions
from jaxinterp.evaluation.applying import check_fit, width
from jaxinterp.evaluation.predictions import Sums
from jaxinterp.evaluation.reconstruction import number
from jaxinterp.models.model import Model
from jaxinterp.replacement.live import why_not

ABLATIONS = ("zero", "mean")


@dataclass(frozen=True)
class LanguageConfig:
    """What is measured.

    Attributes:
      ablations: of "zero" and "mean".
      each_layer: every layer alone, too: a forward pass a layer, and one for each ablation.
      confidence: of confident agreement.
      max_frequency: the largest share of the evaluation's tokens that a predicted token of confident agreement may
        have (1e-4 in *Circuit Tracing*); None takes all.
      first_tokens: whether the first token of every document is replaced (and predicted from).
    """

    ablations: tuple[str, ...] = ()
    each_layer: bool = False
    confidence: float = 0.8
    max_frequency: float | None = None
    first_tokens: bool = True

    def __post_init__(self) -> None:
        for name in self.ablations:
            if name not in ABLATIONS:
                raise InputError(f"evaluation: ablation {name!r}, expected one of {', '.join(ABLATIONS)}")
        if not 0 < self.confidence <= 1:
            raise InputError(f"evaluation: confidence is {self.confidence}, expected above 0 and at most 1")


@dataclass(frozen=True)
class Effect:
    """What one change does: nats a predicted token, and shares of predictions."""

    ce: float
    kl: float
    agreement: float
    confident_agreement: float

    def to_dict(self, suffix: str = "") -> dict[str, Any]:
        """JSON-ready, names with a suffix."""
        found = {
            "ce": self.ce, "kl": self.kl, "top1_agreement": self.agreement,
            "confident_agreement": self.confident_agreement,
        }  # fmt: skip
        return {name + suffix: number(value) for name, value in found.items()}


@dataclass(frozen=True)
class LanguageFigures:
    """Cross-entropies and divergences in nats a predicted token.

    Attributes:
      tokens: how many predictions.
      confident: how many of them count for confident agreement.
      clean: the model's own cross-entropy.
      effects: of ("replaced", "zero" or "mean", layer); layer None is all the dictionary's layers at once.
      live: whether later layers read what the dictionary wrote.
    """

    tokens: int
    confident: int
    clean: float
    effects: dict[tuple[str, int | None], Effect] = field(repr=False)
    live: bool = True

    @property
    def replaced(self) -> float:
        """Cross-entropy with the dictionary in all its layers."""
        return self.effects["replaced", None].ce

    @property
    def agreement(self) -> float:
        """Top-1 agreement with the dictionary in all its layers."""
        return self.effects["replaced", None].agreement

    @property
    def gap(self) -> float:
        """``replaced - clean``."""
        return self.replaced - self.clean

    def ce_recovered(self, ablation: str, layer: int | None = None) -> float:
        """Share of what an ablation costs that the dictionary saves; not a number where it costs nothing."""
        ablated = self.effects[ablation, layer].ce
        return _ratio(ablated - self.effects["replaced", layer].ce, ablated - self.clean)

    def kl_recovered(self, ablation: str, layer: int | None = None) -> float:
        """``1 - KL_replaced / KL_ablated``."""
        return 1.0 - _ratio(self.effects["replaced", layer].kl, self.effects[ablation, layer].kl)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready figures."""
        found: dict[str, Any] = {
            "predictions": self.tokens,
            "confident_predictions": self.confident,
            "ce_clean": self.clean,
            "ce_replaced": self.replaced,
            "ce_gap": self.gap,
            "kl_replaced": self.effects["replaced", None].kl,
            "top1_agreement": self.agreement,
            "confident_agreement": number(self.effects["replaced", None].confident_agreement),
        }
        if not self.live:
            found["replaced_from"] = "the unchanged run"
        found |= self._ablations(None)
        layers = [layer for kind, layer in self.effects if kind == "replaced" and layer is not None]
        if layers:
            found["each_layer"] = [
                {
                    "layer": layer,
                    **self.effects["replaced", layer].to_dict("_replaced"),
                    **self._ablations(layer),
                }
                for layer in layers
            ]
        return found

    def _ablations(self, layer: int | None) -> dict[str, Any]:
        found = {}
        for name in ABLATIONS:
            if (name, layer) in self.effects:
                effect = self.effects[name, layer]
                found[name] = {
                    "ce": effect.ce,
                    "kl": effect.kl,
                    "ce_recovered": number(self.ce_recovered(name, layer)),
                    "kl_recovered": number(self.kl_recovered(name, layer)),
                }
        return found


def _ratio(a: float, b: float) -> float:
    return a / b if b else float("nan")


def language(
    model: Model,
    dictionary: Dictionary,
    batches: Iterable[Any],
    config: LanguageConfig | None = None,
    *,
    mean: np.ndarray | None = None,
) -> LanguageFigures:
    """Measure what replacing, and taking away, does to predictions.

    Args:
      model: the model.
      dictionary: it must fit the model; at any sites.
      batches: `jaxinterp.activations.text.Batch`, best all of one shape. They are gone through twice where frequencies
        are counted or the mean is not given.
      config: what is measured; by default the dictionary live in all layers, without ablations.
      mean: [L, D'] of the written site, for "mean"; None takes that of the used tokens of ``batches``.

    Raises:
      InputError: the dictionary does not fit the model.
      ValueError: nothing to predict.
    """
    config = config or LanguageConfig()
    layers = check_fit(dictionary, model.config)
    live = not why_not(dictionary.config)
    if config.max_frequency is not None or ("mean" in config.ablations and mean is None):
        batches = list(batches)
    rare = None
    if config.max_frequency is not None:
        rare = _frequencies(batches, model.config.vocab_size) <= config.max_frequency
    if "mean" in config.ablations and mean is None:
        mean = predictions.site_mean(model, dictionary, layers, batches, config.first_tokens)
    constants: dict[str, Any] = {}
    for name in config.ablations:
        shape = (len(layers), width(model.config, dictionary.config.write_site))
        constants[name] = np.zeros(shape) if name == "zero" else mean
        if constants[name].shape != shape:
            raise InputError(f"evaluation: a mean of shape {constants[name].shape}, expected {shape}")
    total = Sums()
    for batch in batches:
        total.add(
            predictions.measure(
                model, dictionary, layers, batch, constants, rare=rare, live=live,
                each_layer=config.each_layer, confidence=config.confidence, first_tokens=config.first_tokens,
            )
        )  # fmt: skip
    if not total.count:
        raise ValueError("no next token to predict in this text")
    confident = total.confident or float("nan")
    effects = {
        key: Effect(ce / total.count, kl / total.count, same / total.count, sure / confident)
        for key, (ce, kl, same, sure) in total.effects.items()
    }
    return LanguageFigures(total.count, total.confident, total.clean / total.count, effects, live)


def _frequencies(batches: Iterable[Any], vocabulary: int) -> np.ndarray:
    """Each token's share of the used tokens, [V]."""
    counts = np.zeros(vocabulary, np.int64)
    for batch in batches:
        counts += np.bincount(np.asarray(batch.tokens)[np.asarray(batch.use)], minlength=vocabulary)
    return counts / max(1, counts.sum())
