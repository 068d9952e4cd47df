"""Rotary positions as Hugging Face configs write them: a base, and a scaling under one of several names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxinterp.checkpoints.families.base import number, whole_number
from jaxinterp.core.errors import InputError, near
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.rotary import RopeScaling

FIELDS: dict[str, Any] = {"rope_theta": 10000.0, "rope_scaling": None, "rope_parameters": None}

# Kind → its fields, those that must be there first. "su" is the first name of longrope.
_NEEDED = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": ("factor",),
    "longrope": ("short_factor", "long_factor"),
}
_ALLOWED = {
    "default": (),
    "linear": (),
    "llama3": (),
    "yarn": (
        "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim",
        "truncate",
    ),
    "longrope": ("factor", "attention_factor", "original_max_position_embeddings"),
}  # fmt: skip
_NAMES = {"su": "longrope"}


class Rope(NamedTuple):
    """The base and the scaling of rotary positions, as `ModelConfig` takes them."""

    base: float
    scaling: RopeScaling | None


SHARE = "partial_rotary_factor"


def with_share(values: Mapping[str, Any], field: str) -> dict[str, Any]:
    """The values with the share of a head that turns in ``field``, if ``rope_parameters`` has it (transformers 5)."""
    found = values.get("rope_parameters")
    if not isinstance(found, dict) or SHARE not in found:
        return dict(values)
    rest = {name: value for name, value in found.items() if name != SHARE}
    return {**values, "rope_parameters": rest, field: found[SHARE]}


def by_kind(values: Mapping[str, Any], local: str, where: str) -> dict[str, Any]:
    """The values with one set of ``rope_parameters`` for full attention, where there is one for each kind of attention.

    Args:
      local: the field for the base of layers with a window, which are not scaled.

    Raises:
      InputError: another kind of attention, or a scaling where there can be none.
    """
    found = values.get("rope_parameters")
    if not isinstance(found, dict) or not {"full_attention", "sliding_attention"} & found.keys():
        return dict(values)
    for kind, content in found.items():
        if kind not in ("full_attention", "sliding_attention") or not isinstance(content, dict):
            raise InputError(
                f"{where}: rope_parameters has {kind!r} = {content!r}, expected fields and values for full_attention "
                f"and sliding_attention"
            )
    own = {**values, "rope_scaling": None, "rope_parameters": found.get("sliding_attention")}
    base, scaling = read(own, f"{where}: sliding_attention", base=local)
    if scaling is not None:
        raise InputError(
            f"{where}: rope_parameters scales sliding_attention by {scaling.kind}, expected default"
        )
    return {**values, "rope_parameters": found.get("full_attention"), local: base}


def read(values: Mapping[str, Any], where: str, *, base: str = "rope_theta") -> Rope:
    """Base and scaling from the fields of `FIELDS`.

    Args:
      values: a config's fields; ``max_position_embeddings`` is read where a scaling needs it, and
        ``original_max_position_embeddings`` where a family has it.
      base: the name of the field with the base.

    Raises:
      InputError: a kind of scaling that is not understood (dynamic ones change with the length of the text), a missing
        or an unknown field of one.
    """
    theta, found = values[base], None
    for field in ("rope_scaling", "rope_parameters"):
        content = values.get(field)
        if content is None:
            continue
        if not isinstance(content, dict):
            raise InputError(f"{where}: {field} is {content!r}, expected null or fields and values")
        if found is not None and content != found[1]:
            raise InputError(f"{where}: rope_scaling and rope_parameters differ, expected one of them")
        found = (field, content)
        theta = content.get("rope_theta", theta)
    theta = number({base: theta}, base, where)
    if found is None:
        return Rope(theta, None)
    return Rope(theta, _scaling(found[1], values, f"{where}: {found[0]}"))


def _scaling(content: dict[str, Any], values: Mapping[str, Any], where: str) -> RopeScaling | None:
    kinds = {_NAMES.get(content[name], content[name]) for name in ("rope_type", "type") if name in content}
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind not in _NEEDED:
        raise InputError(f"{where} is {content!r}, supported are the types {', '.join(_NEEDED)}")
    known = {"rope_type", "type", "rope_theta", *_NEEDED[kind], *_ALLOWED[kind]}
    for name in content:
        if name not in known:
            raise InputError(f"{where}: unknown field {name!r} of {kind}{near(name, known)}")
    for name in _NEEDED[kind]:
        if content.get(name) is None:
            raise InputError(f"{where}: the field {name!r} of {kind} is missing")

    def get(name: str, default: float) -> float:
        return default if content.get(name) is None else number(content, name, where)

    if kind == "default":
        return None
    if kind == "linear":
        return RopeScaling("linear", get("factor", 1.0))
    if kind == "longrope":
        return _longrope(content, values, where)
    name = "original_max_position_embeddings"
    stated = content.get(name) is not None
    original = (
        whole_number(content, name, where)
        if stated
        else whole_number(values, "max_position_embeddings", where)
    )
    factor = get("factor", 1.0)
    if kind == "llama3":
        return RopeScaling(
            "llama3", factor, original, low=get("low_freq_factor", 1.0), high=get("high_freq_factor", 4.0)
        )
    truncate = content.get("truncate", True)
    if not isinstance(truncate, bool):
        raise InputError(f"{where}: truncate is {truncate!r}, expected true or false")
    return RopeScaling(
        "yarn", factor, original, slow=get("beta_slow", 1.0), fast=get("beta_fast", 32.0), truncate=truncate,
        size=get("attention_factor", _yarn_size(content, factor, where)),
    )  # fmt: skip


def write(config: ModelConfig, *, base: str = "rope_theta", kind: str = "rope_type") -> dict[str, Any]:
    """The inverse of `read`: ``rope_theta`` (or the field ``base``) and ``rope_scaling``, its kind in field ``kind``.

    The factor on queries and keys is written only where it is not the one that follows from the other fields.
    """
    scaling = config.rope_scaling
    fields: dict[str, Any] = {base: config.rope_base, "rope_scaling": None}
    if scaling is None:
        return fields
    original = {"original_max_position_embeddings": scaling.original_context}
    implied = 1.0
    if scaling.kind == "linear":
        content: dict[str, Any] = {"factor": scaling.factor}
    elif scaling.kind == "llama3":
        edges = {"low_freq_factor": scaling.low, "high_freq_factor": scaling.high}
        content = {"factor": scaling.factor, **edges, **original}
    elif scaling.kind == "yarn":
        ramp: dict[str, Any] = {"beta_fast": scaling.fast, "beta_slow": scaling.slow}
        content = {"factor": scaling.factor, **original, **ramp}
        content |= {} if scaling.truncate else {"truncate": False}
        implied = magnitude(scaling.factor, 1.0)
    else:
        divisors = {"short_factor": list(scaling.short), "long_factor": list(scaling.long)}
        content = {**divisors, **original}
        implied = _longrope_size(config.context / scaling.original_context, scaling.original_context)
    if scaling.kind in ("yarn", "longrope") and scaling.size != implied:
        content["attention_factor"] = scaling.size
    fields["rope_scaling"] = {kind: scaling.kind, **content}
    return fields


def magnitude(factor: float, weight: float) -> float:
    """YaRN's factor on queries and keys for a context ``factor`` times as long (2309.00071, section 3.4)."""
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def _yarn_size(content: Mapping[str, Any], factor: float, where: str) -> float:
    if content.get("mscale") and content.get("mscale_all_dim"):
        weights = [number(content, name, where) for name in ("mscale", "mscale_all_dim")]
        return magnitude(factor, weights[0]) / magnitude(factor, weights[1])
    return magnitude(factor, 1.0)


def _longrope_size(factor: float, original: int) -> float:
    """LongRoPE's factor on queries and keys for a context ``factor`` times as long (2402.13753)."""
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))


def _longrope(content: Mapping[str, Any], values: Mapping[str, Any], where: str) -> RopeScaling:
    context = whole_number(values, "max_position_embeddings", where)
    original, factor = context, content.get("factor")
    if values.get("original_max_position_embeddings") is not None:
        original = whole_number(values, "original_max_position_embeddings", where)
        factor = context / original
    elif content.get("original_max_position_embeddings") is not None:
        original = whole_number(content, "original_max_position_embeddings", where)
        factor = context / original if factor is None else factor
    if content.get("attention_factor") is not None:
        size = number(content, "attention_factor", where)
    elif factor is None:
        raise InputError(f"{where}: longrope needs a factor, an attention_factor or the original context")
    else:
        size = _longrope_size(factor, original)
    divisors: dict[str, Any] = {}
    for name in ("short_factor", "long_factor"):
        given = content[name]
        if not isinstance(given, list):
            raise InputError(f"{where}: {name} is {given!r}, expected a list of numbers")
        divisors[name.removesuffix("_factor")] = tuple(given)
    return RopeScaling("longrope", original_context=original, size=size, **divisors)
