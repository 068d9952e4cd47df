"""One process of a pod that trains: ``train_worker.py COORDINATOR PROCESSES INDEX JOBS``.

``JOBS`` is JSON: (config, out, mesh) triples. Prints one JSON line: the errors.
"""

from __future__ import annotations

import json
import sys

import jax


def main(coordinator: str, processes: int, index: int, jobs: list[tuple[str, str, dict[str, int]]]) -> None:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 4 // processes)
    from jaxinterp.parallel.hosts import start

    start(coordinator, processes, index)
    from jaxinterp.core.errors import JaxinterpError
    from jaxinterp.parallel.mesh import make
    from jaxinterp.training import train

    said = []
    for config, out, mesh in jobs:
        try:
            train(config, out=out, mesh=make(**mesh), quiet=True)
            said.append("")
        except JaxinterpError as error:
            said.append(str(error))
    print(json.dumps({"process": jax.process_index(), "devices": len(jax.devices()), "errors": said}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4]))
