"""Dictionaries made from a model's own weights: its attention heads, and its MLPs' neurons.

Letters: L layers, D width, H heads, E their width, Q query-key heads of a Lorsa, M neurons, N features, R rows.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.core.precision import einsum
from jaxinterp.dictionaries import initialise
from jaxinterp.dictionaries.attention import Attention
from jaxinterp.dictionaries.base import Dictionary, DictionaryConfig, kind_of
from jaxinterp.models import norms
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.mlp import ACTIVATIONS, product
from jaxinterp.models.model import Model


def attention_like(model: ModelConfig, heads: int = 0, layers: tuple[int, ...] = ()) -> Attention:
    """Where a Lorsa's heads look, by the rules of a model's: rotary embedding, windows, softcap, norms, scale.

    Args:
      model: its config.
      heads: Q; 0 means as many as the model has.
      layers: the model's layers that are meant; empty means all.

    Raises:
      InputError: attention that a Lorsa cannot copy (latent, sinks, norms over all heads), or layers that turn at
        different rates.
    """
    chosen = layers or tuple(range(model.n_layers))
    windows = tuple((model.windows or (0,) * model.n_layers)[layer] for layer in chosen)
    for found, what in (
        (model.latent is not None, "latent attention"),
        (model.sinks, "attention sinks"),
        (model.qk_norm == "heads", "a norm of queries over all heads"),
        (model.qk_norm is not None and model.norm == "tanh", "Dynamic Tanh on queries"),
    ):
        if found:
            raise InputError(f"a lorsa cannot copy {what}, which the model has")
    base, scaling = model.rope_base, model.rope_scaling
    if model.rope_local_base is not None:
        if any(windows) and not all(windows):
            raise InputError("the model's layers turn at two rates: give a lorsa layers of one kind (layers)")
        if any(windows):
            base, scaling = model.rope_local_base, None
    return Attention(
        heads or model.n_heads, model.d_head, scale=model.score_scale,
        rope_base=base if model.positions == "rope" else None, rope_pairs=model.rope_pairs,
        rope_width=model.rope_width, rope_scaling=scaling if model.positions == "rope" else None,
        softcap=model.attn_softcap, window=windows if any(windows) else (0,),
        qk_norm="none" if model.qk_norm is None else "rms",
        qk_gain_offset=1.0 if model.norm_unit_offset and model.qk_norm else 0.0, eps=model.norm_eps,
    )  # fmt: skip


def _query_key(config: DictionaryConfig, model: Model) -> Tree:
    """The parameters of `dictionaries.attention` that look where the model's heads do, each of them repeated."""
    attention, own = config.attention, model.config
    assert attention is not None
    if attention.heads % own.n_heads or attention.width != own.d_head:
        raise InputError(
            f"a lorsa of {attention.heads} heads of width {attention.width} cannot start from {own.n_heads} of "
            f"{own.d_head}: the number must be a multiple, the width the same"
        )
    w = _layers(config, model)
    times = attention.heads // own.n_heads
    shape = (config.n_layers, attention.heads, attention.width)
    found: dict[str, Array] = {}
    for side, group in (("q", 1), ("k", own.group_size)):
        matrix, bias = _reading(config, model, side)
        found[f"W_{side}"] = jnp.repeat(matrix, group * times, axis=1)
        found[f"b_{side}"] = jnp.repeat(bias, group * times, axis=1)
        if attention.qk_norm != "none":
            found[f"{side}_norm"] = jnp.broadcast_to(w[f"{side}_norm"][:, None, :], shape)
    return found


def _layers(config: DictionaryConfig, model: Model) -> Tree:
    """The weights of the layers that a dictionary is of, ``[L, ...]`` each."""
    if not config.layers:
        return model.params["layers"]
    chosen = jnp.asarray(config.layers, jnp.int32)
    return jax.tree.map(lambda leaf: leaf[chosen], model.params["layers"])


def _heads(config: DictionaryConfig, model: Model) -> tuple[Array, Array, Array]:
    """Value vectors ``[L, H, D, E]``, their biases ``[L, H, E]`` and output vectors ``[L, H, E, D]`` of every head."""
    w, own = _layers(config, model), model.config
    if config.write_site != "attn_out_raw" and (config.write_site != "attn_out" or own.post_norms):
        raise InputError(
            f"a lorsa that writes {config.write_site} cannot start from heads, which write attn_out_raw"
        )
    values, biases = (jnp.repeat(part, own.group_size, axis=1) for part in _reading(config, model, "v"))
    return values, biases, w["o"]


