"""Run a model once and keep what the local replacement model holds fixed.

*Circuit Tracing* (2025), "Local replacement model": attention patterns and normalisation denominators are
those of the prompt. A Dynamic Tanh has no denominator; it is kept as a straight line for each entry, of which there are
two that meet it where the prompt is: the `norms.secant` through the origin, which like a denominator multiplies what
comes, and the `norms.tangent`, which says what small changes do and leaves a constant.

Letters: B batch, T position, D width, L layers; of a Lorsa N layers, Q query-key heads, S key position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries import lorsa
from jaxinterp.dictionaries.base import Dictionary, kind_of
from jaxinterp.models import latent, norms
from jaxinterp.models.block import Frozen
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import HIGHEST, forward
from jaxinterp.models.model import require_ours
from jaxinterp.models.norms import Line
from jaxinterp.models.sites import Activations
from jaxinterp.replacement.mlps import MlpLine, mlp_lines
from jaxinterp.replacement.parts import Place, needs_mlp

LINES = ("secant", "tangent")
_READ_BY_NORMS = ("resid_pre", "attn_in", "attn_out_raw", "resid_mid", "mlp_out_raw")


class Run(NamedTuple):
    """A model's run on a prompt: what is frozen, and the values that a graph is made of.

    Attributes:
      frozen: patterns and norms, stacked over layers.
      final: what stands for the final norm.
      embed: [B, T, D] token embeddings (and learned positions) as they enter the residual stream.
      read: for each place [L, B, T, D], what encoders read; None where there is no dictionary.
      write: for each place [L, B, T, D], what is replaced there.
      final_norm: [B, T, D] what the unembedding reads.
      logits: [B, T, V].
      patterns: for each place [N, B, Q, T, S], where the heads of a Lorsa look; None where there is none.
      mlps: what stands for MLPs that are not replaced, [L, B, T, D] each; None where all are.
    """

    frozen: Frozen
    final: Line
    embed: Array
    read: tuple[Array | None, ...]
    write: tuple[Array, ...]
    final_norm: Array
    logits: Array
    patterns: tuple[Array | None, ...]
    mlps: MlpLine | None


def freeze(
    params: Tree,
    config: ModelConfig,
    tokens: Array,
    *,
    places: tuple[Place, ...],
    dictionaries: Sequence[Dictionary | None] = (),
    dynamic_tanh: str = "secant",
    precision: Any = HIGHEST,
) -> Run:
    """Run the model on tokens [B, T] and keep a `Run`.

    Args:
      params, config: the model.
      tokens: [B, T].
      places: where dictionaries stand, from `parts.places`.
      dictionaries: the Lorsas among those that `parts.places` was given, the others may be None; none need be given
        where there is no Lorsa.
      dynamic_tanh: what stands for a Dynamic Tanh, "secant" or "tangent"; other norms do not depend on it.

    Raises:
      InputError: another ``dynamic_tanh``.

    Nothing here stops gradients: an edge may be differentiated by the model's weights, patterns included.
    """
    require_ours(config, ModelConfig)
    if dynamic_tanh not in LINES:
        raise InputError(f"dynamic_tanh is {dynamic_tanh!r}, expected one of {', '.join(LINES)}")
    tangent = config.norm == "tanh" and dynamic_tanh == "tangent"
    sites = {"embed", "pattern", "attn_scale", "mlp_scale", "final_scale", "final_norm"}
    sites |= {place.write_site for place in places}
    sites |= {place.read_site for place in places if place.read_site is not None}
    if config.post_norms:
        sites |= {"attn_post_scale", "mlp_post_scale"}
    if config.latent is not None:
        sites |= {"latent_scale"}
    if tangent:
        sites |= {*_READ_BY_NORMS, "resid_post"}
    live_mlps = needs_mlp(places, config.n_layers)
    if live_mlps:
        sites |= {"mlp_in", "mlp_out_raw"}
    logits, found = forward(params, config, tokens, sites=sorted(sites), precision=precision)
    frozen, final = _lines(config, found), Line(found.final_scale)
    if tangent:
        read = {name: getattr(found, name) for name in _READ_BY_NORMS}
        frozen = jax.vmap(partial(_tangents, config=config, precision=precision))(
            frozen, params["layers"], read
        )
        final = norms.tangent(found.resid_post[-1], params["final_norm"]["alpha"])
    reads = tuple(None if place.read_site is None else getattr(found, place.read_site) for place in places)
    return Run(
        frozen=frozen,
        final=final,
        embed=found.embed,
        read=reads,
        write=tuple(getattr(found, place.write_site) for place in places),
        final_norm=found.final_norm,
        logits=logits,
        patterns=tuple(
            lorsa_pattern(dictionaries[place.dictionary], place, read)
            if read is not None and place.dictionary is not None and place.dictionary < len(dictionaries)
            else None
            for place, read in zip(places, reads, strict=True)
        ),
        mlps=mlp_lines(params, config, found.mlp_in, found.mlp_out_raw, precision) if live_mlps else None,
    )


def lorsa_pattern(dictionary: Dictionary | None, place: Place, read: Array) -> Array | None:
    """Where the heads of a Lorsa look, [N, B, Q, T, S], given what it reads in every layer [L, B, T, D].

    Kept fixed, they make pre-activations linear: ``h[t, i] = Σ_s A[t, s] (w_v,i · x[s]) + b_v,i``, so that a target
    (layer, t, i) is the vector ``A[t, s] w_v,i`` injected at every position s of the read site.
    None for a dictionary whose features read their own position only, or for none.
    """
    if dictionary is None or not kind_of(dictionary.config).sequences:
        return None
    covered = read if len(place.layers) == read.shape[0] else read[jnp.asarray(place.layers, jnp.int32)]
    return lorsa.pattern(dictionary.params, dictionary.config, covered)


def _lines(config: ModelConfig, found: Activations) -> Frozen:
    """The pattern and the norms by their denominators, stacked over layers."""
    post = config.post_norms
    return Frozen(
        found.pattern,
        Line(found.attn_scale),
        Line(found.mlp_scale),
        Line(found.attn_post_scale) if post else None,
        Line(found.mlp_post_scale) if post else None,
        Line(found.latent_scale) if config.latent is not None else None,
    )


def _tangents(frozen: Frozen, w: Tree, x: Mapping[str, Array], config: ModelConfig, precision: Any) -> Frozen:
    """One layer with tangents in place of its Dynamic Tanhs, given what they read."""
    if config.pre_norms:
        frozen = frozen._replace(
            attn=norms.tangent(x["resid_pre"], w["attn_norm"]["alpha"]),
            mlp=norms.tangent(x["resid_pre" if config.parallel else "resid_mid"], w["mlp_norm"]["alpha"]),
        )
    if config.post_norms:
        frozen = frozen._replace(
            attn_post=norms.tangent(x["attn_out_raw"], w["attn_post_norm"]["alpha"]),
            mlp_post=norms.tangent(x["mlp_out_raw"], w["mlp_post_norm"]["alpha"]),
        )
    if config.latent is not None:
        compressed = latent.compress(w, x["attn_in"], None, precision)
        frozen = frozen._replace(latent=norms.tangent(compressed, w["kv_norm_alpha"]))
    return frozen
