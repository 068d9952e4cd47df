"""The one protocol that every kind of dictionary follows: a config, a parameter pytree, pure functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from jaxinterp.core.errors import InputError, near
from jaxinterp.core.letters import Array, Tree

READ_SITES = ("resid_mid", "mlp_normalized", "mlp_in")
WRITE_SITES = ("mlp_out", "mlp_out_raw")
ACTIVATIONS = ("relu", "jumprelu")


@dataclass(frozen=True)
class DictionaryConfig:
    """What a dictionary is, apart from its numbers.

    Attributes:
      kind: the name of a registered kind, "plt" or "clt".
      n_layers, n_features, d_model: L, N (features of one layer) and D.
      activation: "relu" or "jumprelu" (``h`` where ``h > threshold``, else 0).
      skip: whether a linear map from input to output is added in each layer.
      read_site: the site that encoders read: the raw residual stream before the MLP's norm, the
        normalised stream before the norm's gain, or the MLP's input after it.
      write_site: the site that is reconstructed: the MLP's output after or before a post norm.
      model_name: the model it was trained on, as its files say.
      scan: a public identifier of the feature set, as its files say.
    """

    kind: str
    n_layers: int
    n_features: int
    d_model: int
    activation: str = "jumprelu"
    skip: bool = False
    read_site: str = "resid_mid"
    write_site: str = "mlp_out"
    model_name: str = ""
    scan: str = ""

    def __post_init__(self) -> None:
        from jaxinterp.dictionaries.kinds import KINDS

        for name in ("n_layers", "n_features", "d_model"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(
                    f"dictionary config: {name} is {value!r}, expected a whole number of at least 1"
                )
        for name, allowed in (
            ("kind", tuple(KINDS)), ("activation", ACTIVATIONS),
            ("read_site", READ_SITES), ("write_site", WRITE_SITES),
        ):  # fmt: skip
            if (value := getattr(self, name)) not in allowed:
                raise InputError(
                    f"dictionary config: {name} is {value!r}, expected one of {', '.join(allowed)}"
                    f"{near(value, allowed)}"
                )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dict with every field."""
        return dataclasses.asdict(self)


class Kind(NamedTuple):
    """The pure functions of one kind of dictionary. ``...`` stands for any batch axes.

    Attributes:
      declare: ``(config)`` → tree of `jaxinterp.parallel.weights.Weight`.
      pre_activations: ``(params, config, x [L, ..., D])`` → ``h [L, ..., N]``, ``W_enc x + b_enc``.
      encode: ``(params, config, x [L, ..., D])`` → feature activations ``[L, ..., N]``.
      encode_layer: ``(params, config, layer, x [..., D])`` → activations ``[..., N]`` of one layer.
      decode: ``(params, config, a [L, ..., N], x=None)`` → ``[L, ..., D]``, every decoder, bias and skip;
        ``x`` is needed when the dictionary has a skip.
      writes: ``(config)`` → the pairs (source layer, target layer) that decoders exist for.
      encoder_rows: ``(params, config, layer, features [...])`` → ``[..., D]``.
      decoder_rows: ``(params, config, source, target, features [...])`` → ``[..., D]``.
      decode_into: ``(params, config, layer, a [..., N])`` → ``[L, ..., D]``: what the features of one
        source layer write into every layer, zeros where they do not write; no bias, no skip.
      decoder_norms: ``(params, config)`` → ``[L, N]``, the norm of all decoder vectors of a feature
        joined end to end (methods.md §1.1).
      with_decoders: ``(params, config, {(source, target): [N, D]})`` → params with those decoders replaced.
      scale_features: ``(params, config, scale [L, N])`` → params whose activations are multiplied by
        ``scale`` (> 0) and whose outputs are unchanged.
      scale_sites: ``(params, config, read [L], write [L])`` → params for which
        ``new(x) = write * old(x * read)``, layer by layer: how normalisation is folded in.
    """

    declare: Callable[[DictionaryConfig], Tree]
    pre_activations: Callable[[Tree, DictionaryConfig, Array], Array]
    encode: Callable[[Tree, DictionaryConfig, Array], Array]
    encode_layer: Callable[[Tree, DictionaryConfig, Any, Array], Array]
    decode: Callable[..., Array]
    writes: Callable[[DictionaryConfig], tuple[tuple[int, int], ...]]
    encoder_rows: Callable[[Tree, DictionaryConfig, Any, Array], Array]
    decoder_rows: Callable[[Tree, DictionaryConfig, int, int, Array], Array]
    decode_into: Callable[[Tree, DictionaryConfig, int, Array], Array]
    decoder_norms: Callable[[Tree, DictionaryConfig], Array]
    with_decoders: Callable[[Tree, DictionaryConfig, dict[tuple[int, int], Array]], Tree]
    scale_features: Callable[[Tree, DictionaryConfig, Array], Tree]
    scale_sites: Callable[[Tree, DictionaryConfig, Array, Array], Tree]


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


def fits(dictionary: Dictionary, model_config: Any) -> None:
    """Check that a dictionary can be used with a model: same width, same number of layers.

    Args:
      dictionary: the dictionary.
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
