"""What a model costs, as functions of its config: parameters, operations and bytes. Nothing is computed or compiled.

Letters: B batch, T query position, S key position, D width, H heads, K key/value heads, E head width, M width of the
MLP, L layers, V vocabulary, X experts, A experts a token is sent to, F width of an expert, C and R ranks of latent
attention, N = B·T.

An operation is a multiplication or an addition of a matrix product; elementwise work is left out, as in
`jaxinterp.core.flops`, which counts the same from a program.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxinterp.core.errors import InputError
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import forward
from jaxinterp.models.experts import DISPATCHES
from jaxinterp.models.sites import check_sites
from jaxinterp.models.weights import declare
from jaxinterp.parallel import weights


class Flops(NamedTuple):
    """Operations of a forward pass by part; their sum is ``total``.

    Attributes:
      projections: of attention: queries, keys, values, output.
      scores: queries with keys, and pattern with values: what grows with the square of the length.
      mlp: MLPs and experts, routers included.
      unembedding: logits.
    """

    projections: int
    scores: int
    mlp: int
    unembedding: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self)


def forward_flops(
    config: ModelConfig, batch: int, length: int, *, keys: int | None = None, dispatch: str = "sparse",
    logits: bool = True,
) -> Flops:  # fmt: skip
    """Operations of a forward pass over [batch, length] tokens.

    Scores are counted for every query and key, also for those that a query does not see: that is what is computed.

    Args:
      keys: positions that are attended over, T where None; more with a cache.
      dispatch: of experts, "sparse" or "dense"; see `experts.apply`.
      logits: whether logits are computed.

    Raises:
      InputError: sizes below one, or another dispatch.
    """
    keys = length if keys is None else keys
    if min(batch, length, keys) < 1:
        raise InputError(f"batch {batch}, length {length} and keys {keys} must be at least 1")
    if dispatch not in DISPATCHES:
        raise InputError(f"dispatch is {dispatch!r}, expected one of {', '.join(DISPATCHES)}")
    n, d, h = batch * length, config.d_model, config.n_heads
    experts = config.experts
    dense = config.n_layers if experts is None else len(experts.dense_layers)
    mlp = dense * 2 * n * d * config.d_mlp * (3 if config.gated else 2)
    if experts is not None:
        mlp += (config.n_layers - dense) * _experts(config, n, dispatch)
    return Flops(
        config.n_layers * _projections(config, n),
        config.n_layers * 2 * n * keys * h * (config.d_head + config.d_value),
        mlp,
        2 * n * d * config.vocab_size * logits,
    )


def _projections(config: ModelConfig, n: int) -> int:
    d, h, e = config.d_model, config.n_heads, config.d_head
    out = h * config.d_value * d
    latent = config.latent
    if latent is None:
        return 2 * n * (d * (h + config.n_kv_heads) * e + d * config.n_kv_heads * e + out)
    queries = d * h * e if latent.q_rank is None else latent.q_rank * (d + h * e)
    keys_and_values = latent.kv_rank * (d + h * (latent.d_plain + latent.d_value)) + d * latent.d_turned
    return 2 * n * (queries + keys_and_values + out)


def _experts(config: ModelConfig, n: int, dispatch: str) -> int:
    experts, d = config.experts, config.d_model
    assert experts is not None
    x, a, f = experts.n, experts.active, experts.d_expert
    each = 2 * n * (a if dispatch == "sparse" else x) * d * (3 * f + 1)  # one more to weight and add up
    spread = 0 if dispatch == "sparse" else 2 * n * a * x
    return 2 * n * d * x + each + spread + 3 * 2 * n * d * experts.d_shared


def active_params(config: ModelConfig) -> int:
    """Parameters that a token goes through: all but the experts that it is not sent to."""
    idle = 0
    if config.experts is not None:
        x, a = config.experts.n, config.experts.active
        for name, weight in weights.leaves(declare(config)).items():
            if "experts" in weight.axes:
                one = weights.size({name: weight}) // x
                idle += one * (x - a)
    return config.n_params() - idle


def weight_bytes(config: ModelConfig, dtype: Any = "bfloat16") -> int:
    """Bytes of all weights."""
    return config.n_params() * jnp.dtype(dtype).itemsize


def cache_bytes(config: ModelConfig, batch: int, length: int, dtype: Any = "bfloat16") -> int:
    """Bytes of a key/value cache for [batch, length] tokens (`decoder.empty_cache`).

    Latent attention is cached as the keys and values that come of it, not as the latent.
    """
    width = config.n_kv_heads * (config.d_head + config.d_value) * jnp.dtype(dtype).itemsize
    places = 2 * 4  # position and document, int32
    return config.n_layers * (batch * length * (width + places) + 4)


def site_bytes(
    config: ModelConfig, sites: Iterable[str], batch: int, length: int, dtype: Any = "bfloat16"
) -> int:
    """Bytes of what a forward pass over [batch, length] tokens returns for sites, of all layers."""
    asked = tuple(check_sites(sites))
    params = weights.abstract(declare(config), jnp.dtype(dtype))
    tokens = jax.ShapeDtypeStruct((batch, length), jnp.int32)
    _, found = jax.eval_shape(lambda p, t: forward(p, config, t, sites=asked), params, tokens)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(found))


def summary(config: ModelConfig, length: int = 1024, dtype: Any = "bfloat16") -> dict[str, Any]:
    """Parameters, bytes in ``dtype`` and operations a token in sequences of ``length`` tokens, as JSON values."""
    length = min(length, config.context)
    return {
        "parameters": config.n_params(),
        "active_parameters": active_params(config),
        "weight_bytes": weight_bytes(config, dtype),
        "flops_per_token": forward_flops(config, 1, length).total // length,
        "flops_length": length,
        "cache_bytes_per_token": cache_bytes(config, 1, 2, dtype) - cache_bytes(config, 1, 1, dtype),
        "mlp_site_bytes_per_token": site_bytes(config, ("mlp_in", "mlp_out"), 1, 1, dtype),
        "bytes_dtype": str(jnp.dtype(dtype)),
    }
