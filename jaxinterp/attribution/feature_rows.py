"""Encoder and decoder rows of chosen features on the host, from dictionaries in memory, on a device or in files.

Only rows that are asked for are copied or read, so that no decoder need fit into memory.

Letters: n features asked for, D width.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np

from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries.base import DictionaryConfig, kind_of
from jaxinterp.dictionaries.lazy import AnyDictionary, LazyDictionary

_LEAST = 64  # rows gathered on a device are padded to powers of two, so that few programs are compiled


class FeatureRows:
    """Rows of one dictionary; ``own`` is the dictionary's own number of a layer, features are ``[n]`` numbers."""

    def __init__(self, dictionary: AnyDictionary) -> None:
        self.dictionary, self.config = dictionary, dictionary.config
        self._kept: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self._params: Tree | None = None
        self._on_host = False
        if not isinstance(dictionary, LazyDictionary):
            self._on_host = all(_is_host(leaf) for leaf in jax.tree.leaves(dictionary.params))
            self._params = jax.tree.map(np.asarray, dictionary.params) if self._on_host else dictionary.params

    def keep(self, own: int, features: np.ndarray, rows: np.ndarray, bias: np.ndarray) -> None:
        """Remember encoder rows [n, D] and biases [n] of ascending features, which their file need not give again."""
        self._kept[own] = features, rows, bias

    def encoder(self, own: int, features: np.ndarray) -> np.ndarray:
        """[n, D] encoder rows, as they meet what is read."""
        if self._params is not None:
            kind = kind_of(self.config)
            return self._take(_encoder, kind.encoder_rows, (own,), features)
        return self._of_file(own, features)[0]

    def bias(self, own: int, features: np.ndarray) -> np.ndarray:
        """[n] pre-activations of features for an input of zero."""
        if self._params is None:
            return self._of_file(own, features)[1]
        bias, shift = (np.asarray(self._params[name][own]) for name in ("b_enc", "b_dec"))
        found = bias[np.asarray(features)]
        return found - self.encoder(own, features) @ shift if self.config.centre else found

    def decoder(self, source: int, target: int, features: np.ndarray) -> np.ndarray:
        """[n, D] what features of ``source`` write into ``target``, for an activation of one."""
        if self._params is not None:
            kind = kind_of(self.config)
            return self._take(_decoder, kind.decoder_rows, (source, target), features)
        dictionary = self.dictionary
        assert isinstance(dictionary, LazyDictionary)
        # Each row is read once, however often its feature is active.
        unique, inverse = np.unique(features, return_inverse=True)
        rows = dictionary.pieces.decoder(source, target).rows(unique)
        return rows.astype(dictionary.dtype, copy=False)[inverse]

    def small(self) -> dict[str, Any]:
        """The dictionary's decoder biases ``b_dec [L, D]`` and, where it has one, its skip ``W_skip [L, D, D]``."""
        if self._params is not None:
            params = self.dictionary.params
            return {name: params[name] for name in ("b_dec", "W_skip") if name in params}
        dictionary = self.dictionary
        assert isinstance(dictionary, LazyDictionary)
        layers = [dictionary.pieces.layer(own) for own in range(self.config.n_layers)]
        return {
            name: np.stack([one[name] for one in layers]).astype(dictionary.dtype)
            for name in ("b_dec", "W_skip")
            if name in layers[0]
        }

    def _take(self, program: Any, of_kind: Any, layers: tuple[int, ...], features: np.ndarray) -> np.ndarray:
        if self._on_host:
            return np.asarray(of_kind(self._params, self.config, *layers, np.asarray(features)))
        size = max(_LEAST, 1 << max(len(features) - 1, 0).bit_length())
        padded = np.pad(np.asarray(features, np.int32), (0, size - len(features)))
        return np.asarray(program(self._params, self.config, *layers, padded))[: len(features)]

    def _of_file(self, own: int, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        kept, rows, bias = self._kept.get(own, (np.zeros(0, np.int64),) * 3)
        at = np.searchsorted(kept, features)
        if len(kept) and (kept[np.minimum(at, len(kept) - 1)] == features).all():
            return rows[at], bias[at]
        dictionary = self.dictionary
        assert isinstance(dictionary, LazyDictionary)
        unique, inverse = np.unique(features, return_inverse=True)
        found = dictionary.pieces.encoder(own).rows(unique).astype(dictionary.dtype, copy=False)
        one = dictionary.pieces.layer(own)
        shift = found @ one["b_dec"].astype(found.dtype) if self.config.centre else 0
        return found[inverse], (one["b_enc"][unique].astype(found.dtype) - shift)[inverse]


def _is_host(leaf: Any) -> bool:
    """Whether the array lies whole on a CPU, where the host can look at it without a copy."""
    if isinstance(leaf, np.ndarray):
        return True
    devices = leaf.devices()
    return len(devices) == 1 and next(iter(devices)).platform == "cpu"


@partial(jax.jit, static_argnums=(1, 2))
def _encoder(params: Tree, config: DictionaryConfig, own: int, features: Array) -> Array:
    return kind_of(config).encoder_rows(params, config, own, features)


@partial(jax.jit, static_argnums=(1, 2, 3))
def _decoder(params: Tree, config: DictionaryConfig, source: int, target: int, features: Array) -> Array:
    return kind_of(config).decoder_rows(params, config, source, target, features)
