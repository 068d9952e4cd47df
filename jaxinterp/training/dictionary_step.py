"""The state of a dictionary in training, one step of it, and the dictionary that a state stands for."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries import initialise, normalise
from jaxinterp.dictionaries.base import Dictionary, DictionaryConfig, kind_of
from jaxinterp.training import resample
from jaxinterp.training.dictionary_specs import DictionaryRun
from jaxinterp.training.objective import objective
from jaxinterp.training.optimiser import make_optimiser
from jaxinterp.training.sparsity.base import make_gate


def init(run: DictionaryRun, config: DictionaryConfig, key: Array, x: Array, y: Array) -> dict[str, Any]:
    """The state before step 0 from a sample of sites ``x, y [L, R, D]``."""
    scales = _scales(run, config, x, y)
    x, y = x * scales.read[:, None, None], y * scales.write[:, None, None]
    if run.start.data_points:
        params = initialise.from_data(config, key, x, y, noise=run.start.noise, decoder=run.start.decoder)
    else:
        params = {**initialise.random(config, key, x.dtype), "b_dec": jnp.mean(y, axis=1)}
    if "threshold" in params:
        params = {**params, "threshold": jnp.full_like(params["threshold"], run.sparsity.threshold)}
    if run.start.rate is not None:
        params = initialise.set_firing_rate(params, config, x, run.start.rate)
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
    run: DictionaryRun, config: DictionaryConfig, state: Tree, batch: tuple[Array, Array]
) -> tuple[Tree, dict[str, Any]]:
    """One optimiser step on raw sites ``(x, y)``, ``[L, R, D]`` each."""
    gate = make_gate(run.sparsity)
    progress = state["step"].astype(batch[0].dtype) / run.steps
    x = batch[0] * state["scales"]["read"][:, None, None]
    y = batch[1] * state["scales"]["write"][:, None, None]
    dead = resample.dead(run.resample, state["stats"], state["step"])
    value = partial(
        objective,
        run.objective,
        gate,
        config,
        control=state["control"],
        x=x,
        y=y,
        dead=dead,
        progress=progress,
    )
    (total, found), gradient = jax.value_and_grad(value, has_aux=True)(state["params"])
    with jax.numpy_dtype_promotion("standard"):  # optax raises floats to its integer step
        updates, moments = make_optimiser(run.optimiser, run.steps).update(
            gradient, state["optimiser"], state["params"]
        )
    params = jax.tree.map(lambda p, u: p + u, state["params"], updates)
    share = resample.density(found.a)
    l0 = jnp.sum(share, axis=1)
    stats = resample.update(state["stats"], share, state["step"], run.resample.decay)
    control = gate.update(state["control"], l0, found.seen, progress)
    if run.resample.every:
        key = jax.random.fold_in(jax.random.key(run.seed), state["step"])
        params, moments, stats = resample.resample(
            run.resample, config, params, moments, stats, key=key, step=state["step"], progress=progress, x=x,
            residual=found.residual,
            thresholds=lambda p, norms: gate.thresholds(p, norms, control),
        )  # fmt: skip
    metrics = {
        "loss": total,
        "nmse": jnp.mean(found.error),
        "l0": jnp.mean(l0),
        "nmse_layers": found.error,
        "l0_layers": l0,
        "dead": jnp.mean(resample.dead(run.resample, stats, state["step"]).astype(x.dtype)),
        "gradient_norm": _norm(gradient),
        **{name: jnp.mean(term) for name, term in found.terms.items() if name != "error"},
        **{f"{name}_layers": value for name, value in control.items()},
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
