"""Parameters as other JAX programs hold them: a nested tree in memory or an Orbax folder, read leaf by leaf."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxinterp.core.errors import InputError, near

if TYPE_CHECKING:
    from jax.sharding import Sharding

_FLOATS = ("float16", "bfloat16", "float32", "float64")
# What training programs store beside the parameters: Flax's TrainState and Kauldron's state.
_BESIDE = ("step", "opt_state", "collections")
_INSIDE = ("items", "default", "params", "state")


class Stored(NamedTuple):
    """The shape and dtype of a stored leaf."""

    shape: tuple[int, ...]
    dtype: np.dtype


class Memory:
    """A tree in memory: a nested dict, a Flax ``FrozenDict``, linen variables, an nnx ``State`` or module.

    Attributes:
      where: how messages call it.
      leaves: path of the tree, its keys joined by ``/`` → `Stored`.
    """

    def __init__(self, tree: Any) -> None:
        self.where = "the tree of parameters"
        self._arrays: dict[str, Any] = {}
        _walk(_plain(tree), "", self._arrays)
        names = _parameters(list(self._arrays), self.where)
        self._arrays = {bare: self._arrays[name] for bare, name in names.items()}
        self.leaves = {name: _stored(leaf, name, self.where) for name, leaf in self._arrays.items()}

    def read(self, names: Sequence[str], shardings: Sequence[Sharding] | None, dtype: np.dtype) -> list[Any]:
        """The leaves ``names``: host arrays, or arrays on devices where there are ``shardings``."""
        import jax

        del dtype
        for name in names:
            if isinstance(self._arrays[name], jax.ShapeDtypeStruct):
                raise InputError(f"{self.where}: {name!r} has a shape and no numbers")
        if shardings is None:
            return [np.asarray(self._arrays[name]) for name in names]
        return [jax.device_put(self._arrays[n], s) for n, s in zip(names, shardings, strict=True)]


class OrbaxTree:
    """An Orbax checkpoint of a PyTree that another program wrote.

    Attributes:
      where, leaves: as of `Memory`.

    Raises:
      InputError: no checkpoint there, one that cannot be read, or one that holds no tree of arrays.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        import orbax.checkpoint as ocp

        logging.getLogger("absl").setLevel(logging.ERROR)
        self.folder = _find(Path(folder)).resolve()
        self.where = str(folder)
        try:
            with ocp.StandardCheckpointer() as reader:
                saved = reader.metadata(self.folder)
        except Exception as error:  # Orbax and TensorStore raise many kinds
            raise InputError(f"{folder} cannot be read: {_reason(error)}") from error
        tree = getattr(getattr(saved, "item_metadata", saved), "tree", None)
        if not isinstance(tree, Mapping):
            raise InputError(f"{folder} cannot be read: its metadata describe no tree of arrays")
        found: dict[str, Any] = {}
        self._keys: dict[str, tuple[Any, ...]] = {}
        _walk(tree, "", found, (), self._keys)
        names = _parameters(list(found), self.where)
        self._keys = {bare: self._keys[name] for bare, name in names.items()}
        self.leaves = {bare: _stored(found[name], name, self.where) for bare, name in names.items()}

    def read(self, names: Sequence[str], shardings: Sequence[Sharding] | None, dtype: np.dtype) -> list[Any]:
        """The leaves ``names`` and no others; with ``shardings`` every host reads its own part."""
        import orbax.checkpoint as ocp

        item: dict[Any, Any] = {}
        options: dict[Any, Any] = {}
        for i, name in enumerate(names):
            stored = self.leaves[name]
            # A float64 leaf would be cut down in silence while 64-bit types are off: it is cast while it is read.
            as_dtype = dtype if stored.dtype == np.float64 else None
            if shardings is None:
                option = ocp.RestoreArgs(restore_type=np.ndarray, dtype=as_dtype)
            else:
                option = ocp.ArrayRestoreArgs(sharding=shardings[i], dtype=as_dtype)
            _put(item, self._keys[name], _struct(stored))
            _put(options, self._keys[name], option)
        try:
            with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
                wanted = ocp.args.PyTreeRestore(item=item, restore_args=options, partial_restore=True)
                tree = reader.restore(self.folder, args=wanted)
        except Exception as error:
            raise InputError(f"{self.where} cannot be read: {_reason(error)}") from error
        return [_get(tree, self._keys[name]) for name in names]


Tree = Memory | OrbaxTree


