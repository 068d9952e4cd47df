"""One process of a collection: ``store_worker.py COORDINATOR PROCESSES INDEX FOLDER JOBS``; a JSON line at the end.

JOBS is a JSON list of {"out", "config", "mesh", "fail"}; what fails is told in the line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jax

DEVICES = 4  # of all processes


def main(coordinator: str, processes: int, index: int, folder: Path, jobs: list[dict[str, Any]]) -> None:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", DEVICES // processes)
    from jaxinterp.parallel.hosts import start

    if processes > 1:
        start(coordinator, processes, index)
    found = [run(folder, index, **job) for job in jobs]
    print(json.dumps({"process": index, "devices": len(jax.devices()), "jobs": found}))


def run(
    folder: Path, index: int, out: str, config: dict[str, Any], mesh: dict[str, int], fail: int = -1
) -> str:
    """Collect one store; returns what went wrong."""
    from jaxinterp.activations import store_writer
    from jaxinterp.activations.collect import CollectConfig, collect
    from jaxinterp.activations.text import TextConfig
    from jaxinterp.checkpoints import load_model
    from jaxinterp.core.errors import InputError
    from jaxinterp.parallel.mesh import make

    made = make(**mesh)
    model = load_model(folder / "model", mesh=made)
    settings = CollectConfig(
        **{**config, "sites": tuple(config["sites"]), "text": TextConfig(**config["text"])}
    )
    original = store_writer.store_ledger.append

    def full(path: Path, line: Any) -> None:
        if fail == index and line.shard > 3:
            raise OSError(28, "No space left on device")
        original(path, line)

    store_writer.store_ledger.append = full
    try:
        store = collect(model, settings, folder / out, mesh=made)
        assert store.layout.rows == len(store.read("mlp_in", slice(None))[0])
    except InputError as error:
        return str(error)
    finally:
        store_writer.store_ledger.append = original
    return ""


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), json.loads(sys.argv[5]))
