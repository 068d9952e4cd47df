"""Low-rank sparse attention (Lorsa, arXiv 2504.20938): features are attention heads of rank one.

``A^h = softmax(scale q kᵀ)``, ``z̃_i = A^{h(i)} (X w_v,i + b_v,i)``, ``z = σ(z̃)``, ``Y = Σ_i z_i w_o,i + b_D``: many
features share the pattern of a query-key head, each reads one direction of the tokens looked at and writes one. With
the pattern given as an argument, everything before σ is linear in X.

Parameters besides the queries and keys of `dictionaries.attention`: ``W_enc [L, N, D]`` and ``b_enc [L, N]`` are w_v
and b_v, ``W_dec [L, N, D']`` is w_o, ``b_dec`` is b_D. Features of a head stand together, in the order of the heads.

Letters: L layers, B sequences, T positions, S key positions, Q query-key heads, N features, R = B · T rows.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxinterp.core.letters import Array, Tree
from jaxinterp.core.precision import einsum
from jaxinterp.dictionaries import attention as patterns
from jaxinterp.dictionaries import encoder, transcoder
from jaxinterp.dictionaries.attention import Attention, Places, whole
from jaxinterp.dictionaries.base import Kind
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.parallel.weights import Weight, uniform

QUERY_KEY = ("W_q", "W_k", "b_q", "b_k", "q_norm", "k_norm")


def declare(config: DictionaryConfig) -> dict[str, Any]:
    """Encoder and decoder as a transcoder's, and ``W_q, W_k [L, Q, D, E]``, ``b_q, b_k [L, Q, E]``, gains if normed.

    Queries and keys start as Xavier's uniform, decoders in ±1/sqrt(D') (Llamascopium); see also `start.from_attention`.
    """
    at = attention_of(config)
    layers, d = config.n_layers, config.d_model
    tree = transcoder.declare(config)
    axes = ("layers", "heads", "width", "head_width")
    gain = "zeros" if at.qk_gain_offset else "ones"
    for side in ("q", "k"):
        tree[f"W_{side}"] = Weight(
            (layers, at.heads, d, at.width), axes, uniform((6 / (d + at.width)) ** 0.5)
        )
        tree[f"b_{side}"] = Weight((layers, at.heads, at.width), ("layers", "heads", "head_width"))
        if at.qk_norm != "none":
            tree[f"{side}_norm"] = Weight(
                (layers, at.heads, at.width), ("layers", "heads", "head_width"), gain
            )
    return tree


def attention_of(config: DictionaryConfig) -> Attention:
    """What decides where heads look."""
    assert config.attention is not None
    return config.attention


def pattern(params: Tree, config: DictionaryConfig, x: Array, places: Places | None = None) -> Array:
    """Where every query-key head looks: ``x [L, (B,) T, D]`` → ``[L, B, Q, T, S]``, rows add up to one.

    Args:
      places: positions and documents ``[B, T]``; None means one document a sequence.
    """
    return _pattern(params, config, x, places)


def _pattern(params: Tree, config: DictionaryConfig, x: Array, places: Places | None) -> Array:
    x = _batched(x)
    return patterns.pattern(params, attention_of(config), x, places or whole(*x.shape[1:3]))


def pre_activations(
    params: Tree,
    config: DictionaryConfig,
    x: Array,
    places: Places | None = None,
    pattern: Array | None = None,
) -> Array:
    """``A (X w_v + b_v)`` for ``x [L, (B,) T, D]`` → ``[L, (B,) T, N]``.

    Args:
      places: positions and documents ``[B, T]``; None means one document a sequence.
      pattern: ``[L, B, Q, T, S]``, kept instead of computed; then the result is linear in x.
    """
    values = encoder.pre_activations(params, config, _batched(x))
    found = _pattern(params, config, x, places) if pattern is None else pattern
    grouped = values.reshape(*values.shape[:3], found.shape[2], -1)
    mixed = einsum("lbqts,lbsqn->lbtqn", found, grouped)
    return mixed.reshape(*x.shape[:-1], values.shape[-1])


def encode(
    params: Tree,
    config: DictionaryConfig,
    x: Array,
    places: Places | None = None,
    pattern: Array | None = None,
) -> Array:
    """Feature activations ``z [L, (B,) T, N]``; arguments as of `pre_activations`."""
    norms = decoder_norms(params, config) if config.ranked else None
    h = pre_activations(params, config, x, places, pattern)
    return encoder.activations(params, config, h, norms)


def encode_layer(
    params: Tree, config: DictionaryConfig, layer: Any, x: Array, places: Places | None = None
) -> Array:
    """Feature activations ``[(B,) T, N]`` of one layer for its read-site values ``x [(B,) T, D]``."""
    one = {name: value[layer][None] for name, value in params.items()}
    norms = decoder_norms(one, config) if config.ranked else None
    at, given = attention_of(config), _batched(x[None])
    found = patterns.pattern(one, at, given, places or whole(*given.shape[1:3]), layer)
    h = pre_activations(one, config, x[None], pattern=found)
    return encoder.activations(one, config, h, norms)[0]


def contributions(params: Tree, config: DictionaryConfig, x: Array, features: Array, pattern: Array) -> Array:
    """What each key position adds to ``z̃`` of some features of one sequence: ``x [L, T, D]`` → ``[L, F, T, S]``.

    (Llamascopium's z patterns.) Over S they add up to the pre-activation.

    Args:
      features: ``[F]``, the same in every layer. pattern: ``[L, 1, Q, T, S]``.
    """
    values = encoder.pre_activations(params, config, x)[..., features]
    heads = features // (config.n_features // attention_of(config).heads)
    return pattern[:, 0, heads] * jnp.swapaxes(values, 1, 2)[:, :, None, :]


def _batched(x: Array) -> Array:
    """``[L, B, T, D]`` of ``[L, T, D]`` or of itself."""
    if x.ndim not in (3, 4):
        raise ValueError(f"a lorsa reads [layers, sequences, positions, width], not {x.ndim} axes")
    return x[:, None] if x.ndim == 3 else x


def on_rows(places: Places, rows: Array | None = None) -> Kind:
    """The kind for sequences whose positions stand in one axis, as a trainer has them.

    Args:
      places: of those sequences, ``[B, T]``.
      rows: numbers ``[R']`` of the B · T rows whose features are wanted; the others are only looked at. None means all.

    Returns:
      Functions for which ``x`` is ``[L, B T, D]`` and features are ``[L, R', N]``.
    """

    def flat(function: Any) -> Any:
        def call(params: Tree, config: DictionaryConfig, x: Array) -> Array:
            found = function(params, config, x.reshape(x.shape[0], *places.positions.shape, -1), places)
            found = found.reshape(found.shape[0], -1, found.shape[-1])
            return found if rows is None else jnp.take(found, rows, axis=1)

        return call

    return KIND._replace(pre_activations=flat(pre_activations), encode=flat(encode))


def scale_sites(params: Tree, config: DictionaryConfig, read: Array, write: Array) -> dict[str, Any]:
    """See `Kind.scale_sites`: queries and keys read the same site as values."""
    changed = transcoder.scale_sites(params, config, read, write)
    return changed | {name: params[name] * read[:, None, None, None] for name in ("W_q", "W_k")}


def belongs(config: DictionaryConfig, which: Array) -> dict[str, Any]:
    """See `Kind.belongs`. Queries and keys are shared and belong to no one feature."""
    nothing = {name: jnp.zeros((1,) * (4 if name.startswith("W") else 3), bool) for name in QUERY_KEY}
    return {**transcoder.belongs(config, which), **nothing}


decoder_norms = transcoder.decoder_norms

KIND = transcoder.KIND._replace(
    declare=declare,
    pre_activations=pre_activations,
    encode=encode,
    encode_layer=encode_layer,
    scale_sites=scale_sites,
    belongs=belongs,
    sequences=True,
)
