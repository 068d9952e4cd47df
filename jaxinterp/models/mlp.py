"""The MLP of a layer. Letters: B batch, T position, D width, M width of the MLP."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxinterp.core.letters import Array, Tree
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.norms import add_bias

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": jax.nn.silu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
}


def mlp(w: Tree, config: ModelConfig, x: Array, precision: Any) -> Array:
    """x [B, T, D] → [B, T, D]: ``act(x up) down``, or ``(act(x gate) * (x up)) down`` when gated."""
    act = ACTIVATIONS[config.activation]
    hidden = add_bias(jnp.einsum("btd,dm->btm", x, w["up"], precision=precision), w.get("up_bias"))
    if config.gated:
        gate = add_bias(jnp.einsum("btd,dm->btm", x, w["gate"], precision=precision), w.get("gate_bias"))
        hidden = act(gate) * hidden
    else:
        hidden = act(hidden)
    return add_bias(jnp.einsum("btm,md->btd", hidden, w["down"], precision=precision), w.get("down_bias"))