def _reading(config: DictionaryConfig, model: Model, side: str) -> tuple[Array, Array]:
    """How queries, keys, values ("q", "k", "v") read of the read site, ``[L, H', D, E]``, and biases ``[L, H', E]``."""
    w, own = _layers(config, model), model.config
    if config.read_site not in ("attn_in", "attn_normalized"):
        raise InputError(
            f"a lorsa that reads {config.read_site} cannot start from heads, which read attn_in or attn_normalized"
        )
    matrix = jnp.moveaxis(w[side], 2, 1)
    bias = w.get(f"{side}_bias", jnp.zeros((*matrix.shape[:2], matrix.shape[3]), matrix.dtype))
    if config.read_site == "attn_in" or not own.pre_norms:
        return matrix, bias
    gain = jax.vmap(lambda weights: norms.gain(weights, own))(w["attn_norm"])
    if "bias" in w["attn_norm"]:
        bias = bias + einsum("ld,lhde->lhe", w["attn_norm"]["bias"], matrix)
    return matrix * gain[:, None, :, None], bias


def from_attention(config: DictionaryConfig, model: Model, key: Array) -> Tree:
    """A Lorsa that starts from a model's heads (Llamascopium: ``initialize_lorsa_with_mhsa``), for raw sites.

    Queries and keys are the model's. A feature writes a random direction w_o of length one among those its head can
    write, and reads ``W_V W_O w_o``: without a threshold its activation is the head's own output along w_o.
    (Llamascopium takes directions from the outputs' subspace on data, and scales w_v to length one.)

    Raises:
      InputError: sites or attention that do not go together with the model's.
    """
    attention = config.attention
    assert attention is not None
    params = {**initialise.random(config, key, model.params["embed"]["tokens"].dtype)}
    params |= _query_key(config, model)
    values, biases, outputs = _heads(config, model)
    share = config.n_features // values.shape[1]
    basis = jnp.linalg.qr(jnp.swapaxes(outputs, 2, 3))[0]  # [L, H, D, E]
    mixed = jax.random.normal(
        jax.random.fold_in(key, 1), (*values.shape[:2], share, basis.shape[-1]), basis.dtype
    )
    mixed = mixed / jnp.linalg.norm(mixed, axis=-1, keepdims=True)
    written = einsum("lhne,lhde->lhnd", mixed, basis)
    along = einsum("lhed,lhnd->lhne", outputs, written)
    shape = (config.n_layers, config.n_features, -1)
    return {
        **params,
        "W_dec": written.reshape(shape),
        "W_enc": einsum("lhde,lhne->lhnd", values, along).reshape(shape),
        "b_enc": einsum("lhe,lhne->lhn", biases, along).reshape(shape[:2]),
        "b_dec": _layers(config, model).get("o_bias", params["b_dec"]),
    }


def attention_as_lorsa(
    model: Model, read_site: str = "attn_in", write_site: str = "attn_out_raw"
) -> Dictionary:
    """A model's attention itself, exactly: two ReLU features for each entry of each head, one for each sign.

    What a Lorsa must beat, and a check of its every part.
    """
    own = model.config
    entries = 2 * own.d_head
    config = DictionaryConfig(
        "lorsa", own.n_layers, entries * own.n_heads, own.d_model, activation="relu", read_site=read_site,
        write_site=write_site, model_name=model.name, attention=attention_like(own),
    )  # fmt: skip
    values, biases, outputs = _heads(config, model)
    vectors = jnp.swapaxes(values, 2, 3)
    shape = (config.n_layers, config.n_features, own.d_model)
    signs = jnp.concatenate([jnp.ones(own.d_head), -jnp.ones(own.d_head)]).astype(values.dtype)

    def both(rows: Array) -> Array:
        return jnp.concatenate([rows, rows], axis=2) * signs[None, None, :, None]

    params = {
        **_query_key(config, model),
        "W_enc": both(vectors).reshape(shape),
        "b_enc": both(biases[..., None]).reshape(shape[:2]),
        "W_dec": both(outputs).reshape(shape),
        "b_dec": _layers(config, model).get("o_bias", jnp.zeros((own.n_layers, own.d_model), values.dtype)),
    }
    return Dictionary(params, config, "attention")


