"""Dashboards of every feature of a dictionary, in one pass over text.

    from jaxinterp.interpret import DashboardConfig, make_dashboards
    dashboards = make_dashboards(model, dictionary, DashboardConfig(tokens=1_000_000), "dashboards/pocket")
    dashboards.feature(3, 17)

The bytes of the files do not depend on how many devices sequences are divided over, nor on how often the run was
interrupted.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxinterp.activations.documents import origin
from jaxinterp.activations.text import Source, make_source, with_batch
from jaxinterp.core.errors import InputError, JaxinterpError
from jaxinterp.core.interrupt import signals
from jaxinterp.core.progress import Progress
from jaxinterp.core.provenance import versions
from jaxinterp.dashboards import own
from jaxinterp.dashboards.own import Dashboards
from jaxinterp.dictionaries.base import Dictionary
from jaxinterp.interpret.config import DashboardConfig
from jaxinterp.interpret.encoding import Encoding, Found
from jaxinterp.interpret.planning import Plan, plan
from jaxinterp.interpret.reading import Block, Reader, Scratch
from jaxinterp.interpret.saved import Saved, check_same
from jaxinterp.interpret.tally import Tally
from jaxinterp.interpret.writing import write
from jaxinterp.models.model import Model
from jaxinterp.parallel.rules import DEFAULT_RULES, Rules

if TYPE_CHECKING:
    from jax.sharding import Mesh


class Interrupted(JaxinterpError):
    """The run was stopped by a signal; what it has counted is saved."""

    exit_code = 130


def make_dashboards(
    model: Model, dictionary: Dictionary, config: DashboardConfig, out: str | os.PathLike[str], *,
    source: Source | None = None, mesh: Mesh | None = None, rules: Rules = DEFAULT_RULES, quiet: bool = True,
    save_every: float = 60.0, compact: bool | None = None,
) -> Dashboards:  # fmt: skip
    """Compute dashboards into a folder, or go on where an interrupted run of the same settings stopped.

    Args:
      model, dictionary: the dictionary may be of any kind, at any site.
      config: what to compute.
      out: the folder.
      source: tokens, where they do not come from ``config.text``; told apart from others by its first batch.
      mesh: devices to divide sequences (and the model) over; None takes one.
      rules: logical axes to mesh axes.
      quiet: no progress lines.
      save_every: seconds between two saved states.
      compact: see `encoding.Encoding`.

    Raises:
      InputError: a dictionary that does not fit the model, text that cannot be read, a folder with other dashboards.
      Interrupted: SIGINT or SIGTERM came; the same call goes on.
    """
    from jaxinterp.parallel.mesh import make

    if jax.process_count() > 1:
        raise InputError("dashboards are computed by one process, with all of its devices")
    if mesh is None:
        mesh = make(1, devices=jax.local_devices()[:1])
    folder = Path(out)
    given = source is not None
    source = source or make_source(with_batch(config.text, config.block), model, config.seed)
    planned = plan(model, dictionary, config, source)
    facts = provenance(model, dictionary, config, source, planned, mesh, rules, given)
    if (folder / own.MANIFEST).exists():
        done = Dashboards(folder)
        check_same(done.manifest.get("provenance"), facts, folder)
        return done
    saved = Saved(folder, facts)
    tallies = [Tally(i, planned.features, config) for i in range(len(planned.groups))]
    begin = saved.load(tallies)
    reader = Reader(source, config, planned.sequences, model.config.vocab_size)
    scratch = saved.scratch(reader.blocks, config.block * config.text.length)
    try:
        if begin < reader.blocks:
            encoding = Encoding(
                model, dictionary, planned.groups, planned.model_layers, mesh, rules, block=config.block,
                length=config.text.length, compact=compact,
            )  # fmt: skip
            progress = Progress("dashboards", planned.tokens, unit="tokens", quiet=quiet)
            Pass(reader, encoding, tallies, saved, scratch, progress).all(begin, save_every)
        write(folder, model, dictionary, config, planned, tallies, scratch.all(), facts, quiet=quiet)
    finally:
        scratch.close()
    saved.remove()
    return Dashboards(folder)


class Pass:
    """The pass over the text."""

    def __init__(
        self, reader: Reader, encoding: Encoding, tallies: list[Tally], saved: Saved, scratch: Scratch,
        progress: Progress,
    ) -> None:  # fmt: skip
        self.reader, self.encoding, self.tallies = reader, encoding, tallies
        self.saved, self.scratch, self.progress = saved, scratch, progress

    def all(self, begin: int, save_every: float) -> None:
        """From block ``begin`` to the last. Devices are a step ahead of the counting, which takes blocks in order."""
        size = self.encoding.block * self.encoding.length
        self.progress.begin(begin * size)
        waiting: deque[tuple[list[Block], Callable[[], list[list[Found]]]]] = deque()
        last, done, following = time.monotonic(), begin, begin
        with signals() as stopped:
            while done < self.reader.blocks:
                while following < self.reader.blocks and len(waiting) < 2:
                    end = min(following + self.encoding.ways, self.reader.blocks)
                    blocks = [self.reader.block(n) for n in range(following, end)]
                    waiting.append((blocks, self.encoding.start([block.batch for block in blocks])))
                    following = end
                blocks, wait = waiting.popleft()
                for block, found in zip(blocks, wait(), strict=True):
                    texts = self.reader.texts(block)
                    for tally, pairs in zip(self.tallies, found, strict=True):
                        tally.take(*pairs, texts)
                    self.scratch.put(block)
                done += len(blocks)
                self.progress.advance(len(blocks) * size)
                if stopped() or time.monotonic() - last >= save_every:
                    self.saved.save(done, self.tallies, self.scratch)
                    last = time.monotonic()
                if stopped() and done < self.reader.blocks:
                    raise Interrupted(
                        f"stopped after {done} of {self.reader.blocks} blocks; the same command goes on from there"
                    )
        self.saved.save(done, self.tallies, self.scratch)
        self.progress.close()


def provenance(
    model: Model, dictionary: Dictionary, config: DashboardConfig, source: Source, planned: Plan, mesh: Mesh,
    rules: Rules, given: bool,
) -> dict[str, Any]:  # fmt: skip
    """What the bytes depend on: no time, host, path, or number of devices along the batch."""
    first, tokenizer = source.batch(0), model.tokenizer
    tokens = hashlib.sha256()
    for array in first:
        tokens.update(np.ascontiguousarray(array[: config.block]).astype(np.int64).tobytes())
    text = {} if given else {**dataclasses.asdict(config.text), "source": origin(config.text)}
    text.pop("batch", None)
    divided = rules.targets("batch", mesh)
    return {
        "model": {"name": model.name, "digest": model.digest()},
        "tokenizer": tokenizer.digest() if hasattr(tokenizer, "digest") else None,
        "dictionary": {
            "name": dictionary.name,
            "digest": dictionary.digest(),
            "kind": dictionary.config.kind,
        },
        "text": {**text, "length": config.text.length, "first_sequences": tokens.hexdigest()},
        "settings": {**config.settings(), "sequences": planned.sequences},
        "mesh": {axis: size for axis, size in mesh.shape.items() if size > 1 and axis not in divided},
        "platform": jax.default_backend(),
        "versions": versions(),
    }
