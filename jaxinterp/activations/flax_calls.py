"""A Flax module as a pure function from tokens to the values inside it, each by its path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree

Inputs = Callable[[Array, Array, Array], tuple[tuple[Any, ...], dict[str, Any]]]
"""(tokens, positions, segments), [B, T] each → (arguments, keywords) of the module's call."""
Run = Callable[[Tree, Array, Array, Array, "frozenset[str] | None"], dict[str, Any]]
"""(variables, tokens, positions, segments, wanted paths or None for all) → path → value."""


def as_function(
    module: Any, variables: Any, inputs: Inputs | None, keywords: dict[str, Any]
) -> tuple[Run, Tree]:
    """The pure function of a module, and its arrays.

    Raises:
      InputError: no linen or nnx module, or variables that are missing or too many.
    """
    from flax import linen, nnx

    def arguments(tokens: Array, positions: Array, segments: Array) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args, more = ((tokens,), {}) if inputs is None else inputs(tokens, positions, segments)
        return args, {**keywords, **more}

    if isinstance(module, nnx.Module):
        if variables is not None:
            raise InputError("flax source: an nnx module has its variables inside: leave variables out")
        return partial(_run_nnx, nnx.graphdef(module), arguments), nnx.state(module)
    if isinstance(module, linen.Module):
        if not isinstance(variables, Mapping) or "params" not in variables:
            raise InputError('flax source: a linen module needs its variables: give {"params": ...}')
        kept = {name: value for name, value in variables.items() if name != "intermediates"}
        return partial(_run_linen, module, arguments), kept
    raise InputError(f"flax source: a {type(module).__name__} is neither a linen nor an nnx module")


def _run_linen(
    module: Any, arguments: Inputs, variables: Tree, tokens: Array, positions: Array, segments: Array,
    wanted: frozenset[str] | None,
) -> dict[str, Any]:  # fmt: skip
    def asked(inner: Any, method: str) -> bool:
        path = "/".join(map(str, inner.path if method == "__call__" else (*inner.path, method)))
        return wanted is None or any(w == path or w.startswith((f"{path}/", f"{path}[")) for w in wanted)

    args, keywords = arguments(tokens, positions, segments)
    _, state = module.apply(
        variables, *args, capture_intermediates=asked, mutable=["intermediates"], **keywords
    )
    return flatten(state.get("intermediates", {}))


def _run_nnx(
    graphdef: Any, arguments: Inputs, state: Tree, tokens: Array, positions: Array, segments: Array,
    wanted: frozenset[str] | None,
) -> dict[str, Any]:  # fmt: skip
    from flax import nnx

    del wanted  # what is not read is not computed, once compiled
    args, keywords = arguments(tokens, positions, segments)
    called = nnx.capture(lambda m, *a, **k: m(*a, **k), nnx.Intermediate, method_outputs=nnx.Intermediate)
    _, found = called(nnx.merge(graphdef, state), *args, **keywords)
    return flatten(nnx.to_pure_dict(found))


def flatten(node: Mapping[Any, Any], path: str = "") -> dict[str, Any]:
    """Path → array, for every value that a nested dict of intermediates holds."""
    found: dict[str, Any] = {}
    for key, value in node.items():
        here = path if key == "__call__" and path else f"{path}/{key}".lstrip("/")
        if isinstance(value, Mapping):
            found |= flatten(value, here)
            continue
        calls = value if isinstance(value, tuple) else (value,)
        for i, call in enumerate(calls):
            at = here if len(calls) == 1 else f"{here}[{i}]"
            for inner, leaf in jax.tree_util.tree_flatten_with_path(call)[0]:
                if hasattr(leaf, "shape"):
                    keys = (str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", k)))) for k in inner)
                    found["/".join([at, *keys])] = leaf
    return found
