"""The local replacement model as a linear operator from sources to what targets read.

With patterns, denominators and feature activations given, everything between a source and a target is
linear (*Circuit Tracing*, "Attribution graphs"; the Jacobian there is this operator). The code is the
decoder's own, with frozen values in place of computed ones, and `jax.linear_transpose` makes the way back.

Each part of it replaces what is written at one junction of every layer that it covers: a gradient that arrives there
goes to what the part's sources write and no further (`parts`).

Letters: C cotangents, T position, D width (of a site, where sites differ), L layers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxinterp.core.letters import Array, Tree
from jaxinterp.core.precision import einsum
from jaxinterp.models import norms
from jaxinterp.models.block import Frozen
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import HIGHEST
from jaxinterp.models.model import require_ours
from jaxinterp.models.norms import Line
from jaxinterp.replacement.freeze import Run
from jaxinterp.replacement.layer import LayerSlice, LayerSources, PartArrays, Point, layer_apply
from jaxinterp.replacement.mlps import MlpLine
from jaxinterp.replacement.parts import Place, needs_mlp, site_width


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
    """The operator's output: what encoders read [L, T, D], an entry a place (None without a dictionary), and what
    the unembedding reads [T, D]."""

    read: tuple[Array | None, ...]
    final: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ReplacementOperator:
    """`apply` maps `Sources` to `Reads`; `transpose` maps cotangents back.

    Attributes:
      params: the decoder's weights. frozen, final: from `freeze`, batch of one.
      parts: `PartArrays` of each place, every field with a leading L.
      mlps: what stands for MLPs that are not replaced; None where all are.
      positions: [T, D] learned position embeddings, or None.
      points, last: where live layers, and the final norm, are linearised (``last``: residual stream [T, D] and factor
        [T]); None where they are frozen. See `linearise`.
      config, places: static.
      live: static; "norms" or "all" where layers are live, "" where they are frozen.
      precision: static; of the products of a frozen layer.
    """

    params: Tree
    frozen: Frozen
    final: Line
    parts: tuple[PartArrays, ...]
    mlps: MlpLine | None
    positions: Array | None
    config: ModelConfig = dataclasses.field(metadata={"static": True})
    places: tuple[Place, ...] = dataclasses.field(metadata={"static": True})
    points: Point | None = None
    last: tuple[Array, Array] | None = None
    live: str = dataclasses.field(default="", metadata={"static": True})
    precision: Any = dataclasses.field(default=HIGHEST, metadata={"static": True})

    @property
    def n_tokens(self) -> int:
        """T."""
        return self.final.scale.shape[1]

    @property
    def dtype(self) -> Any:
        """Of sources and reads."""
        return self.params["embed"]["tokens"].dtype

    @property
    def layer_structure(self) -> LayerSources:
        """Shapes and dtypes of the `LayerSources` of one layer."""
        factor = self._like(self.n_tokens)
        return LayerSources(
            tuple(self._like(self.n_tokens, site_width(self.config, place.write_site)) for place in self.places),
            tuple(None if place.read_site is None else factor for place in self.places),
            factor, factor, None if self.mlps is None else factor,
        )  # fmt: skip

    @property
    def in_structure(self) -> Sources:
        """Shapes and dtypes of `Sources`."""
        t, n = self.n_tokens, self.config.n_layers
        layers = jax.tree.map(lambda one: self._like(n, *one.shape), self.layer_structure)
        return Sources(self._like(t, self.config.d_model), self._like(t), layers, self._like(t))

    @property
    def out_structure(self) -> Reads:
        """Shapes and dtypes of `Reads`."""
        t, n = self.n_tokens, self.config.n_layers
        read = tuple(
            None if place.read_site is None else self._like(n, t, site_width(self.config, place.read_site))
            for place in self.places
        )
        return Reads(read, self._like(t, self.config.d_model))

    def _like(self, *shape: int) -> Any:
        return jax.ShapeDtypeStruct(shape, self.dtype)

    def apply(self, sources: Sources) -> Reads:
        """Run the replacement model forward on given sources."""

        def step(x: Array, inputs: Any) -> Any:
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
        """[T, D] residual stream after the last layer → [T, D] what the unembedding reads. Linear."""
        if self.last is not None:
            return jax.linearize(self.live_end, *self.last)[1](x, final)
        return self._normed(x, final, self.final)

    def live_end(self, x: Array, final: Array) -> Array:
        """`end` with the final norm live. Not linear."""
        return self._normed(x, final, Line(norms.scale(x[None], self.params["final_norm"], self.config)))

    def _normed(self, x: Array, final: Array, line: Line) -> Array:
        normed = norms.divide(x[None], line, self.config, final[None])
        return norms.affine(normed, self.params["final_norm"], self.config, final[None])[0]


def layer_slices(operator: ReplacementOperator) -> LayerSlice:
    """The per-layer parts, stacked over layers."""
    numbers = jnp.arange(operator.config.n_layers, dtype=jnp.int32)
    return LayerSlice(
        numbers, operator.params["layers"], operator.frozen, operator.parts, operator.mlps, operator.points
    )


def part_arrays(
    places: tuple[Place, ...], params: Sequence[Tree | None], config: ModelConfig
) -> tuple[PartArrays, ...]:
    """The parts of an operator.

    Args:
      params: of the dictionary at each place, of which ``b_dec [N, D]`` and ``W_skip [N, D, D]`` are taken, N being the
        layers that the dictionary covers; None at a place without one.
      config: of the model.
    """

    def spread(place: Place, value: Any) -> Any:
        n = config.n_layers
        if value is None or len(place.layers) == n:
            return value
        zeros = jnp.zeros((n, *value.shape[1:]), value.dtype)
        return zeros.at[jnp.asarray(place.layers, jnp.int32)].set(value)

    found = []
    for place, own in zip(places, params, strict=True):
        if own is None:
            found.append(PartArrays(None, None, None))
            continue
        bias, stands = own["b_dec"], None
        if not place.replaces_all(config.n_layers):
            covered = [float(layer in place.layers) for layer in range(config.n_layers)]
            stands = jnp.asarray(covered, bias.dtype)
        found.append(PartArrays(spread(place, bias), spread(place, own.get("W_skip")), stands))
    return tuple(found)


def make_operator(
    params: Tree, config: ModelConfig, run: Run, places: tuple[Place, ...], parts: tuple[PartArrays, ...]
) -> ReplacementOperator:
    """The operator of a prompt (batch of one), of parts from `part_arrays`.

    Raises:
      InputError: a config that is not of our decoder.
    """
    require_ours(config, ModelConfig)
    t = run.embed.shape[1]
    if run.embed.shape[0] != 1:
        raise ValueError(f"the operator is of one prompt, not of {run.embed.shape[0]}: use vmap")
    if (run.mlps is None) == needs_mlp(places, config.n_layers):
        raise ValueError("the run is of other places than the operator")
    positions = params["embed"]["positions"][:t] if config.positions == "learned" else None
    return ReplacementOperator(params, run.frozen, run.final, parts, run.mlps, positions, config, places)


def model_sources(operator: ReplacementOperator, run: Run, write: tuple[Array, ...]) -> Sources:
    """The sources that make the operator repeat the model: ``write`` [L, T, D] of each place and every factor one.

    ``write`` leaves out the decoder bias and the skip, which the operator adds itself; see `own_writes`.
    """
    ones = jax.tree.map(lambda s: jnp.ones(s.shape, s.dtype), operator.in_structure)
    embed = run.embed[0] if operator.positions is None else run.embed[0] - operator.positions
    return ones._replace(embed=embed, layers=ones.layers._replace(write=tuple(write)))


def own_writes(operator: ReplacementOperator, run: Run) -> tuple[Array, ...]:
    """What is written at each place on the prompt [L, T, D], without the decoder bias and the skip.

    It is zero in layers where the part does not stand.
    """
    found = []
    for part, write, read in zip(operator.parts, run.write, run.read, strict=True):
        value = write[:, 0]
        if part.decoder_bias is not None:
            value = value - part.decoder_bias[:, None]
        if part.skip is not None and read is not None:
            value = value - einsum("ltd,led->lte", read[:, 0], part.skip)
        if part.stands is not None:
            value = jnp.where(part.stands[:, None, None] > 0, value, jnp.zeros_like(value))
        found.append(value)
    return tuple(found)
