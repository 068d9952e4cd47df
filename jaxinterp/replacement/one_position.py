"""What an MLP's dictionary reads at one position of a frozen layer, as a linear function of the layer's input.

The same numbers as `layer.layer_apply` gives there, for less: attention to one position mixes the inputs of the layer
first, head by head, and then projects one vector a head instead of one a position. Transposed, this is how a target
enters a layer.

Letters: T position, D width, H heads, K key/value heads, G heads of each of those, E head width.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxinterp.core.letters import Array
from jaxinterp.dictionaries.config import MLP_READS
from jaxinterp.models import norms
from jaxinterp.models.norms import Line
from jaxinterp.models.sites import VECTOR_SITES
from jaxinterp.replacement.layer import LayerSlice
from jaxinterp.replacement.operator import ReplacementOperator


def fits(operator: ReplacementOperator, place: int) -> bool:
    """Whether `read_at` gives what ``place`` reads: frozen layers, attention that is not replaced and not latent."""
    where = operator.places[place]
    late = VECTOR_SITES.index("mlp_out_raw")
    return (
        not operator.live
        and operator.config.latent is None
        and where.read_site in MLP_READS
        and all(VECTOR_SITES.index(other.write_site) >= late for other in operator.places)
    )


def read_at(
    operator: ReplacementOperator, layer: LayerSlice, site: str, position: Array, x: Array, attention: Array,
    norm: Array,
) -> Array:  # fmt: skip
    """What is read at ``site`` and ``position``: [D]. Linear in the residual stream x [T, D] and in both factors [T].

    Args:
      site: one of `MLP_READS`. position: [] integer.
      attention, norm: factors on the biases of attention and norms, as in `layer.LayerSources`.
    """
    w, config, frozen = layer.weights, operator.config, layer.frozen

    def product(spec: str, *operands: Array) -> Array:
        return jnp.einsum(spec, *operands, precision=operator.precision)

    def here(line: Line | None) -> Any:
        def cut(leaf: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(leaf, position, 1, axis=1)

        return jax.tree.map(cut, line)

    own = (jnp.arange(x.shape[0], dtype=jnp.int32) == position).astype(x.dtype)
    at, norm_at, attention_at = (
        product("t,td->d", own, x), (own @ norm)[None, None], own @ attention,
    )  # fmt: skip
    a = x[None]
    if config.pre_norms:
        a = norms.affine(norms.divide(a, frozen.attn, config, norm[None]), w["attn_norm"], config, norm[None])
    looks = frozen.pattern[0][:, position]  # [H, T]
    mixed = product("ht,td->hd", looks, a[0]).reshape(config.n_kv_heads, -1, a.shape[-1])
    z = product("kgd,dke->kge", mixed, w["v"])
    if "v_bias" in w:
        seen = product("ht,t->h", looks, attention).reshape(config.n_kv_heads, -1)
        z = z + seen[:, :, None] * w["v_bias"][:, None]
    out = product("he,hed->d", z.reshape(config.n_heads, -1), w["o"])
    if "o_bias" in w:
        out = out + attention_at * w["o_bias"]
    out = out[None, None]
    if config.post_norms:
        out = norms.divide(out, here(frozen.attn_post), config, norm_at)
        out = norms.affine(out, w["attn_post_norm"], config, norm_at)
    mid = at[None, None] + out
    if site == "resid_mid":
        return mid[0, 0]
    read = at[None, None] if config.parallel else mid
    if config.pre_norms:
        read = norms.divide(read, here(frozen.mlp), config, norm_at)
        if site == "mlp_in":
            read = norms.affine(read, w["mlp_norm"], config, norm_at)
    return read[0, 0]
