"""What a loop needs before its first step: a state, new or restored, where batches go, and the compiled step."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Tree
from jaxinterp.training import checkpoint
from jaxinterp.training.loop import Task

if TYPE_CHECKING:
    from jax.sharding import Mesh, NamedSharding

Place = Callable[[Tree], Tree]
Advance = Callable[[Tree, Tree], tuple[Tree, dict[str, Any]]]


class Clock:
    """CPU seconds (user and system) of this process since its start, plus those of earlier runs."""

    def __init__(self) -> None:
        self.before = 0.0

    def seconds(self) -> float:
        """So far."""
        return self.before + time.process_time()


def prepare(
    task: Task, seed: int, mesh: Mesh | None, manager: Any, start: int | None, clock: Clock
) -> tuple[Tree, Place, Advance]:
    """The first state, a function that places batches, and the step.

    A state that was saved on another mesh is put where this one wants it.

    Args:
      start: the saved step to restore, None for a new state.

    Raises:
      InputError: a task that cannot be spread, or not over this mesh; another run's checkpoint.
    """
    key = jax.random.key(seed)
    if mesh is not None and task.shardings is None:
        raise InputError("this task cannot be spread over a mesh")
    state: Tree = None
    if start is None and (mesh is None or task.init_on is None):
        state = task.init(key)
        abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)
    else:
        abstract = task.abstract() if task.abstract else jax.eval_shape(task.init, key)
    placed = batches = None
    place: Place = lambda batch: batch  # noqa: E731
    if mesh is None or task.shardings is None:
        single = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        target = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=single), abstract)
    else:
        placed, batches = task.shardings(mesh, abstract)
        place = partial(put, shardings=batches)
        target = jax.tree.map(
            lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), abstract, placed
        )
        if start is None:
            state = put(state, placed) if task.init_on is None else task.init_on(key, placed)
    if start is not None:
        state, meta = checkpoint.restore(manager, start, target)
        if meta.get("seed") != seed:
            raise InputError(f"{manager.directory} holds a run with seed {meta.get('seed')}, not {seed}")
        clock.before = float(meta.get("cpu_seconds", 0.0))
    return state, place, compiled(task, mesh, placed)


def compiled(task: Task, mesh: Mesh | None, placed: Tree) -> Advance:
    """The jitted step; of members each its own, the values of which are named ``MEMBER/value``."""
    if task.members is not None:
        steps = {
            name: compiled(member, mesh, None if placed is None else placed[name])
            for name, member in task.members.items()
        }

        def advance(state: Tree, batch: Tree) -> tuple[Tree, dict[str, Any]]:
            after, values = {}, {}
            for name, step in steps.items():
                after[name], found = step(state[name], batch[name])
                values.update({f"{name}/{key}": value for key, value in found.items()})
            return after, values

        return advance
    step: Callable[..., Any] = task.step
    if task.on_mesh:
        step = partial(step, mesh=mesh)
    if mesh is None or placed is None:
        return jax.jit(step, donate_argnums=0)
    everywhere = jax.NamedSharding(mesh, jax.P())
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(placed, everywhere))
    return jitted if jax.process_count() == 1 else _together(jitted)


def _together(jitted: Any) -> Advance:
    """The step that all processes begin when the last of them has compiled it: collectives do not wait for minutes."""
    programs: list[Advance] = []

    def advance(state: Tree, batch: Tree) -> tuple[Tree, dict[str, Any]]:
        if not programs:
            programs.append(jitted.lower(state, batch).compile())
            checkpoint.meet("step compiled")
        return programs[0](state, batch)

    return advance


def put(tree: Tree, shardings: Tree) -> Tree:
    """Arrays that every process has, put where ``shardings`` (a tree, or one for all of a subtree) says."""
    done: dict[tuple[int, Any], Any] = {}  # what several dictionaries share is put there once

    def one(leaf: Any, sharding: NamedSharding) -> Any:
        known = id(leaf), sharding
        if known not in done:
            if jax.process_count() == 1 or (isinstance(leaf, jax.Array) and not leaf.is_fully_addressable):
                done[known] = jax.device_put(leaf, sharding)
            else:
                whole = np.asarray(leaf)
                done[known] = jax.make_array_from_callback(whole.shape, sharding, lambda at: whole[at])
        return done[known]

    return jax.tree.map(lambda place, part: jax.tree.map(partial(one, sharding=place), part), shardings, tree)
