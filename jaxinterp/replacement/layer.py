"""One layer of a replacement model: frozen and so linear, or live and linearised where it is.

Letters: T position, D width (of a site, where sites differ), L layers.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxinterp.core.letters import Array, Tree
from jaxinterp.core.precision import einsum, wide_dtype
from jaxinterp.models import decoder, rotary
from jaxinterp.models.block import Frozen, Units, after_mlp, before_mlp, keep
from jaxinterp.models.decoder import HIGHEST
from jaxinterp.models.sites import Touch
from jaxinterp.replacement.mlps import MlpLine, mlp_of_layer
from jaxinterp.replacement.parts import Place

if TYPE_CHECKING:
    from jaxinterp.replacement.operator import ReplacementOperator


class LayerSources(NamedTuple):
    """What enters at one layer; with a leading L for all layers. ``write`` and ``decoder`` have an entry a place.

    Attributes:
      write: [T, D] added where the part writes: feature contributions and errors.
      decoder: [T] factor on the dictionary's decoder bias; None where the part has no dictionary.
      attention: [T] factor on the biases of the attention (values at the key's position, output at the query's).
      norm: [T] factor on the biases of the layer's norms.
      mlp: [T] factor on the constant of an MLP that a line stands for; None where every MLP is replaced.
    """

    write: tuple[Array, ...]
    decoder: tuple[Array | None, ...]
    attention: Array
    norm: Array
    mlp: Array | None


LayerReads = tuple[Array | None, ...]
"""What is read in a layer: for each place [T, D], or None where it has no dictionary."""


class PartArrays(NamedTuple):
    """What of a part belongs to the linear map; with a leading L for all layers.

    Attributes:
      decoder_bias: [D], zero where the dictionary does not cover the layer; None where there is no dictionary.
      skip: [D, D] (output, input) or None.
      stands: [] one where the junction is replaced and zero where it is not; None where it is in every layer.
    """

    decoder_bias: Array | None
    skip: Array | None
    stands: Array | None


class Point(NamedTuple):
    """Where a live layer is linearised; with a leading L for all layers. ``x``: [T, D] residual stream before it."""

    x: Array
    sources: LayerSources


class LayerSlice(NamedTuple):
    """Everything of one layer that its map needs; with a leading L for all layers. ``point`` is of live layers."""

    number: Array
    weights: Tree
    frozen: Frozen
    parts: tuple[PartArrays, ...]
    mlp: MlpLine | None
    point: Point | None = None


def layer_apply(
    operator: ReplacementOperator, layer: LayerSlice, x: Array, sources: LayerSources, touch: Touch = keep
) -> tuple[Array, LayerReads]:
    """One linear layer: residual stream [T, D] and sources → residual stream [T, D] and reads [T, D].

    The skip of a dictionary is part of the map: what it writes is linear in what it reads. ``touch`` sees every site
    of a frozen layer before the parts do and may change it.
    """
    if layer.point is not None:
        if touch is not keep:
            raise ValueError("the sites of a live layer are not linear, nothing may touch them")
        return jax.linearize(lambda x, s: live_layer(operator, layer, x, s), *layer.point)[1](x, sources)
    units = Units(sources.attention[None], sources.norm[None])
    config, weights, frozen = operator.config, layer.weights, layer.frozen
    parts = _Parts(operator.places, layer.parts, sources, touch)
    reads, _ = before_mlp(
        weights, config, x[None], frozen=frozen, units=units, touch=parts, precision=operator.precision
    )
    raw = jnp.zeros_like(reads.resid_mid)  # a part replaces it, unless there is something to replace
    if sources.mlp is not None:
        assert layer.mlp is not None
        raw = (
            _tangent(operator, layer, layer.mlp, reads.mlp_in) + sources.mlp[None, :, None] * layer.mlp.offset
        )
    x = after_mlp(weights, config, reads.resid_mid, None, raw, frozen=frozen, units=units, touch=parts)[0]
    return x, parts.found


def live_layer(
    operator: ReplacementOperator, layer: LayerSlice, x: Array, sources: LayerSources
) -> tuple[Array, LayerReads]:
    """One layer with its norms live, and with ``operator.live == "all"`` its attention patterns too. Not linear.

    Arguments and results are as of `layer_apply`. An MLP that is not replaced is itself, whatever ``sources.mlp`` is.
    """
    config, weights = operator.config, layer.weights
    where = decoder.places(jnp.zeros((1, x.shape[0]), jnp.int32))
    turn = None
    if config.positions == "rope":
        turn = rotary.tables(config, where.positions, wide_dtype(x.dtype))
    window = jnp.asarray(config.windows or (0,) * config.n_layers, jnp.int32)[layer.number]

    def touch(site: str, value: Array) -> Array:
        return layer.frozen.pattern if site == "pattern" and operator.live == "norms" else value

    units = Units(sources.attention[None], sources.norm[None])
    parts = _Parts(operator.places, layer.parts, sources, touch)
    reads, _ = before_mlp(
        weights, config, x[None], places=where, turn=turn, window=window, units=units, touch=parts, precision=HIGHEST
    )  # fmt: skip
    raw = jnp.zeros_like(reads.resid_mid)
    if sources.mlp is not None:
        raw = mlp_of_layer(operator.params, config, weights, layer.number, reads.mlp_in, HIGHEST)
    x = after_mlp(weights, config, reads.resid_mid, None, raw, units=units, touch=parts)[0]
    return x, parts.found


def _tangent(operator: ReplacementOperator, layer: LayerSlice, line: MlpLine, x: Array) -> Array:
    """The Jacobian of a layer's MLP on the prompt, times x [1, T, D]."""

    def call(at: Array) -> Array:
        return mlp_of_layer(operator.params, operator.config, layer.weights, layer.number, at, HIGHEST)

    return jax.linearize(call, line.at)[1](x)


