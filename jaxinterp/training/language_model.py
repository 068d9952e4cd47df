"""Training a small language model: weighted next-token loss, AdamW with decoupled weight decay, warm-up and
cosine.

Pure functions and the `Task` that `training.loop.run` drives. Batches come from a token source, a function
named in the configuration as "module:function" and called as source(seed, step, batch, length) -> dict of
arrays [batch, length]: `tokens`, and optionally `segments`, `positions`, `targets` and `weights`. It must be
a pure function, so that an interrupted run resumes with the same batches.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from jaxinterp.checkpoints.native import save_model
from jaxinterp.core.errors import InputError, near
from jaxinterp.core.files import write_json
from jaxinterp.core.letters import Array, Tree
from jaxinterp.core.precision import wide_einsum
from jaxinterp.core.trees import paths
from jaxinterp.models.block import Reads
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import HIGHEST, REMATS, MlpSwap, forward, softcap, unembedding
from jaxinterp.models.mlp import mlp
from jaxinterp.models.model import Model
from jaxinterp.models.weights import declare, of_layer
from jaxinterp.parallel import weights
from jaxinterp.training.loop import Task

if TYPE_CHECKING:
    from jax.sharding import Mesh

NOT_DECAYED = ("scale", "bias", "alpha", "_norm")  # ends of the names of gains, biases and what is like them


@dataclass(frozen=True)
class LanguageModelConfig:
    """What a language-model run is made of.

    Attributes:
      model: the decoder.
      tokens: token source, "module:function".
      steps, batch, length: optimiser steps, rows a step and tokens a row.
      seed: of the initial weights and of the batches.
      learning_rate, warmup, final: peak rate, share of the steps that rises to it, share of the peak reached
        at the end.
      beta1, beta2, weight_decay, clip: AdamW's; decay is decoupled (times the rate), on matrices and
        embeddings only; clip is on the global norm of the gradient.
      embedding_start: factor on the initial token embeddings.
      tokenizer: "module:function" that gives the model's tokenizer, or None.
      checks: "module:function" called with the model, whose dict of figures is written at evaluations and at
        the end, or None.
      name: of the model, for people.
      save_dtype: dtype of the saved weights.
      remat: what the gradient computes again instead of keeping it; see `decoder.REMATS`.
      compute: dtype of weights and activations in the loss, "float32" or "bfloat16"; the state and the loss itself stay
        float32.
    """

    model: ModelConfig
    tokens: str
    steps: int
    batch: int = 16
    length: int = 64
    seed: int = 0
    learning_rate: float = 2e-3
    warmup: float = 0.03
    final: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.98
    weight_decay: float = 1.0
    clip: float = 1.0
    embedding_start: float = 1.0
    tokenizer: str | None = None
    checks: str | None = None
    name: str = ""
    save_dtype: str = "float16"
    remat: str = "none"
    compute: str = "float32"

    def __post_init__(self) -> None:
        for field, allowed in (("remat", REMATS), ("compute", ("float32", "bfloat16"))):
            value = getattr(self, field)
            if value not in allowed:
                raise InputError(
                    f"{field} is {value!r}{near(value, allowed)}, expected {' or '.join(allowed)}"
                )


def look_up(reference: str) -> Callable[..., Any]:
    """The function a configuration names as "module:function".

    Raises:
      InputError: not of this form, or no such module or function.
    """
    module, _, name = reference.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{reference!r} names no function ({error}), expected 'module:function'") from error
    if not callable(found):
        raise InputError(f"{reference!r} is not a function")
    return found  # type: ignore[no-any-return]


def loss(
    params: Tree, config: ModelConfig, batch: dict[str, Array], remat: str = "none", compute: str = "float32"
) -> tuple[Array, dict[str, Array]]:
    """Weighted mean of -log p(target).

    Args:
      batch: `tokens` [B, T]; optionally `segments`, `positions`, `targets` [B, T] (the next token when
        absent, the last position not
        counted) and `weights` [B, T] (ones when absent).
      remat, compute: as in `LanguageModelConfig`.

    Returns:
      The loss in nats, and metrics: `loss` and `accuracy` over the targets of the largest weight.
    """
    tokens = batch["tokens"]
    if compute != "float32":
        params = jax.tree.map(lambda leaf: leaf.astype(compute), params)
    _, activations = forward(
        params, config, tokens, sites=("final_norm",), swap=_flat_mlp(params, config),
        segments=batch.get("segments"), positions=batch.get("positions"), remat=remat,
    )  # fmt: skip
    final = activations.final_norm.reshape(-1, config.d_model)
    logits = softcap(wide_einsum("nd,dv->nv", final, unembedding(params, config), precision=HIGHEST), config)
    given = batch.get("weights")
    counts = jnp.ones(tokens.shape, logits.dtype) if given is None else given.astype(logits.dtype)
    targets = batch.get("targets")
    if targets is None:
        targets = jnp.roll(tokens, -1, axis=1)
        counts = counts.at[:, -1].set(0)
    targets, counts = targets.reshape(-1), counts.reshape(-1)
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[:, None], axis=1)[:, 0]
    value = -jnp.sum(counts * log_p) / jnp.sum(counts)
    counted = (counts == jnp.max(counts)).astype(logits.dtype)
    right = (jnp.argmax(logits, axis=-1) == targets).astype(logits.dtype)
    return value, {"loss": value, "accuracy": jnp.sum(counted * right) / jnp.sum(counted)}


def _flat_mlp(params: Tree, config: ModelConfig) -> MlpSwap:
    """The model's own MLPs, run on all tokens as one row.

    On CPUs the gradient of a product over two leading dimensions copies its transposed operands, which costs
    a third of a training step; with one leading dimension it does not.
    """

    def step(carry: None, layer: int, reads: Reads) -> tuple[None, Array]:
        w = of_layer(params, config, layer)
        x = reads.mlp_in
        return carry, mlp(w, config, x.reshape(1, -1, x.shape[-1]), HIGHEST).reshape(x.shape)

    return MlpSwap(step, None, "mlp_out_raw")


def schedule(config: LanguageModelConfig) -> optax.Schedule:
    """Step -> learning rate: linear warm-up, then a cosine to `final` of the peak."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=max(1, round(config.warmup * config.steps)),
        decay_steps=max(2, config.steps),
        end_value=config.final * config.learning_rate,
    )


