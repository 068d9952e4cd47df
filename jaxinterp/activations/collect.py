"""Collecting activations into a store: any sites, for many dictionaries, in one forward pass over a mesh.

Letters: L layers, B sequences of a text batch, T tokens of each, b sequences a block.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxinterp.activations import store_ledger
from jaxinterp.activations.collect_loop import Run, rows_of
from jaxinterp.activations.collect_mesh import Forward, values_of
from jaxinterp.activations.documents import origin
from jaxinterp.activations.flax_source import FlaxSource
from jaxinterp.activations.store_layout import LEDGER, TOKENS, Layout, Site, chunk_rows
from jaxinterp.activations.store_quantise import DTYPES
from jaxinterp.activations.store_reader import Store
from jaxinterp.activations.store_writer import Lock, prepare
from jaxinterp.activations.text import SAMPLED, Source, TextConfig, make_source
from jaxinterp.core.errors import InputError
from jaxinterp.core.progress import Progress
from jaxinterp.core.provenance import versions
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.models.model import Model
from jaxinterp.models.sites import SITES, check_sites
from jaxinterp.parallel.rules import DEFAULT_RULES, Rules

if TYPE_CHECKING:
    from jax.sharding import Mesh

SHARD_BYTES = 64 << 20


@dataclass(frozen=True)
class CollectConfig:
    """What is collected.

    Attributes:
      sites: names of sites, all layers, or chosen layers as in "resid_post@3,7".
      batches: text batches to run over; the store has ``batches · text.batch · text.length`` tokens.
      text: which tokens.
      seed: of the text.
      dtype: as which activations are stored: "float32", "bfloat16" or "int8" (a scale for every token and layer).
      microbatch: sequences that a device (or a group that shares a model) runs at a time. Results can depend on it in
        the last digit, so a store is made with one.
      shard_batches: text batches a shard; 0 makes the files of the largest site about 64 MiB.
    """

    batches: int
    sites: tuple[str, ...] = ("mlp_in", "mlp_out")
    text: TextConfig = field(default_factory=TextConfig)
    seed: int = 0
    dtype: str = "float32"
    microbatch: int = 16
    shard_batches: int = 0

    def __post_init__(self) -> None:
        if self.batches < 1 or self.microbatch < 1 or self.shard_batches < 0:
            raise InputError("collect: batches and microbatch must be at least 1, shard_batches at least 0")
        if self.text.batch % self.microbatch:
            raise InputError(
                f"collect: text batches of {self.text.batch} sequences are not whole blocks of microbatch "
                f"{self.microbatch}"
            )
        if self.dtype not in DTYPES:
            raise InputError(f"collect: dtype {self.dtype!r}, expected one of {', '.join(DTYPES)}")
        if not self.sites:
            raise InputError("collect: no sites")


def sites_of(dictionaries: Iterable[DictionaryConfig]) -> tuple[str, ...]:
    """The sites that dictionaries read and write, each once, in the order in which they first come."""
    found: dict[str, None] = {}
    for config in dictionaries:
        found |= {config.read_site: None, config.write_site: None}
    return tuple(found)


def collect(
    model: Model | FlaxSource, config: CollectConfig, out: str | os.PathLike[str], *, source: Source | None = None,
    mesh: Mesh | None = None, rules: Rules = DEFAULT_RULES, repair: bool = False, quiet: bool = True,
) -> Store:  # fmt: skip
    """Run a model over text and store what its sites are, or go on with a store that is not finished.

    The bytes of the store do not depend on how many devices or processes there are along the batch, nor on how often
    the collection was interrupted.

    Args:
      model: whose activations.
      config: what to collect.
      out: folder of the store. In a collection by several processes all of them must see it.
      source: tokens, where they do not come from ``config.text``; two sources are told apart by their first batch.
      mesh: devices to spread over; None takes one. Batches are divided over the axes that the rule of "batch" names,
        the model over the others.
      rules: logical axes to mesh axes.
      repair: look at every byte that is there and collect damaged shards anew.
      quiet: no progress lines.

    Raises:
      InputError: a site that the model does not have, settings that do not fit, another store in ``out``, a full disk,
        or activations that are not finite (the sequence is named).
      Interrupted: SIGINT or SIGTERM came; what is in the ledger is whole.
    """
    from jaxinterp.parallel.mesh import make

    folder = Path(out)
    if mesh is None:
        mesh = make(1, devices=jax.local_devices()[:1])
    lead, several = jax.process_index() == 0, len({d.process_index for d in mesh.devices.flat}) > 1
    if several and config.text.source == SAMPLED and source is None:
        raise InputError(
            "collect: the model's own text cannot be sampled by several processes; give text.source token ids"
        )
    source = source or make_source(config.text, model, config.seed)
    layout = plan(model, config)
    made_by = provenance(model, config, source, mesh, rules)
    lines: dict[int, store_ledger.Line] = {}
    lock = None
    try:
        problem = None
        if lead:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                lock = Lock(folder)
                lines = prepare(folder, layout, made_by, repair=repair)
            except (InputError, OSError) as error:
                problem = error
        todo = _agree_on_shards(layout, lines, problem, several)
        if todo:
            forward = Forward(
                model, layout.sites, config.dtype, mesh, rules, block=config.microbatch,
                length=config.text.length,
            )  # fmt: skip
            progress = Progress("collect", layout.rows, unit="tokens", quiet=quiet or not lead)
            progress.begin(layout.rows - sum(rows_of(layout, s) for s in todo))
            Run(folder, layout, config, source, forward, progress, several, model).all(todo)
            progress.close()
        if several:
            _wait_for_all("collected")
        if lead and (not (folder / LEDGER).exists() or store_ledger.parts(folder)):
            store_ledger.merge(folder, store_ledger.read(folder, layout))
        if several:
            _wait_for_all("merged")
    finally:
        if lock is not None:
            lock.release()
    return Store(folder)


def plan(model: Model | FlaxSource, config: CollectConfig) -> Layout:
    """The layout of the store that `collect` would make.

    Raises:
      InputError: a site that the model does not have or that is no row a token, or layers that it does not have.
    """
    asked: dict[str, tuple[int, ...] | None] = {}
    for text in config.sites:
        name, at, given = text.partition("@")
        if name in asked:
            raise InputError(f"collect: the site {name} is named twice")
        try:
            asked[name] = tuple(int(n) for n in given.split(",")) if at else None
        except ValueError as error:
            raise InputError(f"collect: site {text!r}: expected layers as in {name}@0,3") from error
    if isinstance(model, Model):
        check_sites(asked)
        if "pattern" in asked:
            kept = ", ".join(s for s in SITES if s != "pattern")
            raise InputError(
                f"collect: the site pattern has no row of fixed width for a token; sites are {kept}"
            )
    params = model.params if isinstance(model, Model) else model.variables
    shape = jax.ShapeDtypeStruct((config.microbatch, config.text.length), np.int32)
    found = jax.eval_shape(values_of(model, list(asked), "sparse"), params, shape, shape, shape)
    sites = []
    for name, chosen in asked.items():
        count, *_, width = found[name].shape
        layers = tuple(range(count)) if chosen is None else chosen
        if not layers or len(set(layers)) < len(layers) or min(layers) < 0 or max(layers) >= count:
            raise InputError(f"collect: layers {layers} of {name}: each once, of 0 to {count - 1}")
        sites.append(Site(name, layers, width))
    batch_rows = config.text.batch * config.text.length
    layout = Layout(
        tuple(sites), config.dtype, config.batches * batch_rows, batch_rows, 1, config.text.length, batch_rows
    )
    largest = max((a for a in layout.arrays() if a.name != TOKENS), key=lambda a: np.prod(a.shape))
    per_row = (
        int(np.prod(largest.shape)) // layout.rows * {"float32": 4, "bfloat16": 2, "int8": 1}[config.dtype]
    )
    shard_batches = config.shard_batches or max(1, SHARD_BYTES // (per_row * batch_rows))
    shard_rows = batch_rows * min(config.batches, shard_batches)
    width = max(site.width for site in sites)
    return dataclasses.replace(
        layout, shard_rows=shard_rows, chunk_rows=chunk_rows(shard_rows, width, config.dtype)
    )


def provenance(
    model: Model | FlaxSource, config: CollectConfig, source: Source, mesh: Mesh, rules: Rules
) -> dict[str, Any]:
    """What the bytes of a store depend on: no time, host, path, or number of devices along the batch."""
    first = source.batch(0)
    tokens = hashlib.sha256()
    for array in first:
        tokens.update(np.ascontiguousarray(array).astype(np.int64).tobytes())
    text = dataclasses.asdict(config.text)
    text |= {"source": origin(config.text), "limit": source.limit, "first_batch": tokens.hexdigest()}
    divided = rules.targets("batch", mesh)
    others = {
        axis: size
        for axis, size in mesh.shape.items()
        if size > 1 and (axis not in divided or axis != "data")
    }
    leaf = jax.tree.leaves(model.params if isinstance(model, Model) else model.variables)[0]
    return {
        "model": {"digest": _digest(model), "dtype": str(leaf.dtype)},
        "text": text,
        "collect": {"seed": config.seed, "batches": config.batches, "microbatch": config.microbatch},
        "mesh": others,
        "platform": jax.default_backend(),
        "versions": versions(),
    }


class _Gathered:
    """A weight that is divided over processes, fetched from all of them when it is looked at."""

    def __init__(self, leaf: Any) -> None:
        self.leaf = leaf

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        from jax.experimental.multihost_utils import process_allgather

        return np.asarray(process_allgather(self.leaf, tiled=True), dtype)


def _digest(model: Model | FlaxSource) -> str:
    def readable(leaf: Any) -> Any:
        whole = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated
        return leaf if whole else _Gathered(leaf)

    if isinstance(model, Model):
        return dataclasses.replace(model, params=jax.tree.map(readable, model.params)).digest()
    return model.digest()


def _wait_for_all(name: str) -> None:
    from jax.experimental.multihost_utils import sync_global_devices

    sync_global_devices(f"jaxinterp {name}")


def _agree_on_shards(
    layout: Layout, lines: dict[int, store_ledger.Line], problem: Exception | None, several: bool
) -> list[int]:
    """The shards that are to be made, as process 0 found them; its problem is everybody's."""
    flags = np.zeros(layout.shards + 1, np.int32)
    flags[list(lines)] = 1
    flags[-1] = problem is not None
    if several:
        from jax.experimental.multihost_utils import broadcast_one_to_all

        flags = np.asarray(broadcast_one_to_all(flags))
    if problem is not None:
        raise problem
    if flags[-1]:
        raise InputError("collect: process 0 cannot prepare the store; its message says why")
    return np.flatnonzero(flags[:-1] == 0).tolist()
