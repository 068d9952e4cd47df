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
      layer: ``(layer)`` → the arrays of one layer in our names and orientation, but for encoder and decoders.
      encoder: ``(layer)`` → the encoder of one layer, ``[N, D]``.
      decoder: ``(source, target)`` → the decoders of that pair of layers, ``[N, D']``.
      counter: where bytes that were read are counted.
    """

    config: DictionaryConfig
    layer: Callable[[int], dict[str, np.ndarray]]
    encoder: Callable[[int], Piece]
    decoder: Callable[[int, int], Piece]
    counter: Count


def whole(pieces: Pieces) -> tuple[DictionaryConfig, dict[str, Any]]:
    """Everything, as readers of formats give it."""
    config, layers, all_rows = pieces.config, range(pieces.config.n_layers), slice(None)
    params: dict[str, Any] = {
        "W_enc": np.stack([pieces.encoder(layer).rows(all_rows) for layer in layers]),
        **stack([pieces.layer(layer) for layer in layers], "the dictionary"),
    }
    if config.kind == "plt" or config.tied:
        params["W_dec"] = np.stack([pieces.decoder(layer, layer).rows(all_rows) for layer in layers])
    else:
        params["W_dec"] = tuple(
            np.stack([pieces.decoder(source, target).rows(all_rows) for source in range(target + 1)])
            for target in layers
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
