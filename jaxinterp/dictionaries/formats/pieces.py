"""A dictionary in files, in pieces that are read when they are asked for; and all of them put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.dictionaries.formats.mapped import Count, Piece


class Pieces(NamedTuple):
    """A dictionary of the kind "plt" or "clt" of which a part can be read.

    Attributes:
      config: what it is.
      layer: ``(layer)`` → the arrays of one layer but for its decoders, in our names and orientation.
      decoder: ``(source, target)`` → the decoders of that pair of layers, ``[N, D']``.
      count: where bytes that were read are counted.
    """

    config: DictionaryConfig
    layer: Callable[[int], dict[str, np.ndarray]]
    decoder: Callable[[int, int], Piece]
    count: Count


def pairs(config: DictionaryConfig) -> list[tuple[int, int]]:
    """(source, target), of every piece that holds decoders."""
    layers = range(config.n_layers)
    if config.kind == "plt" or config.tied:
        return [(layer, layer) for layer in layers]
    return [(source, target) for target in layers for source in range(target + 1)]


def whole(pieces: Pieces) -> tuple[DictionaryConfig, dict[str, Any]]:
    """Everything, as readers of formats give it."""
    config = pieces.config
    params: dict[str, Any] = stack(
        [pieces.layer(layer) for layer in range(config.n_layers)], "the dictionary"
    )
    if config.kind == "plt" or config.tied:
        params["W_dec"] = np.stack(
            [pieces.decoder(layer, layer).rows(slice(None)) for layer in range(config.n_layers)]
        )
    else:
        params["W_dec"] = tuple(
            np.stack([pieces.decoder(source, target).rows(slice(None)) for source in range(target + 1)])
            for target in range(config.n_layers)
        )
    return config, params


def stack(rows: list[dict[str, np.ndarray]], where: Any) -> dict[str, np.ndarray]:
    """One array a name, layers leading.

    Raises:
      InputError: a name that only some layers have, or another shape.
    """
    for layer, row in enumerate(rows):
        for name in rows[0].keys() ^ row.keys():
            raise InputError(
                f"{where}: {name} is in some layers and not in others (layers 0 and {layer} differ)"
            )
        for name, value in row.items():
            if value.shape != rows[0][name].shape:
                raise InputError(
                    f"{where}: {name} has shape {rows[0][name].shape} in layer 0, {value.shape} in {layer}"
                )
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
