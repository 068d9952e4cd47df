"""Counting the floating-point operations of a function by walking its jaxpr."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any


def count(function: Callable[..., Any], *args: Any) -> int:
    """Multiply-adds of every matrix product in ``function(*args)``, times two.

    Loop bodies count once per iteration where the number of iterations is static (``scan``); a
    ``while`` loop with a dynamic number raises. The body of a `jax.shard_map` counts for every device.
    Elementwise work is left out. XLA's own cost analysis counts loop bodies once, which is why this exists.

    Args:
      function: a traceable function.
      args: arrays or ``jax.ShapeDtypeStruct``.
    """
    import jax

    return _walk(jax.make_jaxpr(function)(*args).jaxpr)


def _walk(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == "dot_general":
            (lhs_contract, _), _ = equation.params["dimension_numbers"]
            lhs = equation.invars[0].aval.shape
            contracted = math.prod(lhs[axis] for axis in lhs_contract)
            total += 2 * math.prod(equation.outvars[0].aval.shape) * contracted
            continue
        if name == "ragged_dot_general":
            total += _ragged(equation)
            continue
        if name == "while":
            inner = _walk(equation.params["body_jaxpr"].jaxpr)
            if inner:
                raise ValueError("cannot count the operations of a while loop with a dynamic length")
            continue
        repeat = equation.params.get("length", 1) if name == "scan" else 1
        if name == "shard_map":
            repeat = equation.params["mesh"].size
        inner_totals = [_walk(sub) for sub in _sub_jaxprs(equation.params)]
        if name == "cond":
            total += max(inner_totals, default=0)
        else:
            total += repeat * sum(inner_totals)
    return total


def _ragged(equation: Any) -> int:
    """Every row of a ragged product belongs to one group."""
    numbers = equation.params["ragged_dot_dimension_numbers"]
    (lhs_contract, _), _ = numbers.dot_dimension_numbers
    lhs, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    total = 2 * math.prod(out) * math.prod(lhs[axis] for axis in lhs_contract)
    by_group = set(numbers.lhs_ragged_dimensions) & set(lhs_contract)  # then the result has an axis of groups
    return total // out[0] if by_group else total


def _sub_jaxprs(params: dict[str, Any]) -> list[Any]:
    found = []
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(item, "jaxpr"):
                found.append(item.jaxpr)
            elif hasattr(item, "eqns"):
                found.append(item)
    return found
