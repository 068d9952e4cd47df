"""Everything that `jaxinterp evaluate` measures, as one JSON-ready record."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxinterp.activations.flax_source import FlaxSource
from jaxinterp.activations.store_reader import Store
from jaxinterp.activations.text import Batch, Source
from jaxinterp.core.errors import InputError
from jaxinterp.core.provenance import versions
from jaxinterp.dictionaries.base import Dictionary
from jaxinterp.dictionaries.config import MLP_READS, MLP_WRITES
from jaxinterp.evaluation import text
from jaxinterp.evaluation.applying import check_fit
from jaxinterp.evaluation.comparing import Subject, compare
from jaxinterp.evaluation.dictionary import Measured, measure, measure_stored
from jaxinterp.evaluation.jacobian import jacobian_cosine
from jaxinterp.evaluation.language import LanguageConfig
from jaxinterp.evaluation.reconstruction import DENSE, Rows
from jaxinterp.models.model import Model


@dataclass(frozen=True)
class FullConfig:
    """What is measured.

    Attributes:
      tokens: of held-out text.
      microbatch: sequences that go through the model at a time.
      language: ablations, each layer alone, and so on.
      jacobian: tokens of the Jacobian cosine, where a dictionary stands for MLPs; 0 leaves it out.
      probes: products a token of it; None is exact up to a width of 256, else 32.
      draws: of the null of a comparison.
      dense_above: share of rows from which on a feature is dense.
      features: whether the densities and mean activations of single features are kept.
      seed: of probes and nulls.
    """

    tokens: int = 16_384
    microbatch: int = 16
    language: LanguageConfig = field(
        default_factory=lambda: LanguageConfig(ablations=("zero", "mean"), each_layer=True)
    )
    jacobian: int = 128
    probes: int | None = None
    draws: int = 10
    dense_above: float = DENSE
    features: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("tokens", 1), ("microbatch", 1), ("jacobian", 0), ("draws", 1)):
            if getattr(self, name) < least:
                raise InputError(f"evaluation: {name} is {getattr(self, name)}, expected at least {least}")


def full(
    dictionary: Dictionary, config: FullConfig | None = None, *, model: Subject | None = None,
    source: Source | None = None, store: Store | None = None,
    against: tuple[Subject, Dictionary] | None = None,
) -> tuple[dict[str, Any], Measured]:  # fmt: skip
    """Measure a dictionary in every way that applies.

    Args:
      dictionary: of any kind.
      config: what is measured.
      model: what it was made for; may be left out with a store, and then there is nothing about predictions.
      source: text; or
      store: activations and text.
      against: another dictionary to compare with, and its model (the same object where it is the same model).

    Returns:
      The record, and what was found, for `saebench.core`.

    Raises:
      InputError: neither text nor store, too little text, or something that does not fit.
    """
    config = config or FullConfig()
    if store is not None:
        if isinstance(model, FlaxSource):
            raise InputError("evaluation: a store is evaluated with a model of ours, or without one")
        measured = measure_stored(
            store, dictionary, tokens=config.tokens, model=model, microbatch=config.microbatch,
            config=config.language,
        )  # fmt: skip
    elif model is None or source is None:
        raise InputError("evaluation: give a model and text, or a store")
    else:
        measured = measure(
            model, dictionary, source, tokens=config.tokens, microbatch=config.microbatch,
            config=config.language, distinct=True,
        )  # fmt: skip
    own = dictionary.config
    record: dict[str, Any] = {
        "dictionary": {"name": dictionary.name, "digest": dictionary.digest(), **own.to_dict()},
        "model": None if model is None else {"name": model.name, "digest": model.digest()},
        "text": {"tokens": measured.rows.rows, "digest": _digest(measured.batches)},
        "figures": measured.to_dict(config.dense_above),
        "density": measured.rows.histogram().to_dict(),
        "dead_by_group": (measured.rows.fired == 0).mean(axis=1).tolist(),
        "dense_by_group": (measured.rows.density > config.dense_above).mean(axis=1).tolist(),
    }
    stands = own.read_site in MLP_READS and own.write_site in MLP_WRITES
    if isinstance(model, Model) and config.jacobian and stands:
        rows = _rows(model, dictionary, measured.batches, config.microbatch)
        found = jacobian_cosine(
            model, dictionary, rows, tokens=config.jacobian, probes=config.probes, seed=config.seed
        )
        record["jacobian"] = found.to_dict()
    if against is not None:
        if model is None:
            raise InputError(
                "evaluation: dictionaries are compared on the model's activations: give the model"
            )
        record["against"] = compare(
            (model, dictionary), against, measured.batches, microbatch=config.microbatch, draws=config.draws,
            seed=config.seed,
        )  # fmt: skip
    if config.features:
        fired = measured.rows.fired
        record["features"] = {
            "density": measured.rows.density.tolist(),
            "mean_active": (measured.rows.sizes / np.maximum(fired, 1)).tolist(),
        }
    record["versions"] = versions()
    return record, measured


def _rows(model: Model, dictionary: Dictionary, batches: list[Batch], size: int) -> Iterator[Rows]:
    return text.rows(model, dictionary, check_fit(dictionary, model.config), batches, size)


def _digest(batches: list[Batch]) -> str:
    """sha256 of the tokens, their documents and which of them are used."""
    found = hashlib.sha256()
    for batch in batches:
        for array in (batch.tokens, batch.segments, batch.use):
            found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
