"""From a prompt to its attribution graph.

Method: *Circuit Tracing: Revealing Computational Graphs in Language Models* (2025), "Attribution graphs".
Letters: A active features, C targets of a block, D width, L layers, T position.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.attribution import nodes as table
from jaxinterp.attribution.expand import expand, partial_influence
from jaxinterp.attribution.rows import Rows
from jaxinterp.attribution.sources import Written, find_active, lay_out, write_rows, written
from jaxinterp.attribution.targets import Targets, choose, values
from jaxinterp.core.errors import InputError
from jaxinterp.core.precision import einsum
from jaxinterp.core.provenance import versions
from jaxinterp.dictionaries.base import fits
from jaxinterp.dictionaries.lazy import AnyDictionary, cast
from jaxinterp.graphs.build import EdgeBuilder
from jaxinterp.graphs.graph import Graph, assemble
from jaxinterp.graphs.kinds import CONVENTIONS
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import softcap, unembedding
from jaxinterp.models.generation import check_tokens, prompt_ids
from jaxinterp.models.model import Model, require_ours
from jaxinterp.parallel.mesh import make
from jaxinterp.replacement import Run, freeze, make_operator, model_sources
from jaxinterp.replacement.operator import ReplacementOperator

RANK_EVERY = {"paper": 512, "circuit-tracer": 2048}
RECORDED = ("convention", "max_feature_nodes", "rank_every", "targets", "dtype")
RECORDED_WHERE_SET = ("dynamic_tanh",)
EDGE_BYTES = 24  # of a finished edge and of sorting it


def trace(
    model: Model, dictionary: AnyDictionary, prompt: str | Sequence[int], *, targets: Sequence[Any] | None = None,
    max_feature_nodes: int | None = None, convention: str = "paper", rank_every: int | None = None,
    dynamic_tanh: str = "secant", memory_budget: int | None = None, devices: Sequence[Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Graph:  # fmt: skip
    """The exact attribution graph of a prompt.

    Args:
      model: the model; the graph is computed in the dtype of its weights.
      dictionary: per-layer or cross-layer transcoders that fit it, in memory or opened lazily
        (``load_dictionary(..., lazy=True)``); the graph is the same, byte for byte.
      prompt: text (the tokenizer adds its own start token) or token ids [T], used as they are.
      targets: None for the salient next tokens: the smallest set of most probable tokens that reaches
        probability 0.95, at most 10. Or token ids, token texts and `Direction`, in any mixture.
      max_feature_nodes: keep at most so many features, chosen by influence; None keeps every active one.
      convention: "paper" (bias nodes, position 0 as any other) or "circuit-tracer" (no bias nodes, no
        features and errors at position 0, its selection and scores).
      rank_every: with ``max_feature_nodes``, features are ranked again after this many; None means 512,
        or 2,048 in the circuit-tracer convention.
      dynamic_tanh: what stands for a Dynamic Tanh in a model that has it, the "secant" through the origin or the
        "tangent", whose constant goes to the bias nodes of norms; see `replacement.freeze`.
      memory_budget: bytes that the edges may take; None means half of the machine's memory.
      devices: devices to spread blocks over; None means those that hold the model. The result does not
        depend on it, unless the model's weights themselves are divided over them (then to rounding).
      progress: called with (rows done, rows in all).

    Returns:
      `Graph` with every node and edge; prune it with ``graph.prune()``.

    Raises:
      InputError: an empty prompt, a token outside the vocabulary, a prompt longer than the context, a
        dictionary that does not fit, no active feature to explain where a cap leaves none, an unknown
        convention, weights that are not finite, or a graph over the memory budget (with a cap that fits).
    """
    require_ours(model)
    if convention not in CONVENTIONS:
        raise InputError(f"convention is {convention!r}, expected one of {', '.join(CONVENTIONS)}")
    if max_feature_nodes is not None and max_feature_nodes < 1:
        raise InputError(f"max_feature_nodes is {max_feature_nodes}, at least 1 is needed")
    fits(dictionary, model.config)
    dictionary = cast(dictionary, model.params["embed"]["tokens"].dtype)
    ids = check_tokens(model.config, prompt_ids(model, prompt))
    text = getattr(model.tokenizer, "text", str)

    d = dictionary.config
    run, finite = _run(model.params, model.config, ids[None, :], d.read_site, d.write_site, dynamic_tanh)
    if not finite:
        raise InputError(f"the model's logits are not finite on this prompt: {_bad_weights(model)}")
    paper = convention == "paper"
    active, small, activations = find_active(dictionary, run, skip_first=not paper)
    chosen = choose(targets, np.asarray(run.logits)[0, -1], model.params, model.config, model.tokenizer)
    limit = len(active) if max_feature_nodes is None else min(max_feature_nodes, len(active))

    slots = lay_out(active, model.config.n_layers, len(ids))
    operator = make_operator(
        model.params, model.config, run, decoder_bias=small.params["b_dec"],
        skip=small.params.get("W_skip"), read_site=d.read_site, write_site=d.write_site,
    )  # fmt: skip
    biases = _biases(model.config) if paper else []
    layout = table.lay_out_nodes(slots, len(active), biases, len(chosen.tokens))
    _check_budget(layout, len(active), limit, len(chosen.tokens), memory_budget)

    all_written = written(small.params, small.config, run, activations)
    writes = write_rows(small, slots, all_written, skip_first=not paper)
    identity_1, embed = _check_replacement(operator, run, all_written)
    rows = Rows(operator, writes, embed, layout, small, active, _mesh(devices, model))
    target_values = values(chosen, np.asarray(run.final_norm)[0, -1])
    nodes = table.table(layout, active, ids, chosen.tokens, chosen.probabilities, target_values)
    builder, nodes = _collect(rows, nodes, chosen, limit, rank_every or RANK_EVERY[convention], progress)
    settings = {
        "convention": convention,
        "max_feature_nodes": max_feature_nodes,
        "rank_every": rank_every,
        "targets": None if targets is None else [_plain(t) for t in targets],
        "dtype": str(run.logits.dtype),
        "model": model.name,
        "dictionary": dictionary.name,
        "active_features": len(active),
    }
    if model.config.norm == "tanh":
        settings["dynamic_tanh"] = dynamic_tanh
    provenance = {
        "record_digest": record_digest(settings, ids),
        "model_digest": model.digest(),
        "dictionary_digest": dictionary.digest(),
        "versions": versions(),
        "platform": jax.devices()[0].platform,
    }
    labels = np.full(len(nodes), "", object)
    labels[len(nodes) - len(chosen.labels) :] = chosen.labels
    return assemble(
        nodes, builder.finish(), token_ids=tuple(int(i) for i in ids), token_texts=tuple(text(int(i)) for i in ids),
        prompt=prompt if isinstance(prompt, str) else "".join(text(int(i)) for i in ids),
        n_layers=model.config.n_layers, labels=tuple(labels), settings=settings, provenance=provenance,
        measured={"identity_1": float(identity_1)},
    )  # fmt: skip


@partial(jax.jit, static_argnums=(1, 3, 4, 5))
def _run(
    params: Any, config: ModelConfig, tokens: Any, read_site: str, write_site: str, dynamic_tanh: str
) -> tuple[Run, Any]:
    run = freeze(
        params, config, tokens, read_site=read_site, write_site=write_site, dynamic_tanh=dynamic_tanh
    )
    return run, jnp.isfinite(run.logits).all()


@jax.jit
def _check_replacement(operator: ReplacementOperator, run: Run, all_written: Written) -> tuple[Any, Any]:
    """I1: the replacement's logits against the model's, relative to the largest; and the token embeddings."""
    sources = model_sources(operator, run, all_written.features + all_written.errors)
    raw = einsum("td,dv->tv", operator.apply(sources).final, unembedding(operator.params, operator.config))
    difference = jnp.abs(softcap(raw, operator.config) - run.logits[0]).max()
    return difference / jnp.abs(run.logits).max(), sources.embed


def record_digest(settings: dict[str, Any], ids: Iterable[int]) -> str:
    """sha256 of the settings that a graph follows from and of its token ids; names do not count."""
    kept = {key: settings.get(key) for key in RECORDED}
    kept |= {key: settings[key] for key in RECORDED_WHERE_SET if key in settings}
    text = json.dumps([kept, [int(i) for i in ids]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _collect(
    rows: Rows, nodes: np.ndarray, chosen: Targets, limit: int, rank_every: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[EdgeBuilder, np.ndarray]:  # fmt: skip
    """The edges and the node table, of every active feature or of ``limit`` chosen by influence."""
    layout, n_active = rows.layout, len(rows.active)
    target_numbers = np.arange(layout.targets, layout.size)
    target_rows, target_left = rows.of_targets(chosen)
    known = [(target_numbers, target_rows, target_left)]
    done, total = len(target_rows), limit + len(target_rows)
    keep = np.ones(layout.size, bool)

    def add(builder: EdgeBuilder, part: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
        numbers, found, left = part
        place = np.where(keep, np.cumsum(keep) - 1, -1)
        builder.add(place[numbers], place[keep], found[:, keep])
        nodes["left_out"][numbers] = left + found[:, ~keep].sum(axis=1, dtype=np.float64)

    def report(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress(done, total)

    if limit == n_active:
        builder = EdgeBuilder(layout.size, target_rows.dtype)
        for part in rows.of_features(np.arange(n_active)):
            add(builder, part)
            report(len(part[0]))
        add(builder, known[0])
        return builder, nodes

    weights = np.zeros(layout.size)
    weights[layout.targets :] = chosen.probabilities

    def influence() -> np.ndarray:
        numbers, found, _ = (np.concatenate(column) for column in zip(*known, strict=True))
        return partial_influence(found, numbers, weights)

    for batch in expand(n_active, limit, rank_every, influence):
        for part in rows.of_features(batch):
            known.append(part)
            report(len(part[0]))
    keep[:n_active] = False
    for numbers, _, _ in known[1:]:
        keep[numbers] = True
    builder = EdgeBuilder(int(keep.sum()), target_rows.dtype)
    for part in known:
        add(builder, part)
    return builder, nodes[keep]


def _biases(config: ModelConfig) -> list[tuple[int, int]]:
    return table.bias_places(
        config.n_layers, config.has_attention_biases, config.has_norm_biases, config.positions == "learned"
    )


def _mesh(devices: Sequence[Any] | None, model: Model) -> Any:
    if devices is None:
        holders = model.params["embed"]["tokens"].devices()
        devices = sorted(holders, key=lambda device: device.id)
    return make(devices=list(devices))


def _bad_weights(model: Model) -> str:
    from jaxinterp.core.trees import paths

    bad = [name for name, leaf in paths(model.params) if not np.isfinite(np.asarray(leaf, np.float64)).all()]
    return f"not finite: {', '.join(bad)}" if bad else "every weight is finite, so an activation overflows"


def _check_budget(layout: Any, active: int, limit: int, targets: int, budget: int | None) -> None:
    if budget is None:
        budget = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    fixed = layout.size - active

    def needed(features: int) -> int:
        # Capped, the rows over every node are kept until all are ranked; uncapped, half the edges exist.
        rows = features + targets
        return rows * layout.size * 4 + rows * (features + fixed) * EDGE_BYTES // 2

    if needed(limit) <= budget:
        return
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if needed(middle) <= budget else (low, middle - 1)
    fit = f"max_feature_nodes={low} fits" if low else "no cap fits, use a shorter prompt"
    raise InputError(
        f"the graph of {limit} features needs about {needed(limit) / 2**30:.1f} GiB, more than the budget of "
        f"{budget / 2**30:.1f} GiB: {fit}"
    )


def _plain(target: Any) -> Any:
    if isinstance(target, int | np.integer):
        return int(target)
    if isinstance(target, str):
        return target
    return {"direction": np.asarray(target.vector).tolist(), "label": target.label}
