"""The state of a dictionary in training, one step of it, and the dictionary that a state stands for."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries import initialise, normalise
from jaxinterp.dictionaries.base import Dictionary, DictionaryConfig, Kind, kind_of
from jaxinterp.parallel import placement
from jaxinterp.training import gradient, jacobian, resample, sixteen, start
from jaxinterp.training.dictionary_specs import DictionaryRun
from jaxinterp.training.loop import PARTS
from jaxinterp.training.objective import Found, objective
from jaxinterp.training.optimiser import make_optimiser
from jaxinterp.training.sparsity.base import make_gate

if TYPE_CHECKING:
    from jax.sharding import Mesh


def init(
    run: DictionaryRun, config: DictionaryConfig, key: Array, x: Array, y: Array, given: Tree | None = None,
    kind: Kind | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The state before step 0 from a sample of sites ``x, y [L, R, D]``.

    Args:
      given: parameters for raw sites that `start.from_weights` made of a model.
      kind: the functions of the kind, where they know more than x; see `objective`.
    """
    scales = _scales(run, config, x, y)
    x, y = x * scales.read[:, None, None], y * scales.write[:, None, None]
    params = start.parameters(run.start, config, key, x, y, given, scales)
    if "threshold" in params:
        params = {**params, "threshold": jnp.full_like(params["threshold"], run.sparsity.threshold)}
    if run.start.rate is not None:
        params = initialise.set_firing_rate(params, config, x, run.start.rate, kind)
    params, control = make_gate(run.sparsity).init(params, kind_of(config).decoder_norms(params, config))
    return {
        "params": params,
        "control": control,
        "optimiser": make_optimiser(run.optimiser, run.steps).init(params),
        "scales": scales._asdict(),
        "stats": resample.init(kind_of(config).groups(config), config.n_features, x.dtype),
        "step": jnp.zeros((), jnp.int32),
    }


def _scales(run: DictionaryRun, config: DictionaryConfig, x: Array, y: Array) -> normalise.Scales:
    """The scales of sites, one factor where what is read and written, or all layers, must have the same."""
    if not run.normalise:
        return normalise.unit(config.n_layers, x.dtype)
    scales = normalise.measure(x, y)
    if config.centre:
        return scales._replace(read=scales.write)
    if config.shared:
        return scales._replace(write=jnp.full_like(scales.write, jnp.exp(jnp.mean(jnp.log(scales.write)))))
    return scales


def step(
    run: DictionaryRun, config: DictionaryConfig, state: Tree, batch: tuple[Array, Array], mesh: Mesh | None = None,
    target: jacobian.Target | None = None,
) -> tuple[Tree, dict[str, Any]]:  # fmt: skip
    """One optimiser step on raw sites ``(x, y)``, ``[L, R, D]`` each.

    Args:
      mesh: what it is traced for. With ``run.reduce`` "exact" the bytes of what it gives do not depend on it.
      target: what y is of x, for Jacobian matching.

    Raises:
      InputError: rows or a mesh that cannot be divided as the run asks.
    """
    rows, parts, keep = batch[0].shape[1], run.accumulate, bool(run.resample.every)
    if run.reduce == "exact":
        gradient.check_exact(mesh, rows, parts)
        measure: gradient.Measure = partial(gradient.in_order, "data", parts, keep)
        return gradient.on_every_device(partial(_step, run, config, measure, target), state, batch, mesh)
    if rows % parts:
        raise InputError(f"accumulate is {parts}, which does not divide a batch of {rows} rows")
    with nullcontext() if mesh is None else placement.placed(mesh):
        return _step(run, config, partial(gradient.in_parts, parts, keep), target, state, batch)


def _step(
    run: DictionaryRun, config: DictionaryConfig, measure: gradient.Measure, target: jacobian.Target | None,
    state: Tree, batch: tuple[Array, Array],
) -> tuple[Tree, dict[str, Any]]:  # fmt: skip
    gate = make_gate(run.sparsity)
    progress = state["step"].astype(batch[0].dtype) / run.steps
    dead = resample.dead(run.resample, state["stats"], state["step"])
    read, write = (state["scales"][name][:, None, None] for name in ("read", "write"))
    probe = jacobian.make_probe(
        target, state["scales"], run.seed, state["step"], run.objective.jacobian_probes
    )

    def value(params: Tree, x: Array, y: Array) -> tuple[Array, Found]:
        with sixteen.products(run.compute):
            return objective(
                run.objective, gate, config, params, state["control"], x * read, y * write, dead=dead,
                progress=progress, probe=probe,
            )  # fmt: skip

    slope, found = measure(value, state["params"], *batch)
    with jax.numpy_dtype_promotion("standard"):  # optax raises floats to its integer step
        updates, moments = make_optimiser(run.optimiser, run.steps).update(
            slope, state["optimiser"], state["params"]
        )
    params = jax.tree.map(lambda p, u: p + u, state["params"], updates)
    l0 = jnp.sum(found.share, axis=1)
    stats = resample.update(state["stats"], found.share, state["step"], run.resample.decay)
    control = gate.update(state["control"], l0, found.seen, progress)
    if found.x is not None and found.residual is not None:
        key = jax.random.fold_in(jax.random.key(run.seed), state["step"])
        params, moments, stats = resample.resample(
            run.resample, config, params, moments, stats, key=key, step=state["step"], progress=progress,
            x=found.x * read, residual=found.residual,
            thresholds=lambda p, norms: gate.thresholds(p, norms, control),
        )  # fmt: skip
    metrics = {
        "loss": found.total,
        "nmse": jnp.mean(found.error),
        "l0": jnp.mean(l0),
        "nmse_layers": found.error,
        "l0_layers": l0,
        "dead": jnp.mean(resample.dead(run.resample, stats, state["step"]).astype(l0.dtype)),
        "gradient_norm": _norm(slope),
        **{name: jnp.mean(term) for name, term in found.terms.items() if name != "error"},
        **{f"{name}_layers": value for name, value in control.items()},
        PARTS: found.losses,
    }
    return {
        "params": params,
        "control": control,
        "optimiser": moments,
        "scales": state["scales"],
        "stats": stats,
        "step": state["step"] + 1,
    }, metrics


def _norm(tree: Tree) -> Array:
    return jnp.sqrt(sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(tree)))


def to_dictionary(run: DictionaryRun, config: DictionaryConfig, state: Tree, name: str = "") -> Dictionary:
    """The dictionary of a state, for raw sites: thresholds in place, scales folded in, decoders of length one."""
    norms = kind_of(config).decoder_norms(state["params"], config)
    params = make_gate(run.sparsity).plain(state["params"], norms, state["control"])
    trained, scales = Dictionary(params, config, name), normalise.Scales(**state["scales"])
    if config.ranked:  # by decoder length, which folding changes
        return normalise.fold(normalise.unit_decoders(trained), scales)
    return normalise.unit_decoders(normalise.fold(trained, scales))
