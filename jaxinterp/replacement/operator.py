"""The local replacement model as a linear operator from sources to what targets read.

With patterns, denominators and feature activations given, everything between a source and a target is
linear (*Circuit Tracing*, "Attribution graphs"; the Jacobian there is this operator). The code is the
decoder's own, with frozen values in place of computed ones, and `jax.linear_transpose` makes the way back.

Letters: C cotangents, T position, D width, L layers.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxinterp.core.letters import Array, Tree
from jaxinterp.core.precision import einsum
from jaxinterp.models import norms
from jaxinterp.models.block import Frozen, Units, after_mlp, before_mlp
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import HIGHEST
from jaxinterp.models.model import require_ours
from jaxinterp.models.norms import Line
from jaxinterp.replacement.freeze import Run


class LayerSources(NamedTuple):
    """What enters at one layer; with a leading L for all layers.

    Attributes:
      write: [T, D] added where the dictionary writes: feature contributions and errors.
      decoder: [T] factor on the dictionary's decoder bias.
      attention: [T] factor on the biases of the attention (values at the key's position, output at the query's).
      norm: [T] factor on the biases of the layer's norms.
    """

    write: Array
    decoder: Array
    attention: Array
    norm: Array


class Sources(NamedTuple):
    """The operator's input. Biases enter as factors that are one in the model itself.

    Attributes:
      embed: [T, D] token embeddings, scaled, without learned positions.
      position: [T] factor on the learned position embedding.
      layers: `LayerSources`, every field with a leading L.
      final: [T] factor on the bias of the final norm.
    """

    embed: Array
    position: Array
    layers: LayerSources
    final: Array


class Reads(NamedTuple):
    """The operator's output: what encoders read [L, T, D] and what the unembedding reads [T, D]."""

    read: Array
    final: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ReplacementOperator:
    """`apply` maps `Sources` to `Reads`; `transpose` maps cotangents back.

    Attributes:
      params: the decoder's weights. frozen, final: from `freeze`, batch of one.
      decoder_bias: [L, D]; skip: [L, D, D] (output, input) or None.
      positions: [T, D] learned position embeddings, or None.
      config, read_site, write_site: static.
    """

    params: Tree
    frozen: Frozen
    final: Line
    decoder_bias: Array
    skip: Array | None
    positions: Array | None
    config: ModelConfig = dataclasses.field(metadata={"static": True})
    read_site: str = dataclasses.field(metadata={"static": True})
    write_site: str = dataclasses.field(metadata={"static": True})

    @property
    def n_tokens(self) -> int:
        """T."""
        return self.final.scale.shape[1]

    @property
    def in_structure(self) -> Sources:
        """Shapes and dtypes of `Sources`."""
        t, d, n, dtype = self.n_tokens, self.config.d_model, self.config.n_layers, self.decoder_bias.dtype

        def like(*shape: int) -> Any:
            return jax.ShapeDtypeStruct(shape, dtype)

        layers = LayerSources(like(n, t, d), like(n, t), like(n, t), like(n, t))
        return Sources(like(t, d), like(t), layers, like(t))

    @property
    def out_structure(self) -> Reads:
        """Shapes and dtypes of `Reads`."""
        t, d, dtype = self.n_tokens, self.config.d_model, self.decoder_bias.dtype
        read: Any = jax.ShapeDtypeStruct((self.config.n_layers, t, d), dtype)
        final: Any = jax.ShapeDtypeStruct((t, d), dtype)
        return Reads(read, final)

    def apply(self, sources: Sources) -> Reads:
        """Run the replacement model forward on given sources."""

        def step(x: Array, inputs: Any) -> tuple[Array, Array]:
            layer, one = inputs
            return layer_apply(self, layer, x, one)

        stacked = (layer_slices(self), sources.layers)
        x, reads = jax.lax.scan(step, self.start(sources.embed, sources.position), stacked)
        return Reads(reads, self.end(x, sources.final))

    def transpose(self, reads: Reads) -> Sources:
        """The transposed operator: cotangents of `Reads` to cotangents of `Sources`."""
        return jax.linear_transpose(self.apply, self.in_structure)(reads)[0]

    def start(self, embed: Array, position: Array) -> Array:
        """[T, D] residual stream before layer 0."""
        return embed if self.positions is None else embed + position[:, None] * self.positions

    def end(self, x: Array, final: Array) -> Array:
        """[T, D] residual stream after the last layer → [T, D] what the unembedding reads."""
        normed = norms.divide(x[None], self.final, self.config, final[None])
        return norms.affine(normed, self.params["final_norm"], self.config, final[None])[0]


