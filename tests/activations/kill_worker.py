"""Collects into a folder until it is killed: ``kill_worker.py FOLDER``; prints a line when it begins to write."""

from __future__ import annotations

import sys
from pathlib import Path

import jax

BATCHES = 60


def main(folder: Path) -> None:
    jax.config.update("jax_num_cpu_devices", 1)
    jax.config.update("jax_compilation_cache_dir", str(folder.parent / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    from jaxinterp.activations import store_writer
    from jaxinterp.activations.collect import collect
    from tests.activations.store_cases import config
    from tests.activations.test_text import model

    original = store_writer.prepare

    def prepare(*arguments: object, **more: object) -> object:
        print("writing", flush=True)
        return original(*arguments, **more)

    sys.modules["jaxinterp.activations.collect"].prepare = prepare
    collect(model(), config(batches=BATCHES, shard_batches=1), folder)
    print("done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
