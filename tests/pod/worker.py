"""One process of a pod: loads models onto the global mesh, runs them, and compares what lies on its own devices.

Started by test_pod.py as ``worker.py COORDINATOR PROCESSES INDEX FOLDER``. Prints one JSON line of figures.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jax

DEVICES = 8  # of the whole pod


def main(coordinator: str, processes: int, index: int, folder: Path) -> None:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", DEVICES // processes)
    from jaxinterp.parallel.hosts import start

    start(coordinator, processes, index)
    jobs = json.loads((folder / "jobs.json").read_text())
    found = {job["name"]: run(folder, **job) for job in jobs}
    print(json.dumps({"process": jax.process_index(), "devices": len(jax.devices()), "jobs": found}))


def run(folder: Path, name: str, model: str, mesh: dict[str, int], width: str | None) -> dict[str, Any]:
    """Load, run, compare: bytes read and held here, and the largest difference relative to the largest value."""
    import numpy as np

    from jaxinterp.checkpoints import load_model
    from jaxinterp.core.errors import InputError
    from jaxinterp.models import forward
    from jaxinterp.models.ahead import site_sharding
    from jaxinterp.models.expert_parallel import OnMesh
    from jaxinterp.parallel import DEFAULT_RULES
    from jaxinterp.parallel.mesh import make

    want = np.load(folder / f"{model.partition('-')[0]}.npz")
    made = make(**mesh)
    rules = DEFAULT_RULES.replace(width=width)
    with counting() as read:
        loaded = load_model(folder / model, mesh=made, rules=rules)
    config, tokens = loaded.config, want["tokens"]
    spread = jax.NamedSharding(made, rules.spec(("batch", "position"), tokens.shape, made))
    placed = jax.make_array_from_callback(tokens.shape, spread, lambda at: tokens[at])
    sites = ("mlp_in", "mlp_out")
    out = {site: site_sharding(site, config, *tokens.shape, made, rules) for site in sites}
    scores = rules.spec(("batch", "position", "vocab"), want["logits"].shape, made)

    def compute(params: Any, tokens: Any) -> dict[str, Any]:
        logits, acts = forward(params, config, tokens, sites=sites, dispatch=OnMesh(made, rules))
        return {"logits": logits, **{site: getattr(acts, site) for site in sites}}

    shardings = {"logits": jax.NamedSharding(made, scores), **out}
    results = jax.jit(compute, out_shardings=shardings)(loaded.params, placed)
    error = max(
        float(np.abs(np.asarray(shard.data) - want[site][shard.index]).max() / np.abs(want[site]).max())
        for site, value in results.items()
        for shard in value.addressable_shards
    )
    leaves = jax.tree.leaves(loaded.params)
    distinct = [{str(s.index): s.data.nbytes for s in leaf.addressable_shards} for leaf in leaves]
    try:
        load_model(folder / model, mesh=make(1, DEVICES), rules=rules.replace(heads="model", width="model"))
        refused = ""
    except InputError as caught:
        refused = str(caught)
    return {
        "read": read[0], "held": sum(sum(one.values()) for one in distinct),
        "whole": sum(leaf.nbytes for leaf in leaves), "error": error, "refused": refused,
        "spans": not any(leaf.is_fully_addressable for leaf in leaves),
    }  # fmt: skip


class counting:
    """Counts the bytes of tensors read from safetensors files: ``with counting() as read: ...; read[0]``."""

    def __enter__(self) -> list[int]:
        from jaxinterp.checkpoints.tensors import TensorFile

        self.total, self.original = [0], TensorFile._read

        def read(file: Any, *arguments: Any) -> Any:
            array = self.original(file, *arguments)
            self.total[0] += array.nbytes
            return array

        TensorFile._read = read  # type: ignore[method-assign]
        return self.total

    def __exit__(self, *_: object) -> None:
        from jaxinterp.checkpoints.tensors import TensorFile

        TensorFile._read = self.original  # type: ignore[method-assign]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
