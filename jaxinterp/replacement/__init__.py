"""Floor 5: the model with dictionaries in place of what its layers write, frozen and linear or live."""

from jaxinterp.replacement.agreement import Agreement, agreement
from jaxinterp.replacement.freeze import Run, freeze
from jaxinterp.replacement.layer import LayerSources, PartArrays
from jaxinterp.replacement.linearise import LINEARISATIONS, Linearisation, linearise
from jaxinterp.replacement.operator import (
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
    "LINEARISATIONS",
    "Agreement",
    "LayerSources",
    "Linearisation",
    "PartArrays",
    "Place",
    "Reads",
    "ReplacementOperator",
    "Run",
    "Sources",
    "agreement",
    "freeze",
    "linearise",
    "make_operator",
    "model_sources",
    "own_writes",
    "part_arrays",
    "places",
]
