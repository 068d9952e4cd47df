"""What writes and what reads: features of a dictionary, tokens, logits, as vectors of the residual stream.

Letters: L layers, N features, D width, V vocabulary, n vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxinterp.attribution import residual_paths as paths
from jaxinterp.attribution.residual_paths import Factors, Read
from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array
from jaxinterp.core.precision import einsum, wide
from jaxinterp.dictionaries.base import kind_of
from jaxinterp.dictionaries.lazy import AnyDictionary, LazyDictionary
from jaxinterp.models.model import Model

Ids = np.ndarray | slice
EVERY = slice(None)


class Side(NamedTuple):
    """Features, tokens or logits, as what writes or what reads.

    Attributes:
      name: for messages.
      layers: how many there are: those of a dictionary, or one.
      size: how many features a layer (tokens, logits) has.
      vectors: of a source ``(layer, ids, order) → [n, D]`` or None: what is written before ``order``, added up.
        Of a target ``(layer, ids) → Read``.
    """

    name: str
    layers: int
    size: int
    vectors: Callable[..., Any]


def check_layer(side: Side, layer: int) -> None:
    """Raises an `InputError` for a layer that a side has not."""
    if not 0 <= layer < side.layers:
        raise InputError(f"{side.name} has no layer {layer}: it has 0 to {side.layers - 1}")


def check_ids(side: Side, ids: np.ndarray) -> np.ndarray:
    """The numbers as an array; an `InputError` for one that a side has not."""
    ids = np.asarray(ids, np.int64).reshape(-1)
    if ids.size and (ids.min() < 0 or ids.max() >= side.size):
        raise InputError(f"{side.name} has 0 to {side.size - 1} in a layer, not {ids.min()} to {ids.max()}")
    return ids


def feature_source(model: Model, dictionary: AnyDictionary, factors: Factors | None = None) -> Side:
    """The features of a dictionary as what writes: of every layer what its decoders add before the target reads.

    Where decoders replace the residual stream (autoencoders of it), only what is written last counts.
    """
    layers = model_layers(model, dictionary)
    config, chosen = dictionary.config, factors or Factors()
    into: dict[int, list[int]] = {}
    for source, target in kind_of(config).writes(config):
        into.setdefault(source, []).append(target)

    def vectors(layer: int, ids: Ids, order: int) -> Array | None:
        site = config.write_site
        seen = [t for t in sorted(into[layer]) if paths.when_written(site, layers[t]) < order]
        total = None
        for t in seen[-1:] if paths.replaces(site) else seen:
            part = paths.written(model, site, layers[t], decoder_rows(dictionary, layer, t, ids), chosen)
            total = part if total is None else total + part
        return total

    return Side(dictionary.name or "the dictionary", config.n_layers, config.n_features, vectors)


def feature_target(model: Model, dictionary: AnyDictionary, factors: Factors | None = None) -> Side:
    """The features of a dictionary as what reads: encoder rows, through the norm before them. No bias."""
    layers = model_layers(model, dictionary)
    config, chosen = dictionary.config, factors or Factors()

    def vectors(layer: int, ids: Ids) -> Read:
        rows = encoder_rows(dictionary, layer, ids)
        if config.normalise_rows == "layer_norm":
            rows = rows - jnp.mean(rows, axis=-1, keepdims=True)
        return paths.read(model, config.read_site, layers[layer], rows, chosen, config.write_site)

    return Side(dictionary.name or "the dictionary", config.n_layers, config.n_features, vectors)


def token_source(model: Model) -> Side:
    """Tokens as what writes: their embeddings, scaled, without learned positions."""
    table = model.params["embed"]["tokens"]

    def vectors(layer: int, ids: Ids, order: int) -> Array | None:
        del layer
        return None if order < 0 else wide(table[ids]) * model.config.embed_scale

    return Side("the embedding", 1, model.config.vocab_size, vectors)


def logit_target(model: Model, factors: Factors | None = None) -> Side:
    """Logits as what reads: columns of the unembedding minus their mean, through the final norm; no softcap."""
    tied = model.config.tied
    table = model.params["embed"]["tokens"] if tied else model.params["unembed"]
    mean = jnp.mean(wide(table), axis=0 if tied else 1)[None, :]

    def vectors(layer: int, ids: Ids) -> Read:
        del layer
        rows = table[ids] if tied else table[:, ids].T
        return paths.read_at_end(model, wide(rows) - mean, factors or Factors())

    return Side("the unembedding", 1, model.config.vocab_size, vectors)


def through_skip(
    model: Model, dictionary: AnyDictionary | None, what: Read, layer: int, factors: Factors
) -> Read:
    """What is read through the skip of a layer of a dictionary, which is linear in what that layer reads."""
    config = None if dictionary is None else dictionary.config
    if dictionary is None or config is None or not config.skip or not 0 <= layer < config.n_layers:
        raise InputError(f"no dictionary with a skip in layer {layer} is at either end of these weights")
    at = model_layers(model, dictionary)[layer]
    if what.order < paths.when_written(config.write_site, at):
        return paths.nowhere(what.vectors)
    skip = dictionary.pieces.layer(layer)["W_skip"] if isinstance(dictionary, LazyDictionary) else (
        dictionary.params["W_skip"][layer]
    )  # fmt: skip
    added = paths.written(model, config.write_site, at, jnp.asarray(skip).T, factors)
    rows = einsum("nd,ed->ne", what.vectors, added)
    return paths.read(model, config.read_site, at, rows, factors)


def model_layers(model: Model, dictionary: AnyDictionary) -> tuple[int, ...]:
    """The model's layers that a dictionary's are, after checks."""
    config, name = dictionary.config, dictionary.name or "the dictionary"
    kind = kind_of(config)
    if kind.maps or kind.groups(config) != config.n_layers:
        raise InputError(
            f"{name}: features of a {config.kind} have no one direction of their own in a layer: no global weights"
        )
    heads = model.config.n_heads * model.config.d_value
    for verb, site, width in (
        ("reads", config.read_site, config.d_model), ("writes", config.write_site, config.d_out),
    ):  # fmt: skip
        needs = heads if site == "attn_z" else model.config.d_model
        if width != needs:
            raise InputError(f"{name} {verb} {site} of width {width}, which in the model has {needs}")
    layers = config.layers or tuple(range(config.n_layers))
    if max(layers) >= model.config.n_layers or (
        not config.layers and config.n_layers != model.config.n_layers
    ):
        raise InputError(f"{name} is of layers {layers}, the model has {model.config.n_layers}")
    return layers


def decoder_rows(dictionary: AnyDictionary, source: int, target: int, ids: Ids = EVERY) -> Array:
    """Decoder vectors ``[n, D']`` of one pair of layers, from memory or files."""
    if isinstance(dictionary, LazyDictionary):
        tied = source if dictionary.config.tied else target
        return jnp.asarray(dictionary.pieces.decoder(source, tied).rows(ids), dictionary.dtype)
    config = dictionary.config
    return kind_of(config).decoder_rows(dictionary.params, config, source, target, _array(ids))


def encoder_rows(dictionary: AnyDictionary, layer: int, ids: Ids = EVERY) -> Array:
    """Encoder vectors ``[n, D]`` of one layer, from memory or files."""
    if isinstance(dictionary, LazyDictionary):
        return jnp.asarray(dictionary.pieces.encoder(layer).rows(ids), dictionary.dtype)
    config = dictionary.config
    return kind_of(config).encoder_rows(dictionary.params, config, layer, _array(ids))


def _array(ids: Ids) -> Any:
    return ids if isinstance(ids, slice) else jnp.asarray(ids, jnp.int32)
