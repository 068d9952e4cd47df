"""Dictionaries that stay in their files: a graph needs every encoder, one layer at a time, and few decoder rows.

`LazyDictionary` is such a dictionary; the functions do with it and with one in memory the same, with the same numbers.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.core.trees import digest_leaves
from jaxinterp.dictionaries.base import Dictionary, check, kind_of
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.dictionaries.formats.pieces import Pieces, whole

ENCODER = ("W_enc", "b_enc", "b_dec", "threshold", "r_mag", "b_mag")
KINDS = ("plt", "clt")
_CHUNK = 1 << 16


@dataclass(frozen=True)
class LazyDictionary:
    """A dictionary of the kind "plt" or "clt" of which parts are read from its files when they are needed.

    Attributes:
      pieces: where the parts are.
      name: as of `Dictionary`.
      dtype: what parts are given as.
      known_digest: its digest where somebody has it already; "" reads everything once, in little memory, to find it.
    """

    pieces: Pieces
    name: str = ""
    dtype: str = "float32"
    known_digest: str = ""

    @property
    def config(self) -> DictionaryConfig:
        """What it is."""
        return self.pieces.config

    @property
    def bytes_read(self) -> int:
        """Bytes of values that were read from its files so far."""
        return self.pieces.counter.bytes

    @property
    def params(self) -> Tree:
        """Not there: an `InputError` that says so."""
        raise InputError(
            f"{self.name or 'the dictionary'} was opened lazily, which is for tracing; load it whole for anything else"
        )

    def digest(self) -> str:
        """The same as that of the dictionary in memory, with the parameters it was opened for."""
        if self.known_digest:
            return self.known_digest
        return self._found_digest

    @functools.cached_property
    def _found_digest(self) -> str:
        return digest_leaves(self.config, self._leaves())

    def _leaves(self) -> Iterator[tuple[str, str, tuple[int, ...], Iterator[np.ndarray]]]:
        """(path, dtype, shape, pieces of values) of every parameter, by path."""
        config, layers = self.config, range(self.config.n_layers)
        declared = kind_of(config).declare(config)
        decoders = declared.pop("W_dec")
        dtype = self.dtype

        def rows(pairs: list[tuple[int, int]]) -> Iterator[np.ndarray]:
            for source, target in pairs:
                piece = self.pieces.decoder(source, target)
                for start in range(0, config.n_features, _CHUNK):
                    yield piece.rows(slice(start, start + _CHUNK)).astype(dtype)

        leaves: list[Any] = []
        if isinstance(decoders, tuple) and not hasattr(decoders, "shape"):
            for target, weight in enumerate(decoders):
                pairs = [(source, target) for source in range(target + 1)]
                leaves.append((f"W_dec.{target}", dtype, weight.shape, rows(pairs)))
        else:
            leaves.append(("W_dec", dtype, decoders.shape, rows([(layer, layer) for layer in layers])))
        encoders = (self.pieces.encoder(layer).rows(slice(None)).astype(dtype) for layer in layers)
        leaves.append(("W_enc", dtype, declared["W_enc"].shape, encoders))
        rest = [self.pieces.layer(layer) for layer in layers]
        for name in declared.keys() - {"W_enc"}:
            values = [one[name].astype(dtype) for one in rest]
            leaves.append((name, dtype, declared[name].shape, iter(values)))
        yield from sorted(leaves, key=lambda leaf: leaf[0])


AnyDictionary = Dictionary | LazyDictionary


def cast(dictionary: AnyDictionary, dtype: Any) -> AnyDictionary:
    """The dictionary with parameters of ``dtype``."""
    if isinstance(dictionary, LazyDictionary):
        if np.dtype(dtype).name == dictionary.dtype:
            return dictionary
        return dataclasses.replace(dictionary, dtype=np.dtype(dtype).name, known_digest="")
    return dataclasses.replace(dictionary, params=jax.tree.map(lambda x: x.astype(dtype), dictionary.params))


def encoder_of(dictionary: AnyDictionary, layer: int) -> dict[str, Array]:
    """The encoder's parameters of one layer, each with a leading axis of one: `dictionaries.encoder` takes them."""
    if isinstance(dictionary, LazyDictionary):
        found = {
            **dictionary.pieces.layer(layer),
            "W_enc": dictionary.pieces.encoder(layer).rows(slice(None)),
        }
        return {name: jnp.asarray(found[name], dictionary.dtype)[None] for name in ENCODER if name in found}
    params = dictionary.params
    return {name: params[name][layer][None] for name in ENCODER if name in params}


