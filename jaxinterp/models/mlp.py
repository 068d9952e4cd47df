"""The MLP of a layer. Letters: B batch, T position, D width, M width of the MLP."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxinterp.core.letters import Array, Tree
from jaxinterp.core.precision import wide, wide_einsum
from jaxinterp.models import experts
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.experts import Dispatch
from jaxinterp.models.norms import add_bias

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": jax.nn.silu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
}


# GPT-OSS: the bounds of gate and up, the sharpness of its sigmoid and what is added to up.
LIMIT, SHARPNESS, SHIFT = 7.0, 1.702, 1.0


def product(activation: str, gate: Array, up: Array) -> Array:
    """What a gated MLP does between its matrices: ``act(gate) * up``, both [..., M].

    "clipped_swish" (GPT-OSS) bounds both and shifts ``up`` by one.
    """
    dtype, gate, up = gate.dtype, wide(gate), wide(up)
    if activation == "clipped_swish":
        gate, up = jnp.minimum(gate, LIMIT), jnp.clip(up, -LIMIT, LIMIT)
        return (gate * jax.nn.sigmoid(SHARPNESS * gate) * (up + SHIFT)).astype(dtype)
    return (ACTIVATIONS[activation](gate) * up).astype(dtype)


def mlp(w: Tree, config: ModelConfig, x: Array, precision: Any, dispatch: Dispatch = "sparse") -> Array:
    """x [B, T, D] → [B, T, D]: ``act(x up) down``, or ``(act(x gate) * (x up)) down`` when gated.

    A layer with ``experts`` among its weights is a mixture of them; see `experts.apply` for ``dispatch``.
    """
    if "experts" in w:
        assert config.experts is not None
        between = partial(product, config.activation)
        return experts.apply(w["experts"], config.experts, x, between, dispatch, precision)
    hidden = add_bias(jnp.einsum("btd,dm->btm", x, w["up"], precision=precision), w.get("up_bias"))
    if config.gated:
        gate = add_bias(jnp.einsum("btd,dm->btm", x, w["gate"], precision=precision), w.get("gate_bias"))
        hidden = product(config.activation, gate, hidden)
    else:
        hidden = ACTIVATIONS[config.activation](wide(hidden)).astype(x.dtype)
    out = wide_einsum("btm,md->btd", hidden, w["down"], precision=precision).astype(x.dtype)
    return add_bias(out, w.get("down_bias"))
