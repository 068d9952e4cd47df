"""The one protocol that every kind of dictionary follows: a config, a parameter pytree, pure functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries.config import MLP_READS, MLP_WRITES, DictionaryConfig


class Kind(NamedTuple):
    """The pure functions of one kind of dictionary. ``...`` stands for any batch axes.

    Features come in G groups of N: one a layer (G = L), or one for all layers of a crosscoder (G = 1).

    Attributes:
      declare: ``(config)`` → tree of `jaxinterp.parallel.weights.Weight`.
      groups: ``(config)`` → G.
      pre_activations: ``(params, config, x [L, ..., D])`` → ``h [G, ..., N]``, ``W_enc x + b_enc``.
      encode: ``(params, config, x [L, ..., D])`` → feature activations ``[G, ..., N]``.
      encode_layer: ``(params, config, layer, x [..., D])`` → activations ``[..., N]`` of one layer.
      decode: ``(params, config, a [G, ..., N], x=None)`` → ``[L, ..., D]``, every decoder, bias and skip;
        ``x`` is needed when the dictionary has a skip.
      writes: ``(config)`` → the pairs (source layer, target layer) that decoders exist for.
      encoder_rows: ``(params, config, layer, features [...])`` → ``[..., D]``.
      decoder_rows: ``(params, config, source, target, features [...])`` → ``[..., D]``.
      decode_into: ``(params, config, layer, a [..., N], x=None)`` → ``[L, ..., D]``: what the features of one
        source layer write into every layer, zeros where they do not write; no bias, no skip. ``x [..., D]``, that
        layer's input, is needed where features are ``maps``.
      decoder_norms: ``(params, config)`` → ``[G, N]``, the norm of all decoder vectors of a feature
        joined end to end (*Circuit Tracing*, the tanh penalty of cross-layer transcoders).
      with_decoders: ``(params, config, {(source, target): [N, D]}, at=None)`` → params with those decoders replaced.
        Where features are ``maps`` they become such that feature i writes its row at the input ``at[source, i]``,
        ``at [L, N, D]``; elsewhere ``at`` does not count.
      scale_features: ``(params, config, scale [L, N])`` → params whose activations are multiplied by
        ``scale`` (> 0) and whose outputs are unchanged.
      scale_sites: ``(params, config, read [L], write [L])`` → params for which
        ``new(x) = write * old(x * read)``, layer by layer: how normalisation is folded in.
      belongs: ``(config, which [G, N])`` → for every parameter by name a mask that broadcasts to it: which of its
        entries belong to the features in ``which``.
      maps: whether a feature writes a linear function of the input instead of one direction. Then there are no
        ``decoder_rows``, and ``decode`` needs ``x``.
      sequences: whether features see other positions: the axes before the last are positions, then sequences, and
        `jaxinterp.dictionaries.lorsa` has the same functions with the places of tokens as an argument.
    """

    declare: Callable[[DictionaryConfig], Tree]
    groups: Callable[[DictionaryConfig], int]
    pre_activations: Callable[[Tree, DictionaryConfig, Array], Array]
    encode: Callable[[Tree, DictionaryConfig, Array], Array]
    encode_layer: Callable[[Tree, DictionaryConfig, Any, Array], Array]
    decode: Callable[..., Array]
    writes: Callable[[DictionaryConfig], tuple[tuple[int, int], ...]]
    encoder_rows: Callable[[Tree, DictionaryConfig, Any, Array], Array]
    decoder_rows: Callable[[Tree, DictionaryConfig, int, int, Array], Array]
    decode_into: Callable[..., Array]
    decoder_norms: Callable[[Tree, DictionaryConfig], Array]
    with_decoders: Callable[..., Tree]
    scale_features: Callable[[Tree, DictionaryConfig, Array], Tree]
    scale_sites: Callable[[Tree, DictionaryConfig, Array, Array], Tree]
    belongs: Callable[[DictionaryConfig, Array], dict[str, Any]]
    maps: bool = False
    sequences: bool = False


def read_layers(config: DictionaryConfig) -> tuple[tuple[int, ...], ...]:
    """The layers that each of the G groups of features reads: its own, or all where there is one group for all."""
    layers = tuple(range(config.n_layers))
    return (
        tuple((layer,) for layer in layers)
        if kind_of(config).groups(config) == config.n_layers
        else (layers,)
    )


def kind_of(config: DictionaryConfig) -> Kind:
    """The functions of ``config.kind``."""
    from jaxinterp.dictionaries.kinds import KINDS

    return KINDS[config.kind]


@dataclass(frozen=True)
class Dictionary:
    """A dictionary: parameters (the pytree's leaves), config and name (static)."""

    params: Tree
    config: DictionaryConfig
    name: str = ""

    def digest(self) -> str:
        """sha256 over the config and every parameter's bytes; the name does not count."""
        from jaxinterp.core.trees import digest_with_config

        return digest_with_config(self.config, self.params)

    def encode(self, x: Array) -> Array:
        """Feature activations ``[L, ..., N]`` for read-site values ``x [L, ..., D]``."""
        return kind_of(self.config).encode(self.params, self.config, x)

    def decode(self, activations: Array, x: Array | None = None) -> Array:
        """Reconstructed write-site values ``[L, ..., D]``; ``x`` is needed when there is a skip."""
        return kind_of(self.config).decode(self.params, self.config, activations, x)

    def reconstruct(self, x: Array) -> Array:
        """``decode(encode(x), x)``."""
        return self.decode(self.encode(x), x)


jax.tree_util.register_dataclass(Dictionary, data_fields=["params"], meta_fields=["config", "name"])


def check(dictionary: Dictionary) -> Dictionary:
    """The same dictionary, after comparing every parameter with its declaration.

    Raises:
      InputError: a missing or unknown parameter, or another shape.
    """
    from jaxinterp.parallel import weights

    where = f"dictionary {dictionary.name}".strip()
    weights.check(kind_of(dictionary.config).declare(dictionary.config), dictionary.params, where)
    return dictionary


def fits(dictionary: Any, model_config: Any) -> None:
    """Check that a dictionary can stand for a model's MLPs: one for every layer, between their sites.

    Args:
      dictionary: the dictionary, in memory or lazy.
      model_config: a `jaxinterp.models.config.ModelConfig`.

    Raises:
      InputError: naming what differs and both numbers.
    """
    config, name = dictionary.config, dictionary.name or "the dictionary"
    for what, field in (("a residual stream of width", "d_model"), ("layers:", "n_layers")):
        has, needs = getattr(config, field), getattr(model_config, field)
        if has != needs:
            raise InputError(
                f"{name} does not fit the model: made for {what} {has}, the model has {needs} ({field})"
            )
    for what, site, allowed in (
        ("reads", config.read_site, MLP_READS),
        ("writes", config.write_site, MLP_WRITES),
    ):
        if site not in allowed:
            raise InputError(
                f"{name} does not stand for MLPs: it {what} {site}, expected one of {', '.join(allowed)}"
            )
    if kind_of(config).maps:
        raise InputError(
            f"{name} does not stand for MLPs in a graph: features of a {config.kind} are linear maps and write no one "
            "direction"
        )
    if config.layers or config.d_out != config.d_model or kind_of(config).groups(config) != config.n_layers:
        raise InputError(f"{name} does not stand for MLPs: it has no features of its own for every layer")