def neurons(model: Model, config: DictionaryConfig, x: Array) -> tuple[Array, Array, Array, Array]:
    """The neurons of a model's MLPs as directions: what they read, biases, what they write, and their activations.

    Of a gated MLP the gate's direction is what a neuron reads.

    Args:
      x: read-site values ``[L, R, D]``, of ``mlp_in`` or ``mlp_normalized``.

    Returns:
      ``[L, M, D]``, ``[L, M]``, ``[L, M, D]`` and ``[L, R, M]``.
    """
    own, w = model.config, _layers(config, model)
    if own.experts is not None:
        raise InputError("start: a mixture of experts has no neurons of its own for every token")
    if config.read_site not in ("mlp_in", "mlp_normalized"):
        raise InputError(f"start: neurons read mlp_in or mlp_normalized, not {config.read_site}")
    if config.write_site != "mlp_out_raw" and (config.write_site != "mlp_out" or own.post_norms):
        raise InputError(f"start: neurons write mlp_out_raw, not {config.write_site}")
    up, gate = w["up"], w["gate" if own.gated else "up"]
    up_bias = w.get("up_bias", jnp.zeros_like(up[:, 0]))
    bias = w.get("gate_bias" if own.gated else "up_bias", jnp.zeros_like(up[:, 0]))
    if config.read_site == "mlp_normalized" and own.pre_norms:
        shift = w["mlp_norm"].get("bias", jnp.zeros_like(up[:, :, 0]))
        up_bias, bias = (b + einsum("ld,ldm->lm", shift, m) for b, m in ((up_bias, up), (bias, gate)))
        factor = jax.vmap(lambda weights: norms.gain(weights, own))(w["mlp_norm"])
        up, gate = up * factor[:, :, None], gate * factor[:, :, None]
    hidden = einsum("lrd,ldm->lrm", x, up) + up_bias[:, None, :]
    if own.gated:
        opened = einsum("lrd,ldm->lrm", x, gate) + bias[:, None, :]
        active = product(own.activation, opened, hidden)
    else:
        active = ACTIVATIONS[own.activation](hidden)
    return jnp.swapaxes(gate, 1, 2), bias, w["down"], active


def from_neurons(config: DictionaryConfig, model: Model, key: Array, x: Array) -> Tree:
    """A transcoder that starts from a model's neurons (Llamascopium: ``initialize_tc_with_mlp``), for raw sites.

    Each feature is a neuron with its nonlinearity made a ReLU: it reads what the neuron (its gate) reads, writes what
    the neuron writes, times the factor that fits the neuron's activations on ``x`` best. Into later layers it writes
    nothing yet. Of more neurons than features those are taken that write most on ``x``; features beyond the neurons
    start at random, silent. The decoder bias is what is left on average. A ReLU MLP is met exactly.

    Args:
      x: read-site values ``[L, R, D]``.

    Raises:
      InputError: a kind without layers of its own, sites that neurons do not read or write, or experts.
    """
    kind = kind_of(config)
    if kind.maps or kind.sequences or kind.groups(config) != config.n_layers:
        raise InputError(f"start: features of a {config.kind} cannot start from neurons")
    read, bias, write, active = neurons(model, config, x)
    opened = jnp.maximum(einsum("lrd,lmd->lrm", x, read) + bias[:, None, :], 0.0)
    squares = jnp.sum(opened * opened, axis=1)
    fit = jnp.sum(opened * active, axis=1) / jnp.where(squares > 0, squares, jnp.ones_like(squares))
    strength = jnp.sum(active * active, axis=1) * jnp.sum(write * write, axis=-1)
    n = min(config.n_features, read.shape[1])
    best = jnp.sort(jax.lax.top_k(strength, n)[1], axis=1)
    params = initialise.random(config, key, x.dtype)

    def filled(old: Array, rows: Array) -> Array:
        index = best.reshape(*best.shape, *(1,) * (rows.ndim - 2))
        taken = jnp.take_along_axis(rows, index, axis=1)
        return jnp.concatenate([taken, old[:, n:]], axis=1)

    params = {
        **params, "W_enc": filled(params["W_enc"], read),
        "b_enc": filled(jnp.zeros_like(params["b_enc"]), bias),
    }  # fmt: skip
    own = filled(jnp.zeros((*params["b_enc"].shape, config.d_out), x.dtype), write * fit[:, :, None])
    params = kind.with_decoders(
        params, config,
        {(s, t): own[s] if s == t else jnp.zeros_like(own[s]) for s, t in kind.writes(config)},
    )  # fmt: skip
    whole = dataclasses.replace(config, activation="relu", k=0, ranked=False, skip=False)
    bare: dict[str, Any] = {**params, "b_dec": jnp.zeros_like(params["b_dec"])}
    a = kind.encode(bare, whole, x)
    out = einsum("lrm,lmd->lrd", active, write)
    if "down_bias" in (w := _layers(config, model)):
        out = out + w["down_bias"][:, None, :]
    return {**params, "b_dec": jnp.mean(out - kind.decode(bare, whole, a, x), axis=1)}
