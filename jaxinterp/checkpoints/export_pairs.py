"""The two ways of pairing the entries of a head for rotary positions, turned into each other."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.trees import paths, unflatten

if TYPE_CHECKING:
    from jaxinterp.models.model import Model

# Weights whose last axis is the entries of a head's queries or keys.
_TURNED = ("layers.q", "layers.k", "layers.q_bias", "layers.k_bias", "layers.q_norm", "layers.k_norm")


def with_pairs(model: Model, pairs: str) -> Model:
    """The same model with ``rope_pairs`` "half" or "adjacent".

    Entry 2i of "adjacent" is entry i of "half", entry 2i + 1 is entry i + R/2; entries that do not turn stay. Queries
    and keys are reordered alike, so every product of them has the same terms, and the way back gives the same bytes.

    Raises:
      InputError: queries and keys that are made in another way than by one matrix each.
    """
    config = model.config
    if config.rope_pairs == pairs or config.positions != "rope":
        return model
    width = config.rope_width or config.d_head
    # Where in "adjacent" each entry of "half" is.
    order = np.concatenate([np.arange(0, width, 2), np.arange(1, width, 2), np.arange(width, config.d_head)])
    order = order if pairs == "half" else np.argsort(order)
    before = dict(paths(model.params))
    if "layers.q" not in before or "layers.k" not in before:
        raise InputError(
            f"rotary pairs cannot be changed to {pairs!r} in a model without the weights q and k"
        )
    leaves = {name: leaf[..., order] if name in _TURNED else leaf for name, leaf in before.items()}
    changed = dataclasses.replace(config, rope_pairs=pairs)
    return dataclasses.replace(model, params=unflatten(leaves), config=changed)
