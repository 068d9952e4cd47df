"""One process of a pod that traces: ``trace_worker.py COORDINATOR PROCESSES INDEX FOLDER DEVICES JOBS``.

DEVICES are those of all processes; JOBS is JSON: a list of settings of `trace`; in "hasty" ones the second process has
no time. Every process writes what it has to ``FOLDER/PROCESSES-INDEX-JOB.jigraph`` and prints one JSON line: what went
wrong, for each job.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jax


def main(
    coordinator: str, processes: int, index: int, folder: Path, devices: int, jobs: list[dict[str, Any]]
) -> None:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices // processes)
    from jaxinterp.parallel.hosts import start

    start(coordinator, processes, index)
    from jaxinterp.attribution import trace
    from jaxinterp.core.errors import InputError
    from jaxinterp.parallel.mesh import make
    from tests.attribution.cases import TOKENS, random_dictionary
    from tests.support import tiny_model

    said = []
    for number, job in enumerate(jobs):
        model = tiny_model(job.pop("family"))
        dictionary = random_dictionary(model, job.pop("dictionary"), dtype="float32")
        if index == 1 and job.pop("hasty", False):
            job["seconds"] = 1e-6
        if job.pop("spread", False):
            whole = jax.NamedSharding(make(), jax.P())
            model.params["embed"]["tokens"] = jax.make_array_from_callback(
                (40, 16), whole, lambda at: jax.numpy.zeros((40, 16))[at]
            )
        job.pop("hasty", None)
        try:
            graph = trace(model, dictionary, job.pop("tokens", TOKENS), devices=jax.devices(), **job)
            graph.save(folder / f"{processes}-{index}-{number}.jigraph")
            said.append("")
        except InputError as error:
            said.append(str(error))
    print(json.dumps({"process": jax.process_index(), "devices": len(jax.devices()), "said": said}))


if __name__ == "__main__":
    main(
        sys.argv[1],
        int(sys.argv[2]),
        int(sys.argv[3]),
        Path(sys.argv[4]),
        int(sys.argv[5]),
        json.loads(sys.argv[6]),
    )
