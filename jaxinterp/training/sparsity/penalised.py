"""ReLU features with a penalty on their size, and gated ones, whose size the penalty does not shrink."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries import losses
from jaxinterp.dictionaries.base import kind_of
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.dictionaries.encoder import activations
from jaxinterp.training.sparsity import base, controller
from jaxinterp.training.sparsity.base import Gate, Gated, Pass, SparsityConfig


def _init(config: SparsityConfig, params: Tree, norms: Array) -> tuple[Tree, dict[str, Array]]:
    params = {name: value for name, value in params.items() if name != "threshold"}
    return params, controller.start(config, norms.shape[0], norms.dtype)


def _finished(activation: str, dictionary: DictionaryConfig) -> DictionaryConfig:
    return dataclasses.replace(dictionary, activation=activation, k=0, ranked=False)


def _gate(config: SparsityConfig, activation: str, apply: Callable[[Pass], Gated]) -> Gate:
    return Gate(
        partial(_finished, activation),
        partial(_init, config),
        apply,
        partial(controller.update, config),
        base.no_thresholds,
        base.as_stored,
    )


def l1_gate(config: SparsityConfig) -> Gate:
    """``λ_S Σ a ‖W_dec‖`` (*Circuits Updates, April 2024*)."""

    def apply(given: Pass) -> Gated:
        a = jax.nn.relu(given.h)
        weight = controller.weight(config, given.control, given.progress)
        penalties = {"sparsity": weight * losses.l1_sparsity(a, given.norms)}
        zero = jnp.zeros_like(given.norms)
        return Gated(a, penalties | base.pre_activation_penalty(config, given, zero), {})

    return _gate(config, "relu", apply)


def gated_gate(config: SparsityConfig) -> Gate:
    """The penalty is on the gate's own values, which must also reconstruct by themselves, the decoder held fixed.

    (Rajamanoharan et al. 2024, arXiv 2404.16014, section 3.2.)
    """

    def apply(given: Pass) -> Gated:
        dictionary = _finished("gated", given.config)
        a = activations(given.params, dictionary, given.h)
        open_by = jax.nn.relu(given.h)
        weight = controller.weight(config, given.control, given.progress)
        fixed = jax.lax.stop_gradient(
            {
                name: value
                for name, value in given.params.items()
                if name.startswith(("W_dec", "b_dec", "W_skip"))
            }
        )
        alone = kind_of(dictionary).decode({**given.params, **fixed}, dictionary, open_by, given.x)
        penalties = {
            "sparsity": weight * losses.l1_sparsity(open_by, given.norms),
            "gate": losses.reconstruction(given.y, alone) / given.unit,
        }
        zero = jnp.zeros_like(given.norms)
        return Gated(a, penalties | base.pre_activation_penalty(config, given, zero), {})

    return _gate(config, "gated", apply)
