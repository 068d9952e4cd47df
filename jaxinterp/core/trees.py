"""Dotted paths and digests of pytrees of arrays."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
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
    total = hashlib.sha256()
    for path, leaf in sorted(paths(tree), key=lambda item: item[0]):
        array = np.ascontiguousarray(np.asarray(leaf))
        total.update(f"{path} {array.dtype.name} {array.shape}\n".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def digest_with_config(config: Any, tree: Tree) -> str:
    """sha256 of a config (a dataclass with ``to_dict``) and of a tree of arrays.

    Fields at their default values do not count, so that a field added later leaves old digests as they are.
    """
    defaults = {f.name: f.default for f in dataclasses.fields(config)}
    values = config.to_dict()
    told = {name: value for name, value in values.items() if getattr(config, name) != defaults[name]}
    return hashlib.sha256(f"{json.dumps(told, sort_keys=True)}\n{digest(tree)}".encode()).hexdigest()
