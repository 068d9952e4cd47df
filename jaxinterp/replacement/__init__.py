"""Floor 5: the model with dictionaries in place of what its layers write, frozen and linear or live."""

from jaxinterp.replacement.freeze import Run, freeze
from jaxinterp.replacement.operator import (
    LayerSources,
    PartArrays,
    Reads,
    ReplacementOperator,
    Sources,
    make_operator,
    model_sources,
    own_writes,
    part_arrays,
)
from jaxinterp.replacement.parts import Place, places

__all__ = [
    "LayerSources",
    "PartArrays",
    "Place",
    "Reads",
    "ReplacementOperator",
    "Run",
    "Sources",
    "freeze",
    "make_operator",
    "model_sources",
    "own_writes",
    "part_arrays",
    "places",
]