def optimiser(config: LanguageModelConfig) -> optax.GradientTransformation:
    """AdamW with the rate of `schedule`, behind a clip of the gradient."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(
            schedule(config), b1=config.beta1, b2=config.beta2, weight_decay=config.weight_decay, mask=decayed
        ),
    )


def decayed(params: Tree) -> Tree:
    """True for the weights that decay: all but gains, biases and the alphas of Dynamic Tanh."""
    flags = [not name.rpartition(".")[2].endswith(NOT_DECAYED) for name, _ in paths(params)]
    return jax.tree.unflatten(jax.tree.structure(params), flags)


def init(config: LanguageModelConfig, key: Array) -> dict[str, Any]:
    """The state before the first step: `params` and `optimiser`."""
    params = weights.initialise(declare(config.model), key=key, dtype=jnp.float32)
    embed = {**params["embed"], "tokens": config.embedding_start * params["embed"]["tokens"]}
    params = {**params, "embed": embed}
    return {"params": params, "optimiser": optimiser(config).init(params)}


def step(
    config: LanguageModelConfig, state: dict[str, Any], batch: dict[str, Array]
) -> tuple[dict[str, Any], dict[str, Array]]:
    """One optimiser step; jit it with the state donated."""
    value = partial(loss, config=config.model, batch=batch, remat=config.remat, compute=config.compute)
    gradient, metrics = jax.grad(value, has_aux=True)(state["params"])
    with jax.numpy_dtype_promotion("standard"):  # optax raises floats to its integer step
        updates, moments = optimiser(config).update(gradient, state["optimiser"], state["params"])
    params = optax.apply_updates(state["params"], updates)
    return {"params": params, "optimiser": moments}, {**metrics, "gradient_norm": optax.global_norm(gradient)}


def to_model(config: LanguageModelConfig, state: dict[str, Any]) -> Model:
    """The model of a state, rounded to the dtype it is saved in, so that what is checked is what is saved."""
    rounded = jax.tree.map(lambda w: w.astype(config.save_dtype).astype(w.dtype), state["params"])
    tokenizer = look_up(config.tokenizer)() if config.tokenizer else None
    return Model(params=rounded, config=config.model, tokenizer=tokenizer, name=config.name)


def task(config: LanguageModelConfig, mesh: Mesh | None = None) -> Task:
    """The run that `training.loop.run` drives, on any ``mesh``. It ends with `out/model`, a native model folder, and
    `out/card.json`.
    """
    del mesh
    source = look_up(config.tokens)
    checks = look_up(config.checks) if config.checks else None

    def finish(state: Tree, folder: Path) -> dict[str, Any]:
        model = to_model(config, state)
        save_model(model, folder / "model", dtype=config.save_dtype)
        figures = checks(model) if checks else {}
        card = {
            "model": model.digest(),
            "parameters": config.model.n_params(),
            "tokens": config.steps * config.batch * config.length,
            "recipe": dataclasses.asdict(config),
            "figures": figures,
        }
        write_json(folder / "card.json", card)
        return dict(figures)

    return Task(
        init=partial(init, config),
        batch=lambda step: source(config.seed, step, config.batch, config.length),
        step=partial(step, config),
        evaluate=(lambda state: checks(to_model(config, state))) if checks else None,
        finish=finish,
        shardings=partial(shardings, config),
    )


def shardings(config: LanguageModelConfig, mesh: Mesh, abstract: Tree) -> tuple[Tree, Tree]:
    """Shardings of the state (parameters and their moments by the declared axes, the rest everywhere) and of
    batches (by rows).
    """
    from jax.sharding import NamedSharding, PartitionSpec

    by_path = dict(paths(weights.shardings(declare(config.model), mesh)))
    everywhere = NamedSharding(mesh, PartitionSpec())

    def place(path: Any, leaf: Any) -> NamedSharding:
        keys = [str(getattr(part, "key", getattr(part, "name", ""))) for part in path]
        tails = [".".join(keys[i:]) for i in range(len(keys))]
        return next((by_path[tail] for tail in tails if tail in by_path and leaf.ndim), everywhere)

    rows = NamedSharding(mesh, PartitionSpec(mesh.axis_names[0]))
    return jax.tree_util.tree_map_with_path(place, abstract), rows


CONFIG = LanguageModelConfig
