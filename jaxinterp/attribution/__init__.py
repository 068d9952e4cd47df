"""Floor 6: everything that makes a graph: targets, direct effects, selection."""

from jaxinterp.attribution.reproduce import Comparison, reproduce
from jaxinterp.attribution.targets import Direction
from jaxinterp.attribution.tracing import trace

__all__ = ["Comparison", "Direction", "reproduce", "trace"]
