"""Dotted paths and digests of pytrees of arrays."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxinterp.core.letters import Tree


def paths(tree: Tree) -> list[tuple[str, Any]]:
    """Every leaf with its dotted path, in the tree's own order: ``[("layers.q", array), ...]``."""
    import jax

    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(".".join(_key(entry) for entry in path), leaf) for path, leaf in leaves]


def _key(entry: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)


def unflatten(leaves: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """The nested dict whose dotted paths and leaves are ``leaves``."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, last = path.split(separator)
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree


def digest(tree: Tree) -> str:
    """sha256 over sorted paths, dtypes, shapes and little-endian bytes of all leaves."""

    def leaves() -> Iterator[tuple[str, str, tuple[int, ...], Iterable[np.ndarray]]]:
        for path, leaf in sorted(paths(tree), key=lambda item: item[0]):
            array = np.ascontiguousarray(np.asarray(leaf))
            yield path, array.dtype.name, array.shape, (array,)

    return _digest(leaves())


def _digest(leaves: Iterable[tuple[str, str, tuple[int, ...], Iterable[np.ndarray]]]) -> str:
    total = hashlib.sha256()
    for path, dtype, shape, parts in leaves:
        total.update(f"{path} {dtype} {shape}\n".encode())
        for part in parts:
            total.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def digest_leaves(
    config: Any, leaves: Iterable[tuple[str, str, tuple[int, ...], Iterable[np.ndarray]]]
) -> str:
    """`digest_with_config` of leaves that come one after the other, sorted by path, their values in parts.

    Args:
      leaves: (path, name of the dtype, shape, values in C order in any number of parts).
    """
    return _with_config(config, _digest(leaves))


def digest_with_config(config: Any, tree: Tree) -> str:
    """sha256 of a config (a dataclass with ``to_dict``) and of a tree of arrays.

    Fields at their default values do not count, so that a field added later leaves old digests as they are. Of arrays
    that do not change (those of JAX) it is kept as long as they live: reading them all takes longer than a graph.
    """
    return _with_config(config, _digest_once(tree))


_KNOWN: dict[tuple[Any, ...], tuple[list[Any], str]] = {}


def _digest_once(tree: Tree) -> str:
    import weakref

    import jax

    leaves, structure = jax.tree.flatten(tree)
    if not leaves or not all(isinstance(leaf, jax.Array) for leaf in leaves):
        return digest(tree)
    key = (structure, *(id(leaf) for leaf in leaves))
    kept = _KNOWN.get(key)
    if kept is not None and all(ref() is leaf for ref, leaf in zip(kept[0], leaves, strict=True)):
        return kept[1]
    for old in [old for old, (refs, _) in _KNOWN.items() if any(ref() is None for ref in refs)]:
        del _KNOWN[old]
    found = digest(tree)
    _KNOWN[key] = [weakref.ref(leaf) for leaf in leaves], found
    return found


def _with_config(config: Any, of_tree: str) -> str:
    defaults = {f.name: f.default for f in dataclasses.fields(config)}
    values = config.to_dict()
    told = {name: value for name, value in values.items() if getattr(config, name) != defaults[name]}
    return hashlib.sha256(f"{json.dumps(told, sort_keys=True)}\n{of_tree}".encode()).hexdigest()
