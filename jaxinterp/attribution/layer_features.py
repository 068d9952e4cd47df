"""The features of one layer of any dictionary that has layers of its own, in memory or lazy, on whole sequences.

Letters: B sequences, T positions, D width, N features.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array
from jaxinterp.dictionaries import encoder, lorsa
from jaxinterp.dictionaries.attention import Places
from jaxinterp.dictionaries.attention import pattern as lorsa_pattern
from jaxinterp.dictionaries.base import kind_of
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.dictionaries.lazy import AnyDictionary, LazyDictionary, encoder_of, norms_of


class LayerEncoder:
    """The encoder of one layer, put on each device once.

    Args:
      dictionary: its features belong to layers.
      layer: as the dictionary numbers its layers.

    Attributes:
      model_layer: the model's layer that this is.
      sequences: whether its features look at other positions.

    Raises:
      InputError: a crosscoder, or a kind that cannot be read lazily.
    """

    def __init__(self, dictionary: AnyDictionary, layer: int) -> None:
        config = dictionary.config
        kind = kind_of(config)
        if kind.groups(config) != config.n_layers:
            raise InputError(f"features of a {config.kind} belong to no one layer")
        if kind.maps:
            raise InputError(f"features of a {config.kind} are linear maps, not directions")
        self.config, self.layer, self.sequences = config, layer, kind.sequences
        self.model_layer = config.layers[layer] if config.layers else layer
        if kind.sequences:
            if isinstance(dictionary, LazyDictionary):
                raise InputError(f"a {config.kind} cannot be read lazily")
            self.params = {name: leaf[layer][None] for name, leaf in dictionary.params.items()}
            own = kind.decoder_norms(self.params, config)[0][None] if config.ranked else None
        else:
            self.params = encoder_of(dictionary, layer)
            norms = norms_of(dictionary)
            own = None if norms is None else norms[layer][None]
        self._given = (self.params, own)
        self._on: dict[Any, Any] = {}

    def __call__(self, x: Any, positions: Any, segments: Any, device: Any = None) -> tuple[Array, Array]:
        """Pre-activations and activations, ``[B, T, N]`` each, of read-site values ``x [B, T, D]``.

        Args:
          positions, segments: [B, T] places and documents.
          device: where it is computed; None means the default.
        """
        if device not in self._on:
            self._on[device] = self._given if device is None else jax.device_put(self._given, device)
        return _features(
            self._on[device], self.config, self.layer if self.sequences else 0, x, positions, segments
        )


@partial(jax.jit, static_argnums=(1, 2))
def _features(
    given: tuple[Any, Any], config: DictionaryConfig, layer: int, x: Array, positions: Array, segments: Array
) -> tuple[Array, Array]:
    params, norms = given
    x = x.astype(params["W_enc"].dtype)[None]
    if kind_of(config).sequences:
        looks = lorsa_pattern(params, lorsa.attention_of(config), x, Places(positions, segments), layer)
        h = lorsa.pre_activations(params, config, x, pattern=looks)
    else:
        h = encoder.pre_activations(params, config, x)
    return h[0], encoder.activations(params, config, h, norms)[0]
