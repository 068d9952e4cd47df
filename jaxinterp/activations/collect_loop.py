"""One run over the shards that a store lacks: blocks through the model, and what they give put together.

Letters: L layers, B sequences of a text batch, T tokens of each, b sequences a block.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np

from jaxinterp.activations.collect_mesh import Block, Forward, Result
from jaxinterp.activations.flax_source import FlaxSource
from jaxinterp.activations.store_layout import TOKENS, Layout
from jaxinterp.activations.store_writer import StoreWriter
from jaxinterp.activations.text import Batch, Source
from jaxinterp.core.errors import InputError, JaxinterpError
from jaxinterp.core.interrupt import signals
from jaxinterp.core.progress import Progress
from jaxinterp.models.model import Model

if TYPE_CHECKING:
    from jaxinterp.activations.collect import CollectConfig


class Interrupted(JaxinterpError):
    """The collection was stopped by a signal; what is in the ledger is whole."""

    exit_code = 130


def rows_of(layout: Layout, shard: int) -> int:
    """How many rows a shard has."""
    begin, end = layout.span(shard)
    return end - begin


class Run:
    """One run over the shards that are missing."""

    def __init__(
        self, folder: Path, layout: Layout, config: CollectConfig, source: Source, forward: Forward,
        progress: Progress, several: bool, model: Model | FlaxSource,
    ) -> None:  # fmt: skip
        self.model = model
        self.folder, self.layout, self.config, self.source = folder, layout, config, source
        self.forward, self.progress, self.several = forward, progress, several
        self.batches: dict[int, Batch] = {}
        self.shards: dict[int, Shard] = {}

    def all(self, todo: list[int]) -> None:
        """Collect these shards."""
        every = max(1, self._blocks(0) // self.forward.ways)  # about once a shard
        waiting: deque[Callable[[], Iterator[Result]]] = deque()
        problem: InputError | None = None
        done, asked = 0, False
        with signals() as stopped:
            try:
                with StoreWriter(self.folder, self.layout, jax.process_index()) as writer:
                    for number, blocks in enumerate(self._calls(todo)):
                        meeting = number % every == 0 or not self.several
                        if meeting and (asked := self._anyone(stopped() or problem is not None)):
                            break
                        waiting.append(self.forward.start(blocks, self._read))
                        if len(waiting) > 1 and problem is None:
                            try:
                                done += self._keep(waiting.popleft()(), writer)
                            except InputError as error:
                                problem = error  # the other processes hear of it at the next meeting
                        self.progress.advance(len(blocks) * self.forward.block * self.layout.length)
                    while waiting and problem is None:
                        done += self._keep(waiting.popleft()(), writer)
            except InputError as error:
                problem = problem or error
            if problem is not None and not self.several:
                raise problem
            failed = self._anyone(problem is not None)
        if problem is not None:
            raise problem
        if failed:
            raise InputError("collect: another process could not go on; its message says why")
        if asked:
            raise Interrupted(
                f"stopped after {done} more of {len(todo)} shards of {self.folder}; the same command goes on from there"
            )

    def _blocks(self, shard: int) -> int:
        return rows_of(self.layout, shard) // (self.layout.length * self.forward.block)

    def _calls(self, todo: list[int]) -> Iterator[dict[int, Block]]:
        """Way → block, call by call: shards are dealt out to processes, blocks of a process to its ways in order."""
        owners = sorted(set(self.forward.owners))
        ways = {o: [w for w, owner in enumerate(self.forward.owners) if owner == o] for o in owners}
        queues = {
            o: iter([Block(s, n) for s in todo[i :: len(owners)] for n in range(self._blocks(s))])
            for i, o in enumerate(owners)
        }
        while True:
            call = {way: block for o in owners for way, block in zip(ways[o], queues[o], strict=False)}
            if not call:
                return
            yield call

    def _anyone(self, flag: bool) -> bool:
        if not self.several:
            return flag
        from jax.experimental.multihost_utils import process_allgather

        return bool(np.any(process_allgather(np.asarray(flag))))

    def _read(self, block: Block) -> Batch:
        """The sequences of a block."""
        first = block.shard * self.layout.shard_rows // self.layout.length + block.number * self.forward.block
        number, begin = divmod(first, self.config.text.batch)
        if number not in self.batches:
            while len(self.batches) > 2 * self.forward.ways + 2:
                del self.batches[next(iter(self.batches))]
            made = self.source.batch(number)
            if made.tokens.shape != (self.config.text.batch, self.layout.length):
                raise InputError(
                    f"collect: text batch {number} has tokens {made.tokens.shape}, expected "
                    f"{(self.config.text.batch, self.layout.length)}"
                )
            if isinstance(self.model, FlaxSource):
                self.model.check(made)
            self.batches[number] = made
        return Batch(*(array[begin : begin + self.forward.block] for array in self.batches[number]))

    def _keep(self, results: Iterator[Result], writer: StoreWriter) -> int:
        """Put what blocks gave where it belongs; returns how many shards are complete by that."""
        complete = 0
        for result in results:
            shard = result.block.shard
            if shard not in self.shards:
                self.shards[shard] = Shard(self.layout, shard, self._blocks(shard))
            self._check(result)
            self.shards[shard].put(result, self._read(result.block))
            if not self.shards[shard].missing:
                writer.submit(shard, self.shards.pop(shard).arrays)
                complete += 1
        return complete

    def _check(self, result: Result) -> None:
        for site, finite in zip(self.layout.sites, result.finite, strict=True):
            if not finite.all():
                first = result.block.shard * self.layout.shard_rows // self.layout.length
                sequence = first + result.block.number * self.forward.block + int(np.argmin(finite))
                raise InputError(f"collect: {site.name} is not finite in sequence {sequence} of the text")


class Shard:
    """A shard being put together."""

    def __init__(self, layout: Layout, shard: int, blocks: int) -> None:
        self.layout, self.missing = layout, blocks
        rows = rows_of(layout, shard)
        self.arrays: dict[str, np.ndarray] = {}
        for info in layout.arrays():
            shape = tuple(rows if axis == info.rows_axis else n for axis, n in enumerate(info.shape))
            self.arrays[info.name] = np.empty(shape, jax.numpy.dtype(info.dtype))

    def put(self, result: Result, batch: Batch) -> None:
        """Fill the rows of one block."""
        columns = (batch.tokens, batch.positions, batch.segments, batch.use)
        size = batch.tokens.size
        here = slice(result.block.number * size, (result.block.number + 1) * size)
        self.arrays[TOKENS][here] = np.stack([np.asarray(c, np.int32).reshape(-1) for c in columns], axis=1)
        for site, values in zip(self.layout.sites, result.arrays, strict=True):
            target = self.arrays[f"sites/{site.name}"][:, here]
            for width, part in values[0]:
                target[..., width] = part
            if len(values) > 1:
                self.arrays[f"sites/{site.name}.scale"][:, here] = values[1][0][1]
        self.missing -= 1
