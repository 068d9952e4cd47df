"""What a dictionary is, apart from its numbers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from jaxinterp.core.errors import InputError, near
from jaxinterp.dictionaries.attention import Attention
from jaxinterp.models.sites import VECTOR_SITES

MLP_READS = ("resid_mid", "mlp_normalized", "mlp_in")
MLP_WRITES = ("mlp_out", "mlp_out_raw")
ACTIVATIONS = ("relu", "jumprelu", "topk", "groupmax", "gated")
CHOOSING = ("topk", "groupmax")
"""Activation functions under which features compete, of which ``k`` are active at most."""
ROWS = ("none", "layer_norm", "length")


@dataclass(frozen=True)
class DictionaryConfig:
    """What a dictionary is, apart from its numbers.

    Attributes:
      kind: the name of a registered kind: "plt" (each layer by itself; with one site for both a sparse autoencoder),
        "clt" (features write their own and all later layers; with one site for both a weakly causal crosscoder),
        "crosscoder" (features read and write all layers, or models), "molt" (features are linear maps of low rank),
        "lorsa" (features are heads of rank one, which look at the whole sequence).
      n_layers, n_features, d_model: L, N (features of one layer) and D, the width of what is read.
      activation: "relu"; "jumprelu" (``h`` where ``h > threshold``, else 0); "topk" (the ``k`` largest of a row and
        layer, where positive); "groupmax" (the largest of each of ``k`` equal groups of neighbours, where positive);
        "gated" (a linear gate decides, a second bias and scale give the size).
      k: see ``activation``.
      ranked: features compete by activation times decoder length rather than by activation.
      skip: whether a linear map from input to output is added in each layer.
      centre: the decoder bias is taken off the input (sparse autoencoders).
      tied: decoders of a "clt" are the same into every layer.
      shared: features of a "crosscoder", the first ones, whose decoder is common to all it writes.
      read_site: the site that encoders read, from `models.sites.VECTOR_SITES`; conventions: `dictionaries.sites`.
      write_site: the site that is reconstructed.
      d_write: width of what is written; None means D.
      layers: the model's layers that the L are; empty means all, in order.
      normalise_rows: what is done to each row that is read, and undone to what is reconstructed: "none", "layer_norm"
        (``(x - mean) / (std + 1e-5)``, std with D - 1), "length" (``x sqrt(D) / ‖x‖``). Autoencoders only.
      ranks: of a "molt": pairs (rank, how many features have it), in the order of the features.
      attention: of a "lorsa": where its heads look.
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
    k: int = 0
    ranked: bool = False
    centre: bool = False
    tied: bool = False
    shared: int = 0
    d_write: int | None = None
    layers: tuple[int, ...] = ()
    normalise_rows: str = "none"
    ranks: tuple[tuple[int, int], ...] = ()
    attention: Attention | None = None

    def __post_init__(self) -> None:
        from jaxinterp.dictionaries.kinds import KINDS

        for name, least in (
            ("n_layers", 1),
            ("n_features", 1),
            ("d_model", 1),
            ("k", 0),
            ("shared", 0),
            ("d_write", 1),
        ):
            value = getattr(self, name)
            if name == "d_write" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InputError(
                    f"dictionary config: {name} is {value!r}, expected a whole number of at least {least}"
                )
        for name, allowed in (
            ("kind", tuple(KINDS)), ("activation", ACTIVATIONS),
            ("read_site", VECTOR_SITES), ("write_site", VECTOR_SITES), ("normalise_rows", ROWS),
        ):  # fmt: skip
            if (value := getattr(self, name)) not in allowed:
                raise InputError(
                    f"dictionary config: {name} is {value!r}, expected one of {', '.join(allowed)}"
                    f"{near(value, allowed)}"
                )
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "ranks", _ranks(self.ranks))
        self._check_together()
        self._check_of_kind()

    def _check_together(self) -> None:
        n, k = self.n_features, self.k
        if (self.activation in CHOOSING) != (k > 0):
            raise InputError(
                f"dictionary config: k is {k} with the activation {self.activation}; {' and '.join(CHOOSING)} have one"
            )
        if k > n or (self.activation == "groupmax" and n % k):
            raise InputError(
                f"dictionary config: {k} active among {n} features do not go with {self.activation}"
            )
        if self.ranked and self.activation not in CHOOSING:
            raise InputError(f"dictionary config: features are ranked under {' and '.join(CHOOSING)} only")
        if self.layers and (len(self.layers) != self.n_layers or len(set(self.layers)) != self.n_layers):
            raise InputError(
                f"dictionary config: layers are {self.layers}, expected {self.n_layers} different ones"
            )
        if self.shared > n:
            raise InputError(f"dictionary config: {self.shared} shared of {n} features")
        if self.centre and (self.kind != "plt" or self.skip or self.d_out != self.d_model):
            raise InputError(
                "dictionary config: centre is of the kind plt, without a skip, where as much is written as is read"
            )
        if self.normalise_rows != "none" and (
            self.kind != "plt" or self.skip or self.d_out != self.d_model or self.read_site != self.write_site
        ):
            raise InputError(
                "dictionary config: normalise_rows is of the kind plt that writes where it reads, without a skip"
            )

    def _check_of_kind(self) -> None:
        for name, kind in (
            ("tied", "clt"),
            ("shared", "crosscoder"),
            ("ranks", "molt"),
            ("attention", "lorsa"),
        ):
            if getattr(self, name) and self.kind != kind:
                raise InputError(f"dictionary config: {name} is of the kind {kind}, not of {self.kind}")
        if self.kind == "molt" and sum(count for _, count in self.ranks) != self.n_features:
            raise InputError(
                f"dictionary config: ranks {self.ranks} are of {sum(count for _, count in self.ranks)} features, "
                f"not of {self.n_features}"
            )
        if self.kind != "lorsa":
            return
        attention = self.attention
        if not isinstance(attention, Attention):
            raise InputError(f"dictionary config: a lorsa needs attention, found {attention!r}")
        if self.n_features % attention.heads:
            raise InputError(
                f"dictionary config: {self.n_features} features cannot share {attention.heads} query-key heads evenly"
            )
        if len(attention.window) not in (1, self.n_layers):
            raise InputError(
                f"dictionary config: {len(attention.window)} windows for {self.n_layers} layers, expected 1 or one each"
            )
        if self.skip:
            raise InputError("dictionary config: a lorsa has no skip")

    @property
    def d_out(self) -> int:
        """The width of what is written."""
        return self.d_model if self.d_write is None else self.d_write

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dict with every field."""
        return {**dataclasses.asdict(self), "layers": list(self.layers)}

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = "dictionary config") -> DictionaryConfig:
        """The inverse of `to_dict`. An unknown or missing field raises an `InputError` that names it."""
        fields = dataclasses.fields(cls)
        for name in values:
            if name not in (known := [f.name for f in fields]):
                raise InputError(f"{where}: unknown field {name!r}{near(name, known)}")
        for f in fields:
            if f.default is dataclasses.MISSING and f.name not in values:
                raise InputError(f"{where}: the field {f.name!r} is missing")
        try:
            attention = values.get("attention")
            if attention is not None:
                attention = Attention.from_dict(attention, f"{where}: attention")
            return cls(**{**values, "layers": tuple(values.get("layers", ())), "attention": attention})
        except TypeError as error:
            raise InputError(f"{where}: {error}") from error


def _ranks(values: Any) -> tuple[tuple[int, int], ...]:
    """Pairs (rank, count) as whole numbers of at least 1, every rank once."""
    good = isinstance(values, list | tuple) and all(
        isinstance(pair, list | tuple)
        and len(pair) == 2
        and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in pair)
        for pair in values
    )
    if not good or len({pair[0] for pair in values}) != len(values):
        raise InputError(
            f"dictionary config: ranks is {values!r}, expected pairs (rank, features of that rank), every rank once"
        )
    return tuple((rank, count) for rank, count in values)
