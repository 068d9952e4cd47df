"""Floor 6: everything that makes a graph: targets, direct effects, selection; and compares graphs."""

from jaxinterp.attribution.contrast import Contrast, contrast, load_contrast
from jaxinterp.attribution.reproduce import Comparison, reproduce
from jaxinterp.attribution.search import active_only, activity, as_target, overlap
from jaxinterp.attribution.tracing import trace
from jaxinterp.attribution.wanted import (
    Completion,
    Difference,
    Direction,
    Feature,
    Salient,
    Supernode,
    Token,
)

__all__ = [
    "Comparison",
    "Completion",
    "Contrast",
    "Difference",
    "Direction",
    "Feature",
    "Salient",
    "Supernode",
    "Token",
    "active_only",
    "activity",
    "as_target",
    "contrast",
    "load_contrast",
    "overlap",
    "reproduce",
    "trace",
]