class LayerSlice(NamedTuple):
    """Everything of one layer that the frozen block needs; with a leading L for all layers."""

    weights: Tree
    frozen: Frozen
    decoder_bias: Array
    skip: Array | None


def layer_slices(operator: ReplacementOperator) -> LayerSlice:
    """The per-layer parts, stacked over layers."""
    return LayerSlice(operator.params["layers"], operator.frozen, operator.decoder_bias, operator.skip)


def layer_apply(
    operator: ReplacementOperator, layer: LayerSlice, x: Array, sources: LayerSources
) -> tuple[Array, Array]:
    """One frozen layer: residual stream [T, D] and sources → residual stream [T, D] and read [T, D]. Linear.

    The skip of a dictionary is part of the map: what it writes is linear in what it reads.
    """
    units = Units(sources.attention[None], sources.norm[None])
    config = operator.config
    reads, _ = before_mlp(layer.weights, config, x[None], frozen=layer.frozen, units=units, precision=HIGHEST)
    read = getattr(reads, operator.read_site)
    total = sources.write[None] + sources.decoder[None, :, None] * layer.decoder_bias[None, None]
    if layer.skip is not None:
        total = total + einsum("btd,ed->bte", read, layer.skip)
    out, raw = (total, None) if operator.write_site == "mlp_out" else (None, total)
    x = after_mlp(layer.weights, config, reads.resid_mid, out, raw, frozen=layer.frozen, units=units)[0]
    return x, read[0]


def layer_transpose(
    operator: ReplacementOperator, layer: LayerSlice, x_bar: Array, read_bar: Array
) -> tuple[Array, LayerSources]:
    """The transposed `layer_apply`: cotangents [T, D] of both outputs → those of x [T, D] and of the sources."""
    t, d, dtype = operator.n_tokens, operator.config.d_model, operator.decoder_bias.dtype
    vector: Any = jax.ShapeDtypeStruct((t, d), dtype)
    factor: Any = jax.ShapeDtypeStruct((t,), dtype)
    back = jax.linear_transpose(
        lambda x, sources: layer_apply(operator, layer, x, sources),
        vector,
        LayerSources(vector, factor, factor, factor),
    )
    return back((x_bar, read_bar))


def make_operator(
    params: Tree, config: ModelConfig, run: Run, *, decoder_bias: Array, skip: Array | None, read_site: str,
    write_site: str,
) -> ReplacementOperator:  # fmt: skip
    """The operator of a prompt (batch of one) and a dictionary's bias [L, D] and skip [L, D, D] or None.

    Raises:
      InputError: a config that is not of our decoder.
    """
    require_ours(config, ModelConfig)
    t = run.embed.shape[1]
    if run.embed.shape[0] != 1:
        raise ValueError(f"the operator is of one prompt, not of {run.embed.shape[0]}: use vmap")
    positions = params["embed"]["positions"][:t] if config.positions == "learned" else None
    return ReplacementOperator(
        params, run.frozen, run.final, decoder_bias, skip, positions, config, read_site, write_site
    )


def model_sources(operator: ReplacementOperator, run: Run, write: Array) -> Sources:
    """The sources that make the operator repeat the model: ``write`` [L, T, D] and every factor one.

    ``write`` leaves out the decoder bias and the skip, which the operator adds itself.
    """
    ones = jax.tree.map(lambda s: jnp.ones(s.shape, s.dtype), operator.in_structure)
    embed = run.embed[0] if operator.positions is None else run.embed[0] - operator.positions
    return ones._replace(embed=embed, layers=ones.layers._replace(write=write))
