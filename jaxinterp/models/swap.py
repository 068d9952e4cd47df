"""Values at sites that a function of earlier values takes the place of, as data of a forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxinterp.core.letters import Array
from jaxinterp.models.sites import Touch


class SiteSwap(NamedTuple):
    """Something that reads and replaces values at any site, from layer to layer (implies an unrolled pass).

    What it replaces and nothing else uses, such as the MLP's output, is not computed once the pass is compiled.

    Attributes:
      step: (carry, layer, site, value) → (carry, value), called at every site of every layer in the order of
        `sites.LAYER_SITES`. ``layer`` is a Python int. Edits at the site come after it.
      carry: its first carry.
    """

    step: Callable[[Any, int, str, Array], tuple[Any, Array]]
    carry: Any


class Swapping:
    """The toucher of one layer that hands every value to a `SiteSwap` first and keeps its carry."""

    def __init__(self, swap: SiteSwap, carry: Any, layer: int, touch: Touch) -> None:
        self.swap, self.carry, self.layer, self.touch = swap, carry, layer, touch

    def __call__(self, site: str, value: Array) -> Array:
        self.carry, value = self.swap.step(self.carry, self.layer, site, value)
        return self.touch(site, value)
