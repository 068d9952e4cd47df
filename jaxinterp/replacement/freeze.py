"""Run a model once and keep what the local replacement model holds fixed.

*Circuit Tracing* (2025), "Local replacement model": attention patterns and normalisation denominators are
those of the prompt. Letters: B batch, T position, D width, L layers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxinterp.core.letters import Array, Tree
from jaxinterp.models.block import Frozen
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import HIGHEST, forward


class Run(NamedTuple):
    """A model's run on a prompt: what is frozen, and the values that a graph is made of.

    Attributes:
      frozen: patterns and denominators, stacked over layers.
      final_scale: [B, T, 1] denominator of the final norm.
      embed: [B, T, D] token embeddings (and learned positions) as they enter the residual stream.
      read: [L, B, T, D] what the dictionary's encoders read.
      write: [L, B, T, D] what its decoders reconstruct.
      final_norm: [B, T, D] what the unembedding reads.
      logits: [B, T, V].
    """

    frozen: Frozen
    final_scale: Array
    embed: Array
    read: Array
    write: Array
    final_norm: Array
    logits: Array


def freeze(
    params: Tree,
    config: ModelConfig,
    tokens: Array,
    *,
    read_site: str,
    write_site: str,
    precision: Any = HIGHEST,
) -> Run:
    """Run the model on tokens [B, T] and keep a `Run`.

    Args:
      params, config: the model.
      tokens: [B, T].
      read_site, write_site: the dictionary's sites (`models.sites.SITES`).

    Nothing here stops gradients: an edge may be differentiated by the model's weights, patterns included.
    """
    sites = [
        "embed",
        "pattern",
        "attn_scale",
        "mlp_scale",
        "final_scale",
        "final_norm",
        read_site,
        write_site,
    ]
    if config.post_norms:
        sites += ["attn_post_scale", "mlp_post_scale"]
    if config.latent is not None:
        sites += ["latent_scale"]
    logits, found = forward(params, config, tokens, sites=sites, precision=precision)
    return Run(
        frozen=Frozen(
            found.pattern,
            found.attn_scale,
            found.mlp_scale,
            found.attn_post_scale,
            found.mlp_post_scale,
            found.latent_scale,
        ),
        final_scale=found.final_scale,
        embed=found.embed,
        read=getattr(found, read_site),
        write=getattr(found, write_site),
        final_norm=found.final_norm,
        logits=logits,
    )
