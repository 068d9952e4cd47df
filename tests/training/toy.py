"""A tiny task for the loop's tests: least squares with Adam, noise and a counter. Also runs as a program."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxinterp.core.files import write_json
from jaxinterp.training import LoopConfig, Task, run

ADAM = optax.adam(1e-2)


def task(bad_step: int = -1, pause: float = 0.0) -> Task:
    """Minimise ``|w - b|²`` for noisy b; the loss is NaN at ``bad_step``."""

    def init(key: Any) -> dict[str, Any]:
        params = {"w": jax.random.normal(key, (3,)), "v": jnp.zeros((2, 2))}
        return {"params": params, "adam": ADAM.init(params), "step": jnp.zeros((), jnp.int32)}

    def batch(step: int) -> np.ndarray:
        if pause:
            import time

            time.sleep(pause)
        return np.random.default_rng(step).normal(size=3).astype(np.float32)

    def step(state: dict[str, Any], target: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        def value(params: dict[str, Any]) -> Any:
            total = jnp.sum((params["w"] - target) ** 2) + jnp.sum(params["v"] ** 2)
            return jnp.where(state["step"] == bad_step, jnp.nan, total)

        loss, gradient = jax.value_and_grad(value)(state["params"])
        noise = jax.random.normal(jax.random.fold_in(jax.random.key(7), state["step"]), (3,))
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to its integer step
            updates, adam = ADAM.update(gradient, state["adam"])
        params = optax.apply_updates(state["params"], updates)
        params["w"] = params["w"] + 1e-3 * noise
        return {"params": params, "adam": adam, "step": state["step"] + 1}, {"loss": loss, "w": params["w"]}

    def finish(state: dict[str, Any], out: Path) -> dict[str, Any]:
        write_json(out / "result.json", [float(v) for v in state["params"]["w"]])
        return {"steps": int(state["step"])}

    return Task(init, batch, step, evaluate=lambda s: {"w0": float(s["params"]["w"][0])}, finish=finish)


if __name__ == "__main__":
    out, steps, pause = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    run(task(pause=pause), steps=steps, out=out, seed=0, loop=LoopConfig(log_every=5, checkpoint_every=10))
