"""A `ModelConfig` as the ``config.json`` of a Hugging Face family, checked by reading it again."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxinterp.checkpoints.families import FAMILIES
from jaxinterp.checkpoints.families.base import Family
from jaxinterp.checkpoints.huggingface import read_config
from jaxinterp.core.errors import InputError, near
from jaxinterp.models.config import ModelConfig

_ROTARY = ("rope_base", "rope_pairs", "rope_width", "rope_scaling", "rope_local_base")


def write_config(config: ModelConfig, family: str | None = None) -> tuple[Family, dict[str, Any]]:
    """A family and the content of ``config.json`` that it reads as ``config``.

    The family writes the fields it has; they are then read as any config is, and what comes back must mean the
    same as ``config``. So nothing that a family cannot say is ever dropped in silence.

    Args:
      family: a ``model_type``; None takes the first that can express ``config``.

    Raises:
      InputError: no such family, one that is only read, or something that the family (or any) cannot express, the first
        such field named with both values.
    """
    written = {name: each for name, each in FAMILIES.items() if each.export is not None}
    if family is None:
        misfits = {name: _misfits(each, config) for name, each in written.items()}
        family = min(misfits, key=lambda name: len(misfits[name]))
        if misfits[family]:
            raise InputError(
                f"no Hugging Face family that is written can express this model; nearest is {misfits[family][0]}"
            )
    if family not in written:
        what = "is only read" if family in FAMILIES else "is no family that is known"
        raise InputError(
            f"{family!r} {what}{near(family, written)}; written are {', '.join(sorted(written))}"
        )
    found = _misfits(written[family], config)
    if found:
        raise InputError(f"this model does not fit its family: {found[0]}")
    return written[family], _content(written[family], config)


def _content(family: Family, config: ModelConfig) -> dict[str, Any]:
    assert family.export is not None
    kind = {"architectures": [family.architecture], "model_type": family.model_type}
    return {**kind, **family.export(config)}


def _misfits(family: Family, config: ModelConfig) -> list[str]:
    """Everything about ``config`` that does not come back when ``family`` has written and read it."""
    if family.inner is not None:
        return [f"{family.model_type}, of which only the text part is known"]
    content = _content(family, config)
    try:
        again = read_config(content, f"a {family.model_type} config")[1]
    except InputError as error:
        # What the family could not say made its config one that cannot be: so much for this family.
        return [f"{family.model_type}: {error}"] * len(dataclasses.fields(config))
    wanted, found = meaning(config), meaning(again)
    return [
        f"{family.model_type}, which cannot have {field.name} {_value(wanted, field.name)}, "
        f"only {_value(found, field.name)}"
        for field in dataclasses.fields(config)
        if getattr(wanted, field.name) != getattr(found, field.name)
    ]


def _value(config: ModelConfig, name: str) -> str:
    text = repr(getattr(config, name))
    return text if len(text) <= 60 else text[:57] + "..."


def meaning(config: ModelConfig) -> ModelConfig:
    """``config`` with one way of writing where there are two for the same computation.

    The scale of scores is spelled out; windows that are none are left out, and so are the width of MLPs where all
    are experts and fields about rotary positions that nothing reads.
    """
    windows = config.windows if any(config.windows) else ()
    width = None if config.rope_width == config.d_head else config.rope_width
    local = config.rope_local_base if windows else None
    if config.rope_scaling is None and local == config.rope_base:
        local = None
    changes: dict[str, Any] = {
        "query_scale": config.score_scale, "windows": windows, "rope_width": width, "rope_local_base": local,
    }  # fmt: skip
    if config.experts is not None and not config.experts.dense_layers:
        changes["d_mlp"] = config.experts.d_expert
    if config.positions != "rope":
        defaults = {field.name: field.default for field in dataclasses.fields(config)}
        changes |= {name: defaults[name] for name in _ROTARY}
    return dataclasses.replace(config, **changes)
