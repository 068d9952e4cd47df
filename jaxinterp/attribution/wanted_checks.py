"""One target of a request, checked against the prompt, the model and its parts.

What comes out names tokens by id, counts positions from 0 and exists.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxinterp.attribution.readings import PARTS, Junction
from jaxinterp.attribution.vocabulary import token_of
from jaxinterp.attribution.wanted import (
    SORTS,
    Difference,
    Direction,
    Feature,
    Salient,
    Supernode,
    Target,
    Token,
)  # fmt: skip
from jaxinterp.attribution.wanted_plain import to_plain
from jaxinterp.core.errors import InputError, near
from jaxinterp.models.config import ModelConfig
from jaxinterp.replacement.parts import site_width


class Place(NamedTuple):
    """What checks need to know: tokens of the prompt as given and as traced, the model, what its parts offer."""

    given: int
    length: int
    config: ModelConfig
    tokenizer: Any
    junctions: Sequence[Junction]


def identity(item: Target) -> Any:
    """What makes two checked targets the same: everything but names and weights."""
    if isinstance(item, Direction):
        return (
            "direction",
            np.asarray(item.vector, np.float64).tobytes(),
            item.position,
            item.layer,
            item.site,
        )
    if isinstance(item, Difference):
        return (
            "difference",
            tuple(sorted(group(item.plus))),
            tuple(sorted(group(item.minus))),
            item.position,
        )
    if isinstance(item, Supernode):
        weights = item.weights or (1.0,) * len(item.members)
        return (
            "supernode",
            tuple(sorted((identity(m), w) for m, w in zip(item.members, weights, strict=True))),
        )
    if isinstance(item, Feature):
        return ("feature", item.part or "", item.layer, item.index, item.position)
    if isinstance(item, Token):
        return ("token", item.token, item.position)
    assert isinstance(item, Salient)
    return ("salient", item.position)


def parts_of(item: Target) -> set[str]:
    """Names of the parts that a checked target reads, besides the final norm."""
    if isinstance(item, Supernode):
        return {str(member.part) for member in item.members}
    if isinstance(item, Feature):
        return {str(item.part)}
    return {item.site} if isinstance(item, Direction) and item.site else set()


def name_of(item: Target, text: Callable[[int], str]) -> str:
    """A checked target in a few words, for errors and labels; without its position."""
    if isinstance(item, Token):
        return f"the target token {item.token} {text(int(item.token))!r}"
    if isinstance(item, Direction):
        return f"the direction {item.label!r}"
    if isinstance(item, Supernode):
        return f"the supernode {item.name!r}"
    return "the target " + label_of(item, text)


def label_of(item: Target, text: Callable[[int], str]) -> str:
    """The label of a checked target, without its position."""
    if isinstance(item, Token):
        return text(int(item.token))
    if isinstance(item, Direction):
        return item.label
    if isinstance(item, Supernode):
        return item.name
    if isinstance(item, Difference):
        plus, minus = ([text(int(t)) for t in group(side)] for side in (item.plus, item.minus))
        named = [one[0] if len(one) == 1 else f"mean({', '.join(one)})" for one in (plus, minus) if one]
        return " - ".join(named)
    if isinstance(item, Feature):
        part = "" if item.part == "mlp" else f"{item.part} "
        return f"{part}feature {item.layer}/{item.index}"
    return "the salient tokens"


def checked(item: Any, place: Place) -> list[Target]:
    """The targets, each at one position, that one item asks for.

    Raises:
      InputError: what does not exist or is of another type.
    """
    try:
        return _checked(item, place)
    except InputError:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"the target {item!r:.100} cannot be read: {error}") from error


def _checked(item: Any, place: Place) -> list[Target]:
    if isinstance(item, bool) or not isinstance(item, (str, int, np.integer, *SORTS.values())):
        to_plain(item)  # raises
    if isinstance(item, str | int | np.integer):
        item = Token(item if isinstance(item, str) else int(item))
    if item.weight is not None and not (np.isfinite(item.weight) and item.weight > 0):
        raise InputError(f"a target has weight {item.weight}, expected a number above 0")
    if isinstance(item, Token):
        item = dataclasses.replace(item, token=_token(item.token, place))
    elif isinstance(item, Difference):
        plus, minus = (tuple(_token(t, place) for t in group(side)) for side in (item.plus, item.minus))
        if not plus:
            raise InputError("a difference without a token on its plus side")
        for side in (plus, minus):
            if len(set(side)) < len(side):
                raise InputError("a difference with the same token twice on one side")
        if set(plus) == set(minus):
            raise InputError("a difference of the same tokens is 0 on every prompt")
        item = dataclasses.replace(item, plus=plus, minus=minus)
    elif isinstance(item, Salient):
        if not 0 < item.mass <= 1 or item.at_most < 1:
            raise InputError(
                f"salient tokens: mass is {item.mass} and at_most {item.at_most}, expected a mass above 0 and at most "
                "1, and at least one token"
            )
    elif isinstance(item, Direction):
        if not isinstance(item.label, str):
            raise InputError(f"a direction is labelled {item.label!r:.60}, expected a text")
        item = _direction(item, place)
    elif isinstance(item, Feature):
        item = _feature(item, place)
    else:
        return [_supernode(item, place)]
    name = name_of(item, getattr(place.tokenizer, "text", str))
    return [dataclasses.replace(item, position=p) for p in _positions(item.position, name, place)]


def _positions(position: Any, name: str, place: Place) -> list[int]:
    given = [position] if isinstance(position, int | np.integer) else position
    found = []
    try:
        whole = [one.__index__() for one in given]
    except (TypeError, AttributeError):
        raise InputError(f"position {position!r} of {name}: expected whole numbers") from None
    if not whole:
        raise InputError(f"{name} has an empty list of positions")
    for one in whole:
        at = one + place.given if one < 0 else one
        if not 0 <= at < place.length:
            raise InputError(
                f"position {one} of {name} is outside the prompt of {place.length} tokens "
                f"(0 to {place.length - 1}, or -{place.given} to -1 from the end of the prompt as given)"
            )
        found.append(at)
    return found


def group(side: Any) -> list[Any]:
    """One side of a difference as a list of tokens."""
    return [side] if isinstance(side, str | int | np.integer) else list(side)


def _token(token: Any, place: Place) -> int:
    if isinstance(token, str):
        return known(token_of(token, place.tokenizer), place.config)
    if isinstance(token, bool) or not isinstance(token, int | np.integer):
        raise InputError(f"a token is an id or a text, not {type(token).__name__}")
    return known(int(token), place.config)


def known(token: int, config: ModelConfig) -> int:
    """The token, if it is in the vocabulary; raises InputError otherwise."""
    if not 0 <= token < config.vocab_size:
        raise InputError(f"target token {token} is outside the vocabulary of {config.vocab_size}")
    return token


def _direction(item: Direction, place: Place) -> Direction:
    vector = np.asarray(item.vector)
    if vector.dtype.kind in "OUSbcM" or not np.isfinite(vector.astype(np.float64)).all():
        raise InputError(f"the direction {item.label!r} has entries that are not finite numbers")
    if not vector.any():
        raise InputError(f"the direction {item.label!r} is zero everywhere")
    n_layers = place.config.n_layers
    if item.layer is None or (item.layer == n_layers and item.site is None):
        if item.site not in (None, "final_norm"):
            raise InputError(f"the direction {item.label!r} has a site, {item.site!r}, and no layer")
        _check_width(item, "final_norm", place.config)
        return dataclasses.replace(item, vector=vector, layer=None, site=None)
    if not 0 <= item.layer < n_layers:
        raise InputError(
            f"the direction {item.label!r}: layer {item.layer} is outside the model's {n_layers} layers"
        )
    names = {PARTS[j.part] for j in place.junctions} | {j.read_site for j in place.junctions}
    if item.site is not None and item.site not in names:
        raise InputError(
            f"the direction {item.label!r}: nothing reads at {item.site!r}{near(item.site, names)}; {_offer(place)}"
        )
    here = [
        j
        for j in place.junctions
        if item.layer in j.layers and item.site in (None, PARTS[j.part], j.read_site)
    ]
    if not here:
        raise InputError(
            f"the direction {item.label!r}: nothing reads at layer {item.layer}; {_offer(place)}"
        )
    if len(here) > 1:
        few = " or ".join(repr(PARTS[j.part]) for j in here)
        raise InputError(f"the direction {item.label!r}: name its site at layer {item.layer}, {few}")
    _check_width(item, here[0].read_site, place.config)
    return dataclasses.replace(item, vector=vector, site=PARTS[here[0].part])


def _check_width(item: Direction, site: str, config: ModelConfig) -> None:
    shape, width = np.shape(item.vector), site_width(config, site)
    if shape != (width,):
        raise InputError(f"the direction {item.label!r} has shape {shape}, expected ({width},)")


def _feature(item: Feature, place: Place) -> Feature:
    there = {PARTS[j.part]: j for j in place.junctions}
    part = item.part
    if part is None:
        part = next(iter(there)) if len(there) == 1 else "mlp"
    if part not in there:
        raise InputError(
            f"the feature {item.layer}/{item.index}: there is no part {part!r}{near(part, there)}; {_offer(place)}"
        )
    junction = there[part]
    item = dataclasses.replace(item, layer=item.layer.__index__(), index=item.index.__index__())
    if item.layer not in junction.layers:
        raise InputError(
            f"the feature {item.layer}/{item.index}: no features at layer {item.layer}; {_offer(place)}"
        )
    if not 0 <= item.index < junction.n_features:
        raise InputError(
            f"the feature {item.layer}/{item.index}: layer {item.layer} has features 0 to {junction.n_features - 1}"
        )
    return dataclasses.replace(item, part=part)


def _supernode(item: Supernode, place: Place) -> Supernode:
    if not isinstance(item.name, str):
        raise InputError(f"a supernode is named {item.name!r:.60}, expected a text")
    members = []
    for member in item.members:
        if not isinstance(member, Feature):
            raise InputError(f"the supernode {item.name!r} has a member that is no Feature: {member!r:.60}")
        name = f"feature {member.layer}/{member.index} of the supernode {item.name!r}"
        members += [
            dataclasses.replace(_feature(member, place), position=p)
            for p in _positions(member.position, name, place)
        ]
    if not members:
        raise InputError(f"the supernode {item.name!r} has no members")
    weights = item.weights
    if weights is not None:
        weights = tuple(float(w) for w in weights)
        if len(weights) != len(members) or not np.isfinite(weights).all() or 0 in weights:
            raise InputError(
                f"the supernode {item.name!r} has {len(members)} members and the weights {list(weights)!r:.60}: "
                "expected a finite number other than 0 for each"
            )
    keys = [identity(member) for member in members]
    for member, one in zip(members, keys, strict=True):
        if keys.count(one) > 1:
            raise InputError(
                f"the supernode {item.name!r} has feature {member.layer}/{member.index} at position "
                f"{member.position} twice"
            )
    return dataclasses.replace(item, members=tuple(members), weights=weights)


def _offer(place: Place) -> str:
    """What there is, for errors."""
    if not place.junctions:
        return "the model has no parts with features"
    return "there is " + ", ".join(
        f"{PARTS[j.part]} ({j.read_site}, {_ranges(j.layers)})" for j in place.junctions
    )


def _ranges(layers: Sequence[int]) -> str:
    layers = sorted(layers)
    if len(layers) > 1 and layers == list(range(layers[0], layers[-1] + 1)):
        return f"layers {layers[0]} to {layers[-1]}"
    return ("layer " if len(layers) == 1 else "layers ") + ", ".join(map(str, layers))