def norms_of(dictionary: AnyDictionary) -> Array | None:
    """Decoder lengths ``[L, N]`` where features are ranked by them, else None.

    Raises:
      InputError: a lazy dictionary that would need all of its decoders for that.
    """
    if not dictionary.config.ranked:
        return None
    if isinstance(dictionary, LazyDictionary):
        raise InputError(
            f"{dictionary.name or 'the dictionary'} ranks features by decoder length, for which every decoder is "
            "needed: load it whole"
        )
    return kind_of(dictionary.config).decoder_norms(dictionary.params, dictionary.config)


def restrict(dictionary: AnyDictionary, features: list[np.ndarray], size: int) -> Dictionary:
    """What some features of each layer read and write, as a small dictionary of its own.

    Args:
      features: for each layer the numbers of at most ``size`` features, ascending.
      size: features of the small dictionary; its feature i of a layer is ``features[layer][i]``, those that are left
        over read and write nothing.

    Returns:
      A dictionary of the kind of this one with ``W_enc``, ``b_enc``, decoders, biases and skip. What decides whether a
      feature is active is left out: it is for given activations.

    Raises:
      InputError: a kind whose features have no decoder rows.
    """
    config = dictionary.config
    if config.kind not in KINDS:
        raise InputError(f"the kind {config.kind} has no decoder rows of its own for every layer")
    small = dataclasses.replace(
        config,
        n_features=size,
        activation="relu",
        k=0,
        ranked=False,
        tied=False,
        centre=False,
        scan=config.scan,
    )
    if isinstance(dictionary, LazyDictionary):
        return check(Dictionary(_read(dictionary, features, size), small, dictionary.name))
    index, there = np.zeros((config.n_layers, size), np.int32), np.zeros((config.n_layers, size), bool)
    for layer, chosen in enumerate(features):
        index[layer, : len(chosen)], there[layer, : len(chosen)] = chosen, True
    return Dictionary(_gather(dictionary.params, config, index, there), small, dictionary.name)


@functools.partial(jax.jit, static_argnums=1)
def _gather(params: Tree, config: DictionaryConfig, index: Array, there: Array) -> Tree:
    kind, layers = kind_of(config), range(config.n_layers)

    def kept(rows: Array, layer: int) -> Array:
        mask = there[layer].reshape(-1, *(1,) * (rows.ndim - 1))
        return jnp.where(mask, rows, jnp.zeros_like(rows))

    def decoder(source: int, target: int) -> Array:
        return kept(kind.decoder_rows(params, config, source, target, index[source]), source)

    small: dict[str, Any] = {
        name: jnp.stack([kept(params[name][layer, index[layer]], layer) for layer in layers])
        for name in ("W_enc", "b_enc")
    }
    small |= {name: params[name] for name in ("b_dec", "W_skip") if name in params}
    if config.kind == "plt":
        return {**small, "W_dec": jnp.stack([decoder(layer, layer) for layer in layers])}
    return {
        **small,
        "W_dec": tuple(jnp.stack([decoder(s, target) for s in range(target + 1)]) for target in layers),
    }


def _read(dictionary: LazyDictionary, features: list[np.ndarray], size: int) -> dict[str, Any]:
    """The same from files."""
    config, dtype, layers = dictionary.config, dictionary.dtype, range(dictionary.config.n_layers)

    def padded(rows: np.ndarray) -> np.ndarray:
        return np.pad(rows, [(0, size - len(rows))] + [(0, 0)] * (rows.ndim - 1))

    def decoder(source: int, target: int) -> np.ndarray:
        return padded(dictionary.pieces.decoder(source, target).rows(features[source]))

    found: dict[str, list[np.ndarray]] = {}
    for layer in layers:
        one = dictionary.pieces.layer(layer)
        found.setdefault("W_enc", []).append(padded(dictionary.pieces.encoder(layer).rows(features[layer])))
        found.setdefault("b_enc", []).append(padded(one["b_enc"][features[layer]]))
        for name in ("b_dec", "W_skip"):
            if name in one:
                found.setdefault(name, []).append(one[name])
    small: dict[str, Any] = {name: jnp.asarray(np.stack(rows), dtype) for name, rows in found.items()}
    if config.kind == "plt":
        return {**small, "W_dec": jnp.asarray(np.stack([decoder(layer, layer) for layer in layers]), dtype)}
    return {
        **small,
        "W_dec": tuple(
            jnp.asarray(np.stack([decoder(s, target) for s in range(target + 1)]), dtype) for target in layers
        ),
    }


def load(dictionary: LazyDictionary) -> Dictionary:
    """All of it, in memory."""
    config, params = whole(dictionary.pieces)
    return check(Dictionary(jax.tree.map(jnp.asarray, params), config, dictionary.name))
