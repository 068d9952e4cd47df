"""Where dictionaries stand in a replacement model: junctions, and the sites that are read and written there.

A replacement model has parts. A part replaces what is written at one junction of every layer that it covers: the output
of attention, the output of the MLP, or the residual stream itself. Where a junction is replaced, gradients end there
(*Circuit Tracing*, "Local replacement model", where the junction is the MLP's output).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.base import kind_of
from jaxinterp.dictionaries.config import MLP_READS, DictionaryConfig
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.sites import VECTOR_SITES

JUNCTIONS = ("attention", "mlp", "residual")
MLPS = ("constant", "tangent")

_OF_ATTENTION = ("attn_z", "attn_out_raw", "attn_out")
_OF_MLP = ("mlp_out_raw", "mlp_out")
_OF_RESIDUAL = ("resid_pre", "resid_mid", "resid_post")
_READ = {
    "attention": ("resid_pre", "attn_normalized", "attn_in", *_OF_ATTENTION),
    "mlp": (*MLP_READS, *_OF_MLP),
    "residual": _OF_RESIDUAL,
}
_JUNCTION = dict.fromkeys(_OF_ATTENTION, "attention") | dict.fromkeys(_OF_MLP, "mlp")
_JUNCTION |= dict.fromkeys(_OF_RESIDUAL, "residual")


@dataclass(frozen=True)
class Place:
    """Where one part stands.

    Attributes:
      junction: one of `JUNCTIONS`.
      read_site: what its encoders read; None where it has no dictionary.
      write_site: what is replaced, by decoders and error vectors.
      layers: the model's layers that the dictionary covers, ascending: its own layer i is ``layers[i]``.
      dictionary: its number among the dictionaries that were given; None means that nothing but errors is written.
      constant: the junction is replaced in every layer, by its whole value as an error where no dictionary covers it.
    """

    junction: str
    read_site: str | None
    write_site: str
    layers: tuple[int, ...]
    dictionary: int | None = 0
    constant: bool = False

    def replaces_all(self, n_layers: int) -> bool:
        """Whether the junction is replaced in each of the model's layers."""
        return self.constant or len(self.layers) == n_layers

    @property
    def reads_itself(self) -> bool:
        """Whether encoders read what the junction has without the part, as sparse autoencoders do."""
        return self.read_site is not None and _JUNCTION.get(self.read_site) == self.junction


def places(dictionaries: Sequence[Any], config: ModelConfig, mlp: str = "constant") -> tuple[Place, ...]:
    """Where dictionaries stand, in the order of the sites that they write (attention, MLP, residual stream).

    Args:
      dictionaries: in memory or lazy, each for another junction.
      config: of the model.
      mlp: what stands for MLPs that no dictionary does: "constant", their output as an error vector through which no
        gradient flows (then there is a place for it even without a dictionary), or "tangent", their Jacobian on the
        prompt and a constant.

    Raises:
      InputError: a dictionary of another width or number of layers, with sites of no junction, whose features read all
        layers at once or write no one direction; two of one junction; an autoencoder of MLP outputs with constant MLPs.
    """
    if mlp not in MLPS:
        raise InputError(f"mlp is {mlp!r}, expected one of {', '.join(MLPS)}")
    found: dict[str, Place] = {}
    for number, dictionary in enumerate(dictionaries):
        name = dictionary.name or f"dictionary {number}"
        place = _place(dictionary.config, name, config, number, mlp == "constant")
        if (other := found.get(place.junction)) is not None:
            assert other.dictionary is not None
            first = dictionaries[other.dictionary].name or f"dictionary {other.dictionary}"
            raise InputError(
                f"{name} and {first} both replace the {place.junction} junction, expected one dictionary for each"
            )
        found[place.junction] = place
    if "mlp" not in found and mlp == "constant":
        found["mlp"] = Place("mlp", None, "mlp_out", (), None, constant=True)
    return tuple(sorted(found.values(), key=lambda place: VECTOR_SITES.index(place.write_site)))


def _place(d: DictionaryConfig, name: str, config: ModelConfig, number: int, constant: bool) -> Place:
    junction = _JUNCTION.get(d.write_site)
    if junction is None:
        raise InputError(
            f"{name} stands at no junction: it writes {d.write_site}, expected one of {', '.join(_JUNCTION)}"
        )
    allowed = [
        site for site in _READ[junction] if VECTOR_SITES.index(site) <= VECTOR_SITES.index(d.write_site)
    ]
    if junction == "residual":
        allowed = [d.write_site]
    if d.read_site not in allowed:
        raise InputError(
            f"{name} writes {d.write_site} and reads {d.read_site}, expected to read one of {', '.join(allowed)}"
        )
    for what, field, has, needs in (
        (f"{d.read_site} of width", "d_model", d.d_model, site_width(config, d.read_site)),
        (f"{d.write_site} of width", "d_write", d.d_out, site_width(config, d.write_site)),
    ):
        if has != needs:
            raise InputError(
                f"{name} does not fit the model: made for {what} {has}, the model has {needs} ({field})"
            )
    kind = kind_of(d)
    if kind.maps:
        raise InputError(
            f"{name} has no place in a graph: features of a {d.kind} are linear maps and write no one direction"
        )
    if kind.groups(d) != d.n_layers:
        raise InputError(
            f"{name} has no place in a graph: features of a {d.kind} read every layer before they write the first"
        )
    if d.normalise_rows != "none":
        raise InputError(
            f"{name} has no place in a graph: it normalises what it reads row by row ({d.normalise_rows})"
        )
    layers = d.layers or tuple(range(d.n_layers))
    if not d.layers and d.n_layers != config.n_layers:
        raise InputError(
            f"{name} does not fit the model: made for layers: {d.n_layers}, the model has {config.n_layers} (n_layers)"
        )
    if list(layers) != sorted(layers) or not 0 <= layers[0] <= layers[-1] < config.n_layers:
        raise InputError(
            f"{name} is of layers {', '.join(map(str, layers))}, expected ascending numbers below {config.n_layers}"
        )
    place = Place(junction, d.read_site, d.write_site, layers, number, junction == "mlp" and constant)
    if place.constant and place.reads_itself:
        raise InputError(
            f'{name} reads {d.read_site}, which nothing reaches while MLPs are constant: take mlp="tangent"'
        )
    return place


def site_width(config: ModelConfig, site: str) -> int:
    """The width of a site that holds a vector for each token."""
    return config.n_heads * config.d_value if site == "attn_z" else config.d_model


def needs_mlp(places: tuple[Place, ...], n_layers: int) -> bool:
    """Whether the Jacobian of some MLP takes part: where it is not replaced, or is read before it is."""
    found = next((place for place in places if place.junction == "mlp"), None)
    return found is None or found.reads_itself or not found.replaces_all(n_layers)
