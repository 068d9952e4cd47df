"""What collection costs beside the bare forward pass, what the store costs beside a raw write, what int8 costs.

  python tests/benchmarks/bench_store.py [--folder PLACE] [--model FILE --dictionary FOLDER --text FILE]

Prints JSON lines. Measures and asserts nothing. Each pair is measured in turns, so that both see the same machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.activations import TextConfig
from jaxinterp.activations.collect import CollectConfig, collect, plan
from jaxinterp.activations.collect_loop import Run
from jaxinterp.activations.collect_mesh import Forward
from jaxinterp.activations.store_layout import Layout, Site, chunk_rows
from jaxinterp.activations.store_reader import Store
from jaxinterp.activations.store_stream import StoredConfig, stored_stream
from jaxinterp.activations.store_writer import StoreWriter, prepare
from jaxinterp.activations.text import Source, make_source
from jaxinterp.core.progress import Progress
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import forward
from jaxinterp.models.model import Model
from jaxinterp.models.weights import declare
from jaxinterp.parallel.mesh import make
from jaxinterp.parallel.rules import DEFAULT_RULES
from jaxinterp.parallel.weights import initialise

MIB = 1 << 20


def say(**facts: Any) -> None:
    def short(value: Any) -> Any:
        return [short(v) for v in value] if isinstance(value, list) else float(f"{value:.6g}")

    told = {k: v if isinstance(v, str) else short(v) for k, v in facts.items()}
    print(json.dumps({**told, "load": round(os.getloadavg()[0], 1)}), flush=True)


def clock() -> tuple[float, float]:
    """Wall and CPU seconds."""
    return time.perf_counter(), time.process_time()


def since(start: tuple[float, float]) -> tuple[float, float]:
    return time.perf_counter() - start[0], time.process_time() - start[1]


def ids(vocab: int, length: int, batch: int) -> Source:
    """Random tokens: text costs nothing here."""
    from jaxinterp.activations.text import plain

    def make(index: int) -> Any:
        return plain(np.random.default_rng(index).integers(0, vocab, (batch, length)))

    return Source(make, batch * length)


def collection(
    folder: Path, name: str, model: Model, batches: int, batch: int, length: int, dtype: str, block: int
) -> None:
    """Tokens a second of the forward pass to the logits, and of collecting two sites of all layers onto the disk.

    Both are compiled before, both run the same blocks; collection ends when everything is on disk and in the ledger.
    """
    source = ids(model.config.vocab_size, length, batch)
    text = TextConfig(length=length, batch=batch)
    config = CollectConfig(batches, ("mlp_in", "mlp_out"), text, dtype=dtype, microbatch=block)
    layout, mesh = plan(model, config), make(1, devices=jax.devices()[:1])
    bare = jax.jit(lambda p, t, s, o: forward(p, model.config, t, segments=s, positions=o)[0])
    collecting = Forward(model, layout.sites, dtype, mesh, DEFAULT_RULES, block=block, length=length)
    texts = [source.batch(i) for i in range(batches)]

    def run_bare() -> tuple[float, float]:
        start = clock()
        out = None
        for one in texts:
            for at in range(0, batch, block):
                here = (a[at : at + block] for a in (one.tokens, one.segments, one.positions))
                out = bare(model.params, *map(jnp.asarray, here))
        jax.block_until_ready(out)
        return since(start)

    def run_collect() -> tuple[float, float]:
        shutil.rmtree(folder / "c", ignore_errors=True)
        prepare(folder / "c", layout, {})
        start = clock()
        run = Run(folder / "c", layout, config, source, collecting, Progress("", quiet=True), False, model)
        run.all(list(range(layout.shards)))
        return since(start)

    run_bare(), run_collect()  # compile
    pairs = [(run_bare(), run_collect()) for _ in range(3)]
    tokens, size = layout.rows, layout.bytes_per_row()
    say(
        what="collection", model=name, dtype=dtype, tokens=tokens, bytes_a_token=size,
        bare_tokens_s=[tokens / b for (b, _), _ in pairs], collected_tokens_s=[tokens / c for _, (c, _) in pairs],
        share=[b / c for (b, _), (c, _) in pairs], share_cpu=[b / c for (_, b), (_, c) in pairs],
        mib_s=[tokens * size / c / MIB for _, (c, _) in pairs],
    )  # fmt: skip
    shutil.rmtree(folder / "c")


def writing(folder: Path) -> None:
    """MiB a second of shards into a store, and of the same bytes into plain files with fsync."""
    shard = 16384
    rows = 8 * shard
    layout = Layout(
        (Site("a", tuple(range(4)), 256),), "float32", rows, shard, chunk_rows(shard, 256, "float32"), 64, 64
    )
    random = np.random.default_rng(0)
    arrays = [
        {
            "tokens": np.ones((shard, 4), np.int32),
            "sites/a": random.normal(size=(4, shard, 256)).astype(np.float32),
        }
        for _ in range(layout.shards)
    ]
    total = sum(a.nbytes for one in arrays for a in one.values())

    def raw() -> float:
        start = time.perf_counter()
        for i, one in enumerate(arrays):
            with (folder / f"raw{i}").open("wb") as stream:
                for array in one.values():
                    stream.write(memoryview(array).cast("B"))
                stream.flush()
                os.fsync(stream.fileno())
        return time.perf_counter() - start

    def store() -> float:
        start = time.perf_counter()
        prepare(folder / "w", layout, {})
        with StoreWriter(folder / "w", layout) as writer:
            for i, one in enumerate(arrays):
                writer.submit(i, one)
        return time.perf_counter() - start

    pairs = []
    for _ in range(8):
        pairs.append((raw(), store()))
        shutil.rmtree(folder / "w")
        for path in folder.glob("raw*"):
            path.unlink()
    say(
        what="writing", mib=total / MIB, raw_mib_s=[total / MIB / r for r, _ in pairs],
        store_mib_s=[total / MIB / s for _, s in pairs], share=[r / s for r, s in pairs],
    )  # fmt: skip


def reading(store: Store, rows: int) -> None:
    """Rows a second in each order."""
    for order in ("window", "full", "stored"):
        names = tuple(site.name for site in store.layout.sites)
        found = stored_stream(store, names, rows=rows, seed=0, config=StoredConfig(order))
        jax.block_until_ready(found.batch(0))
        start, steps = time.perf_counter(), 20
        for step in range(steps):
            jax.block_until_ready(found.batch(step))
        seconds = time.perf_counter() - start
        say(what="reading", order=order, dtype=store.layout.dtype, batch=rows, rows_s=steps * rows / seconds)


def int8(
    folder: Path, model_file: str, dictionary_folder: str, text: TextConfig, batches: int, speed: bool
) -> None:
    """FVE of a trained dictionary on the same tokens, stored in three ways."""
    from jaxinterp.checkpoints import load_model
    from jaxinterp.dictionaries import load_dictionary
    from jaxinterp.evaluation.reconstruction import reconstruction

    model, dictionary = load_model(model_file), load_dictionary(dictionary_folder)
    sites = (dictionary.config.read_site, dictionary.config.write_site)
    source = make_source(text, model, 1_000_003)
    figures = {}
    for dtype in ("float32", "bfloat16", "int8"):
        config = CollectConfig(batches, sites, text, seed=1_000_003, dtype=dtype)
        store = collect(model, config, folder / dtype, source=source)
        stream = stored_stream(store, sites, rows=2048, seed=0, config=StoredConfig("stored"))
        figures[dtype] = reconstruction(dictionary, (stream.batch(i) for i in range(stream.steps))).to_dict()
        if speed:
            reading(store, 2048)
    for dtype, found in figures.items():
        say(
            what="fve",
            dtype=dtype,
            **{k: v for k, v in found.items() if np.ndim(v) == 0},
        )


def random_model(layers: int, width: int, vocab: int, context: int) -> Model:
    config = ModelConfig(
        vocab_size=vocab, d_model=width, n_layers=layers, n_heads=width // 64, n_kv_heads=width // 64, d_head=64,
        d_mlp=4 * width, context=context,
    )  # fmt: skip
    return Model(initialise(declare(config), key=jax.random.key(0), dtype=jnp.float32), config)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--folder", help="where to write (default: the system's temporary folder)")
    options.add_argument("--model", help="stories260K.bin")
    options.add_argument("--dictionary", help="a dictionary trained for it")
    options.add_argument("--only", default="writing,collection,int8,reading")
    given = options.parse_args()
    only = given.only.split(",")
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        if "writing" in only:
            writing(folder)
        if "collection" in only:
            large = random_model(8, 512, 8192, 256)
            for dtype in ("float32", "bfloat16", "int8"):
                collection(folder, "8 layers, d=512", large, 12, 4, 256, dtype, 4)
            if given.model:
                from jaxinterp.checkpoints import load_model

                for dtype in ("float32", "int8"):
                    collection(folder, "stories260K", load_model(given.model), 24, 64, 256, dtype, 16)
        if "int8" in only and given.model and given.dictionary:
            int8(
                folder, given.model, given.dictionary, TextConfig(length=256, batch=32), 12, "reading" in only
            )


if __name__ == "__main__":
    main()