class _Parts:
    """The toucher of a layer: at the sites of parts, values are read, and what a part writes stands in their place."""

    def __init__(
        self, places: tuple[Place, ...], parts: tuple[PartArrays, ...], sources: LayerSources, touch: Touch
    ) -> None:
        self.places, self.parts, self.sources, self.touch = places, parts, sources, touch
        self.reads: list[Array | None] = [None] * len(places)

    @property
    def found(self) -> LayerReads:
        """What was read at each place: [T, D] or None."""
        return tuple(None if read is None else read[0] for read in self.reads)

    def __call__(self, site: str, value: Array) -> Array:
        value = self.touch(site, value)
        for i, place in enumerate(self.places):
            if place.write_site == site:
                if place.read_site == site:
                    self.reads[i] = value
                value = self._written(i, value)
        for i, place in enumerate(self.places):
            if place.read_site == site and place.write_site != site:
                self.reads[i] = value
        return value

    def _written(self, i: int, value: Array) -> Array:
        part, write, factor = self.parts[i], self.sources.write[i], self.sources.decoder[i]
        total = write[None]
        if part.decoder_bias is not None and factor is not None:
            total = total + factor[None, :, None] * part.decoder_bias[None, None]
        read = self.reads[i]
        if part.skip is not None and read is not None:
            total = total + einsum("btd,ed->bte", read, part.skip)
        return total if part.stands is None else jnp.where(part.stands > 0, total, value)


def layer_transpose(
    operator: ReplacementOperator, layer: LayerSlice, x_bar: Array, read_bars: LayerReads
) -> tuple[Array, LayerSources]:
    """The transposed `layer_apply`: cotangents [T, D] of all outputs → those of x [T, D] and of the sources."""
    x = jax.ShapeDtypeStruct((operator.n_tokens, operator.config.d_model), operator.dtype)
    back = jax.linear_transpose(
        lambda x, sources: layer_apply(operator, layer, x, sources), x, operator.layer_structure
    )
    return back((x_bar, read_bars))


def shorten(operator: ReplacementOperator, layer: LayerSlice | None, length: int) -> tuple[Any, Any]:
    """The operator's end and one of its layers for the first ``length`` positions, which see no later ones."""

    def of_prompt(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[:, :length], tree)

    def of_rows(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[:length], tree)

    operator = dataclasses.replace(operator, final=of_prompt(operator.final), last=of_rows(operator.last))
    if layer is None:
        return operator, None
    lines = {name: of_prompt(line) for name, line in layer.frozen._asdict().items() if name != "pattern"}
    frozen = layer.frozen._replace(pattern=layer.frozen.pattern[:, :, :length, :length], **lines)
    return operator, layer._replace(frozen=frozen, mlp=of_prompt(layer.mlp), point=of_rows(layer.point))
