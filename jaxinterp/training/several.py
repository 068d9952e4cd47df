"""Several dictionaries in one run: one stream, one forward pass for all, one checkpoint step, a folder each.

Each has a state and a compiled step of its own and sees the batches that it would see alone, so that it comes out with
the same bytes as from a run of its own.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from jaxinterp.activations import FlaxSource
from jaxinterp.core.errors import InputError, near
from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries.kinds import KINDS
from jaxinterp.models.model import Model
from jaxinterp.training import configs
from jaxinterp.training.dictionary_specs import DictionaryRun, load_subject
from jaxinterp.training.loop import Task

if TYPE_CHECKING:
    from jax.sharding import Mesh

OWN = (
    "seed", "normalise", "dtype", "compute", "accumulate", "dictionary", "start", "sparsity", "optimiser", "resample",
    "objective",
)  # fmt: skip
"""What a dictionary may have of its own. Its ``seed`` is of weights and restarts; text and shuffle have the run's."""


def member_runs(run: DictionaryRun) -> dict[str, DictionaryRun]:
    """Name → the run that trains this dictionary alone: the common settings with its changes.

    Changes are nested as in the file, or have dotted keys.

    Raises:
      InputError: a name that is no folder name, or a change of something else than `OWN`.
    """
    common = {name: value for name, value in configs.to_dict(run).items() if name != "dictionaries"}
    found = {}
    for name, changes in run.dictionaries.items():
        where = f"dictionaries: {name}"
        if not re.fullmatch(r"[A-Za-z0-9_-]+", str(name)) or name in ("checkpoints", "dictionary"):
            raise InputError(f"{where}: a name is a folder of the run: letters, digits, - and _ only")
        values = _changed(common, changes or {}, where)
        for key in values:
            if key in common and key not in OWN and values[key] != common[key]:
                raise InputError(f"{where}: {key} is the same for all dictionaries of a run{near(key, OWN)}")
        found[str(name)] = configs.parse(DictionaryRun, values, where)
        if (kind := KINDS.get(found[str(name)].dictionary.kind)) is not None and kind.sequences:
            raise InputError(f"{where}: a {found[str(name)].dictionary.kind} is trained in a run of its own")
    return found


def _changed(values: dict[str, Any], changes: Any, where: str) -> dict[str, Any]:
    if not isinstance(changes, dict):
        raise InputError(f"{where} is {changes!r}, expected fields such as 'sparsity: {{l0: 8}}'")
    out = dict(values)
    for key, value in changes.items():
        first, _, rest = str(key).partition(".")
        if rest:
            value = {rest: value}
        if isinstance(out.get(first), dict):
            value = _changed(out[first], value, f"{where}.{first}")
        out[first] = value
    return out


def several(run: DictionaryRun, model: Model | FlaxSource | None = None, mesh: Mesh | None = None) -> Task:
    """The `Task` that trains all of ``run.dictionaries``.

    Raises:
      InputError: see `member_runs` and `jaxinterp.training.dictionary.task`.
    """
    from jaxinterp.training.dictionary import Sites, make_stream, spreading, task

    runs = member_runs(run)
    spread = spreading(run, mesh)
    model = model or load_subject(run.model, spread)
    pairs = {name: (r.dictionary.read_site, r.dictionary.write_site) for name, r in runs.items()}
    sites = tuple(dict.fromkeys(site for pair in pairs.values() for site in pair))
    stream = make_stream(run, model, sites, spread)
    picked = {
        name: Sites(stream, sites.index(read), sites.index(write), runs[name].dictionary.layers)
        for name, (read, write) in pairs.items()
    }
    tasks = {name: task(member, model, picked[name], mesh) for name, member in runs.items()}

    def batch(step: int) -> Tree:
        values = stream.batch(step)
        return {name: own.pick(values) for name, own in picked.items()}

    def key_of(name: str) -> Array:
        return jax.random.key(runs[name].seed)

    def init(key: Array) -> Tree:
        del key
        return {name: one.init(key_of(name)) for name, one in tasks.items()}

    def init_on(key: Array, shardings: Tree) -> Tree:
        del key
        return {
            name: one.init_on(key_of(name), shardings[name]) for name, one in tasks.items() if one.init_on
        }

    def evaluate(state: Tree) -> dict[str, Any]:
        return {name: one.evaluate(state[name]) for name, one in tasks.items() if one.evaluate}

    def finish(state: Tree, out: Path) -> dict[str, Any]:
        figures = {}
        for name, one in tasks.items():
            (out / name).mkdir(exist_ok=True)
            if one.finish:
                figures[name] = one.finish(state[name], out / name)
        return figures

    def shardings(mesh: Mesh, abstract: Tree) -> tuple[Tree, Tree]:
        both = {name: one.shardings(mesh, abstract[name]) for name, one in tasks.items() if one.shardings}
        return tuple({name: pair[i] for name, pair in both.items()} for i in (0, 1))  # type: ignore[return-value]

    def step(state: Tree, batch: Tree) -> tuple[Tree, dict[str, Any]]:
        raise TypeError("each dictionary has a step of its own")

    return Task(
        init=init,
        batch=batch,
        step=step,
        evaluate=evaluate,
        finish=finish,
        abstract=lambda: {name: one.abstract() for name, one in tasks.items() if one.abstract},
        shardings=shardings,
        init_on=init_on if all(one.init_on for one in tasks.values()) else None,
        tokens=run.batch,
        members=tasks,
    )
