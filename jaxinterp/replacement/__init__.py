"""Floor 5: the model with a dictionary in place of its MLPs, frozen and linear or live."""

from jaxinterp.replacement.freeze import Run, freeze
from jaxinterp.replacement.operator import (
    LayerSources,
    Reads,
    ReplacementOperator,
    Sources,
    make_operator,
    model_sources,
)

__all__ = [
    "LayerSources",
    "Reads",
    "ReplacementOperator",
    "Run",
    "Sources",
    "freeze",
    "make_operator",
    "model_sources",
]
