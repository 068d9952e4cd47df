"""Training dictionaries whose features look at other positions (Lorsa): batches are whole sequences.

State, loss, gates, optimiser and what is written are those of every dictionary; only where features come from and what
a batch is differ. ``batch`` is still in tokens: it must hold whole sequences of ``text.length``.

Letters: L layers, B sequences, T positions, D width.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.activations import FlaxSource, make_source
from jaxinterp.activations.sequences import Sequences, SequenceStream
from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries import lorsa
from jaxinterp.dictionaries.attention import Places
from jaxinterp.dictionaries.base import DictionaryConfig, Kind
from jaxinterp.models.model import Model
from jaxinterp.training import resample
from jaxinterp.training.dictionary_specs import DictionaryRun
from jaxinterp.training.dictionary_step import init
from jaxinterp.training.loop import Task
from jaxinterp.training.objective import Found, objective
from jaxinterp.training.optimiser import make_optimiser
from jaxinterp.training.sparsity.base import make_gate
from jaxinterp.training.start import from_weights

if TYPE_CHECKING:
    from jax.sharding import Mesh


def on_sequences(task: Task, run: DictionaryRun, config: DictionaryConfig, model: Model | FlaxSource) -> Task:
    """``task`` with batches of sequences and a step of their own.

    Raises:
      InputError: settings that a dictionary of sequences cannot have.
    """
    length = run.text.length
    for wrong, what in (
        (run.store, "store: rows of a store come one by one"),
        (
            run.batch % length,
            f"batch is {run.batch} tokens, which are no whole sequences of {length} (text.length)",
        ),
        (run.accumulate > 1, "accumulate is of batches of rows"),
        (run.reduce != "psum", f"reduce is {run.reduce}"),
        (run.compute != "float32", f"compute is {run.compute}"),
        (run.objective.jacobian, "objective: jacobian is of features that see one position"),
    ):
        if wrong:
            raise InputError(f"a {config.kind} is trained on whole sequences: {what}")
    sites = (run.dictionary.read_site, run.dictionary.write_site)
    stream = SequenceStream(
        model, sites, make_source(run.text, model, run.seed), sequences=run.batch // length, seed=run.seed,
        config=run.stream,
    )  # fmt: skip

    def pick(batch: Sequences) -> Sequences:
        if not config.layers:
            return batch
        return batch._replace(
            sites=tuple(jnp.stack([v[layer] for layer in config.layers]) for v in batch.sites)
        )

    def start(key: Array) -> dict[str, Any]:
        count = max(1, run.start.rows // length)
        inside = len(stream.pool(0).use)
        chosen = np.random.default_rng(run.seed).permutation(inside)[:count]
        sample = pick(stream.take(0, chosen))
        given = from_weights(run.start, config, model, key, sample.sites[0])
        return jax.jit(partial(begin, run, config))(key, sample, given)

    def abstract() -> Tree:
        def rows(width: int) -> Any:
            return jax.ShapeDtypeStruct((config.n_layers, 2, width), jnp.float32)

        where: Any = jax.ShapeDtypeStruct((1, 2), jnp.int32)
        numbers: Any = jax.ShapeDtypeStruct((2,), jnp.int32)
        sample = Sequences((rows(config.d_model), rows(config.d_out)), where, where, numbers)
        return jax.eval_shape(partial(begin, run, config), jax.random.key(0), sample, None)

    def shardings(mesh: Mesh, shapes: Tree) -> tuple[Tree, Tree]:
        from jax.sharding import NamedSharding, PartitionSpec

        assert task.shardings is not None
        states, rows = task.shardings(mesh, shapes)
        places: Any = NamedSharding(mesh, PartitionSpec("data"))
        return states, Sequences((rows, rows), places, places, places)

    return task._replace(
        init=start,
        batch=lambda step: pick(stream.batch(step)),
        step=partial(step, run, config),
        abstract=abstract,
        shardings=shardings,
        init_on=None,
        on_mesh=False,
    )


def functions(batch: Sequences) -> Kind:
    """The kind's functions on the rows of a batch of sequences."""
    return lorsa.on_rows(Places(batch.positions, batch.segments), batch.rows)


def begin(
    run: DictionaryRun, config: DictionaryConfig, key: Array, sample: Sequences, given: Tree | None
) -> dict[str, Any]:
    """The state before step 0; see `dictionary_step.init`."""
    x, y = sample.sites
    return init(run, config, key, x, y, given, functions(sample))


def step(
    run: DictionaryRun, config: DictionaryConfig, state: Tree, batch: Sequences
) -> tuple[Tree, dict[str, Any]]:
    """One optimiser step on raw sites of whole sequences."""
    gate = make_gate(run.sparsity)
    x, y = batch.sites
    progress = state["step"].astype(x.dtype) / run.steps
    dead = resample.dead(run.resample, state["stats"], state["step"])
    x = x * state["scales"]["read"][:, None, None]
    y = jnp.take(y, batch.rows, axis=1) * state["scales"]["write"][:, None, None]

    def value(params: Tree) -> tuple[Array, Found]:
        return objective(
            run.objective, gate, config, params, state["control"], x, y, dead=dead, progress=progress,
            kind=functions(batch),
        )  # fmt: skip

    (total, found), slope = jax.value_and_grad(value, has_aux=True)(state["params"])
    with jax.numpy_dtype_promotion("standard"):  # optax raises floats to its integer step
        updates, moments = make_optimiser(run.optimiser, run.steps).update(
            slope, state["optimiser"], state["params"]
        )
    share = found.share
    l0 = jnp.sum(share, axis=1)
    control = gate.update(state["control"], l0, found.seen, progress)
    stats = resample.update(state["stats"], share, state["step"], run.resample.decay)
    metrics = {
        "loss": total,
        "nmse": jnp.mean(found.error),
        "l0": jnp.mean(l0),
        "nmse_layers": found.error,
        "l0_layers": l0,
        "dead": jnp.mean(resample.dead(run.resample, stats, state["step"]).astype(x.dtype)),
        "gradient_norm": jnp.sqrt(sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(slope))),
        **{name: jnp.mean(term) for name, term in found.terms.items() if name != "error"},
        **{f"{name}_layers": values for name, values in control.items()},
    }
    return {
        "params": jax.tree.map(lambda p, u: p + u, state["params"], updates),
        "control": control,
        "optimiser": moments,
        "scales": state["scales"],
        "stats": stats,
        "step": state["step"] + 1,
    }, metrics