def open_tree(source: Any) -> Tree:
    """`OrbaxTree` for a path, `Memory` for anything else.

    Raises:
      InputError: neither a folder nor a tree of arrays.
    """
    if isinstance(source, str | os.PathLike):
        return OrbaxTree(source)
    return Memory(source)


def _plain(tree: Any) -> Any:
    """A nested dict of what Flax hands out, with nothing around the arrays."""
    from flax import nnx

    if isinstance(tree, nnx.Module):
        tree = nnx.state(tree, nnx.Param)
    if isinstance(tree, nnx.State):
        kept = [(path, leaf) for path, leaf in nnx.to_flat_state(tree) if not isinstance(leaf, nnx.RngState)]
        tree = {"/".join(map(str, path)): leaf for path, leaf in kept}
    if not isinstance(tree, Mapping):
        raise InputError(
            f"a {type(tree).__name__} is no tree of parameters: give a nested dict, linen variables, an nnx module "
            "or State, or the folder of an Orbax checkpoint"
        )
    return tree


def _walk(
    node: Any, path: str, found: dict[str, Any], keys: tuple[Any, ...] = (),
    every: dict[str, tuple[Any, ...]] | None = None,
) -> None:  # fmt: skip
    """Collect the leaves under ``node`` by their paths, and the keys on the way where they are asked for."""
    if isinstance(node, Mapping) or (isinstance(node, list | tuple) and not hasattr(node, "dtype")):
        items = node.items() if isinstance(node, Mapping) else enumerate(node)
        for key, value in items:
            _walk(value, f"{path}/{key}" if path else str(key), found, (*keys, key), every)
        return
    if node is None:
        return
    if path in found:
        raise InputError(f"the tree of parameters has two leaves at {path}")
    found[path] = _unboxed(node)
    if every is not None:
        every[path] = keys


def _unboxed(leaf: Any) -> Any:
    """The array in a leaf that carries names of axes (linen) or is a variable (nnx)."""
    from flax import nnx
    from flax.core import meta

    while isinstance(leaf, meta.AxisMetadata | nnx.Variable):
        leaf = leaf.unbox() if isinstance(leaf, meta.AxisMetadata) else leaf.get_value()
    return leaf


def _parameters(names: list[str], where: str) -> dict[str, str]:
    """Path below ``params`` (which may come twice) → whole path. What else a training state holds is left out."""
    bare = {name: name for name in names}
    while any(name.startswith("params/") for name in bare):
        inside = {name[len("params/") :]: whole for name, whole in bare.items() if name.startswith("params/")}
        for name, whole in bare.items():
            top = name.split("/", 1)[0]
            if top != "params" and top not in _BESIDE:
                raise InputError(
                    f"{where}: {whole!r} is beside the parameters{near(top, ('params',))}; a model with other "
                    "variables than params is not of a layout that is read"
                )
        bare = inside
    return bare


def _stored(leaf: Any, name: str, where: str) -> Stored:
    shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
    if shape is None or dtype is None:
        raise InputError(f"{where}: {name!r} is {type(leaf).__name__}, expected an array")
    try:
        kind = np.dtype(dtype)
    except TypeError:
        kind = None
    if kind is None or kind.name not in _FLOATS:
        raise InputError(
            f"{where}: {name!r} has dtype {getattr(kind, 'name', dtype)}, supported are {', '.join(_FLOATS)}"
        )
    return Stored(tuple(shape), kind)


def _find(folder: Path) -> Path:
    """The folder of the tree itself: checkpoint managers put it one further in."""
    if not folder.is_dir():
        hint = ""
        if folder.parent.is_dir():
            hint = near(folder.name, (entry.name for entry in folder.parent.iterdir()))
        raise InputError(f"no Orbax checkpoint at {folder}{hint}")
    for place in (folder, *(folder / name for name in _INSIDE)):
        if (place / "_METADATA").is_file():
            return place
    inside = sorted(entry.name for entry in folder.iterdir())
    steps = [name for name in inside if name.isdigit()]
    hint = f"; give one of its steps, such as {folder / steps[-1]}" if steps else ""
    raise InputError(
        f"{folder} is no Orbax checkpoint: no _METADATA in it but {', '.join(inside[:5]) or 'nothing'}{hint}"
    )


def _struct(stored: Stored) -> Any:
    import jax

    return jax.ShapeDtypeStruct(stored.shape, stored.dtype)


def _put(tree: dict[Any, Any], keys: tuple[Any, ...], value: Any) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
    tree[keys[-1]] = value


def _get(tree: Any, keys: tuple[Any, ...]) -> Any:
    for key in keys:
        tree = tree[key]
    return tree


def _reason(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
