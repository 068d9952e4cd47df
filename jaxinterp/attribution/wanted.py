"""What may be asked of a graph: the sorts of targets, as plain frozen values.

A position may be negative: it counts from the end of the prompt as given. Where several positions are given, there is
one target at each. ``weight`` sets what a target counts in the influence; None takes the rule of its sort
(`targets.resolve`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Positions = int | Sequence[int]
TokenLike = int | str


@dataclass(frozen=True)
class Salient:
    """The most probable next tokens at a position: the fewest that reach ``mass``, at most ``at_most``.

    What ``targets=None`` asks for, at the last position (*Circuit Tracing*, "Attribution graphs").
    """

    position: Positions = -1
    mass: float = 0.95
    at_most: int = 10
    weight: float | None = None


@dataclass(frozen=True)
class Token:
    """A next token by id or text, at any position."""

    token: TokenLike
    position: Positions = -1
    weight: float | None = None


@dataclass(frozen=True)
class Completion:
    """A continuation of the prompt, each token of it a target at the position before it (teacher forcing).

    The prompt that is traced is the given one and the completion but for its last token, which nothing depends on.
    """

    text: str | Sequence[int]
    weight: float | None = None


@dataclass(frozen=True, eq=False)
class Direction:
    """A direction [D] in what is read at a place.

    Attributes:
      vector: [D].
      label: shown to people.
      position: where in the prompt.
      layer: None for what the unembedding reads after the final norm; else a layer.
      site: with ``layer``: a part ("attention", "mlp", "residual") or the site that one reads; may be left out where
        only one part covers the layer.
    """

    vector: Any
    label: str
    position: Positions = -1
    layer: int | None = None
    site: str | None = None
    weight: float | None = None


@dataclass(frozen=True)
class Difference:
    """A logit difference: the mean over tokens ``plus`` less the mean over tokens ``minus``.

    Without ``minus`` it is the mean of the demeaned logits of a group of tokens.
    """

    plus: TokenLike | Sequence[TokenLike]
    minus: TokenLike | Sequence[TokenLike] = ()
    position: Positions = -1
    weight: float | None = None


@dataclass(frozen=True)
class Feature:
    """The pre-activation of a feature of a part, active or not.

    ``part`` is "attention", "mlp" or "residual"; None means the only one there is, or "mlp".
    """

    layer: int
    index: int
    position: Positions = -1
    part: str | None = None
    weight: float | None = None


@dataclass(frozen=True)
class Supernode:
    """A weighted sum of pre-activations of features at one or several places; every weight is 1 if not given."""

    name: str
    members: Sequence[Feature]
    weights: Sequence[float] | None = None
    weight: float | None = None


SORTS: dict[str, type] = {
    "salient": Salient,
    "token": Token,
    "completion": Completion,
    "direction": Direction,
    "difference": Difference,
    "feature": Feature,
    "supernode": Supernode,
}
Target = Salient | Token | Completion | Direction | Difference | Feature | Supernode
