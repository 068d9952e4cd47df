"""The replacement model live: every MLP's output replaced by the dictionary's, nothing frozen, no errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from jaxinterp.core.letters import Array, Tree
from jaxinterp.core.precision import einsum
from jaxinterp.dictionaries.base import Dictionary, kind_of
from jaxinterp.models.block import Reads
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import HIGHEST, MlpSwap
from jaxinterp.models.decoder import forward as model_forward
from jaxinterp.models.sites import Activations, Edit


def forward(
    params: Tree, config: ModelConfig, dictionary: Dictionary, tokens: Array, *, sites: Sequence[str] = (),
    edits: Sequence[Edit] = (), positions: Array | None = None, segments: Array | None = None,
    precision: Any = HIGHEST,
) -> tuple[Array, Activations]:  # fmt: skip
    """Run the model with all MLPs replaced (*Circuit Tracing*, "From cross-layer transcoder to replacement model").

    Arguments and results are those of `models.forward`: tokens [B, T] → logits [B, T, V] and activations.
    """
    kind, d = kind_of(dictionary.config), dictionary.config

    def step(written: Array, layer: int, reads: Reads) -> tuple[Array, Array]:
        x = getattr(reads, d.read_site)
        a = kind.encode_layer(dictionary.params, d, layer, x)
        written = written + kind.decode_into(dictionary.params, d, layer, a)
        y = written[layer] + dictionary.params["b_dec"][layer][None, None, :]
        if d.skip:
            y = y + einsum("btd,ed->bte", x, dictionary.params["W_skip"][layer])
        return written, y

    b, t = tokens.shape
    zeros = jnp.zeros((config.n_layers, b, t, config.d_model), params["embed"]["tokens"].dtype)
    return model_forward(
        params, config, tokens, sites=sites, edits=edits, positions=positions, segments=segments,
        swap=MlpSwap(step, zeros, d.write_site), precision=precision,
    )  # fmt: skip
