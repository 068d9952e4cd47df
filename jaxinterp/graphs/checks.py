"""How exactly the identities of an attribution graph hold on this very graph.

I1  the logits of the replacement model (frozen, with errors) are the model's own; measured by the tracer.
I2  for every feature t:  Σ_s A[t, s] + left out + constant = pre-activation of t.
I3  for every target t the same with its demeaned logit.
I2 and I3 are reported as |residual| / Σ_s |A[t, s]|, the largest over the nodes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from jaxinterp.core.display import html
from jaxinterp.graphs.build import Csr
from jaxinterp.graphs.kinds import FEATURE, KIND_NAMES, TARGET
from jaxinterp.graphs.order import row_sums

TOLERANCES = {"float32": 1e-4, "float64": 1e-10}


@dataclass(frozen=True)
class Checks:
    """Relative residuals of I1-I3 (None: not measurable, as on imported graphs) and whether all are small."""

    identity_1: float | None
    identity_2: float | None
    identity_3: float | None
    worst: int | None  # node with the largest residual of I2 and I3, in the graph as traced
    worst_name: str
    tolerance: float
    ok: bool

    @property
    def measured(self) -> bool:
        """Whether there was anything to check."""
        return any(x is not None for x in (self.identity_1, self.identity_2, self.identity_3))

    def __str__(self) -> str:
        if not self.measured:
            return "checks: none possible (the graph carries no pre-activations)"
        figures = ", ".join(
            f"{name} {'-' if value is None else format(value, '.1e')}"
            for name, value in (("I1", self.identity_1), ("I2", self.identity_2), ("I3", self.identity_3))
        )
        if self.ok:
            return f"checks: exact ({figures}; tolerance {self.tolerance:.0e})"
        return (
            f"CHECKS FAILED: THIS GRAPH IS NOT EXACT ({figures}; tolerance {self.tolerance:.0e}; "
            f"worst: {self.worst_name or 'replacement logits'})"
        )

    def _repr_html_(self) -> str:
        return html("checks", self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Checks:
        """The checks that `to_dict` gave."""
        return Checks(**data)


def residuals(csr: Csr, nodes: np.ndarray) -> np.ndarray:
    """|Σ edges + left out + constant - value| / Σ |edges| for every node, (n,); nan where value is unknown.

    Where a node has no edges the divisor is the size of what was left out and the constant, or 1.
    """
    total, size = row_sums(csr, signed=True), row_sums(csr)
    other = np.abs(nodes["left_out"]) + np.abs(nodes["constant"])
    divisor = np.where(size > 0, size, np.where(other > 0, other, 1.0))
    return np.abs(total + nodes["left_out"] + nodes["constant"] - nodes["value"]) / divisor


def check(csr: Csr, nodes: np.ndarray, identity_1: float | None) -> Checks:
    """Checks of an unpruned graph. A measured figure that is not finite counts as a failure."""
    relative = residuals(csr, nodes)
    known = ~np.isnan(nodes["value"])
    relative = np.where(known & np.isnan(relative), np.inf, relative)
    found: dict[int, float | None] = {}
    for kind in (FEATURE, TARGET):
        values = relative[known & (nodes["kind"] == kind)]
        found[kind] = float(values.max()) if values.size else None
    figures = [identity_1, found[FEATURE], found[TARGET]]
    tolerance = TOLERANCES[csr.weights.dtype.name]
    measured = [x for x in figures if x is not None]
    worst: int | None = None
    name = ""
    if known.any() and (found[FEATURE] is not None or found[TARGET] is not None):
        inputs = known & ((nodes["kind"] == FEATURE) | (nodes["kind"] == TARGET))
        worst = int(np.argmax(np.where(inputs, relative, -1.0)))
        node = nodes[worst]
        place = f"layer {node['layer']}, position {node['position']}"
        name = f"{KIND_NAMES[node['kind']]} {node['index']} at {place}"
    ok = bool(measured) and all(np.isfinite(x) and x <= tolerance for x in measured)
    return Checks(identity_1, found[FEATURE], found[TARGET], worst, name, tolerance, ok)
