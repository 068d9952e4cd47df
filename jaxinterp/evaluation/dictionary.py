"""All figures of a dictionary on held-out text."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxinterp.activations.flax_source import FlaxSource
from jaxinterp.activations.store_reader import Store
from jaxinterp.activations.text import Batch, Source
from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.base import Dictionary
from jaxinterp.evaluation import text
from jaxinterp.evaluation.applying import check_fit
from jaxinterp.evaluation.language import LanguageConfig, LanguageFigures, language
from jaxinterp.evaluation.reconstruction import DENSE, Reconstruction, reconstruction
from jaxinterp.models.model import Model


class Measured(NamedTuple):
    """What was found, and on which text."""

    rows: Reconstruction
    language: LanguageFigures | None
    batches: list[Batch]

    def to_dict(self, dense_above: float = DENSE) -> dict[str, Any]:
        """JSON-ready figures of both; features active on more than ``dense_above`` of the rows are dense."""
        return {**self.rows.to_dict(dense_above), **(self.language.to_dict() if self.language else {})}


def evaluate(
    model: Model | FlaxSource, dictionary: Dictionary, source: Source, *, tokens: int, microbatch: int = 16,
    config: LanguageConfig | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Reconstruction, sparsity, dead features and cross-entropies on ``tokens`` tokens of held-out text.

    The tokens are the first usable ones of the source's batches; first tokens of documents count unless ``config`` says
    otherwise.

    Args:
      model: the model that the dictionary was made for. With a `FlaxSource`, where nothing can be replaced, there are
        no cross-entropies.
      dictionary: what is measured, of any kind and at any sites.
      source: text; `jaxinterp.activations.text.make_source` with a seed of its own.
      tokens: how many.
      microbatch: sequences that go through the model at a time.
      config: which ablations, and whether each layer alone; by default neither.

    Raises:
      InputError: the dictionary does not fit the model, or a text without usable tokens.
    """
    return measure(model, dictionary, source, tokens=tokens, microbatch=microbatch, config=config).to_dict()


def measure(
    model: Model | FlaxSource, dictionary: Dictionary, source: Source, *, tokens: int, microbatch: int = 16,
    config: LanguageConfig | None = None, distinct: bool = False,
) -> Measured:  # fmt: skip
    """What `evaluate` returns as figures, as records. ``distinct``: text that comes again is refused."""
    config = config or LanguageConfig()
    layers = check_fit(dictionary, model.config)
    batches = text.take(source, tokens, first_tokens=config.first_tokens, distinct=distinct)
    found = reconstruction(dictionary, text.rows(model, dictionary, layers, batches, microbatch))
    if isinstance(model, FlaxSource):
        return Measured(found, None, batches)
    figures = language(model, dictionary, text.split(batches, microbatch), config, mean=found.mean)
    return Measured(found, figures, batches)


def measure_stored(
    store: Store, dictionary: Dictionary, *, tokens: int, model: Model | None = None, microbatch: int = 16,
    config: LanguageConfig | None = None,
) -> Measured:  # fmt: skip
    """The same on the activations and the text of a store; cross-entropies only with the model that made it.

    Args:
      store: it holds both sites in the dictionary's layers.
      tokens: the first usable ones of the store.
      others: see `measure`.

    Raises:
      InputError: another model's store, a site or layer that is not stored, or fewer tokens than asked for.
    """
    config = config or LanguageConfig()
    if model is not None and store.made_by["model"]["digest"] != model.digest():
        raise InputError(
            f"{store.folder} holds activations of another model (or of other weights) than {model.name!r}"
        )
    have = int((store.used if config.first_tokens else store.later).sum())
    if tokens > have:
        raise InputError(
            f"evaluation: {store.folder} has {have} usable tokens, fewer than the {tokens} asked for"
        )
    layers = check_fit(dictionary, model.config) if model else _stored_layers(store, dictionary)
    batches = text.take(text.stored_source(store), tokens, first_tokens=config.first_tokens)
    found = reconstruction(dictionary, text.stored_rows(store, dictionary, layers, batches, microbatch))
    if model is None:
        return Measured(found, None, batches)
    figures = language(model, dictionary, text.split(batches, microbatch), config, mean=found.mean)
    return Measured(found, figures, batches)


def _stored_layers(store: Store, dictionary: Dictionary) -> tuple[int, ...]:
    """The layers of a dictionary that is measured without its model, after comparing it with the store."""
    config, name = dictionary.config, dictionary.name or "the dictionary"
    layers = config.layers or store.site(config.read_site).layers
    for site, has in ((config.read_site, config.d_model), (config.write_site, config.d_out)):
        stored = store.site(site)
        if stored.width != has:
            raise InputError(f"{name} has {site} of width {has}, {store.folder} of width {stored.width}")
    if len(layers) != config.n_layers:
        raise InputError(
            f"{name} has {config.n_layers} layers and does not say which, {store.folder} holds {len(layers)}"
        )
    return layers
