"""From a prompt to its attribution graph.

Method: *Circuit Tracing: Revealing Computational Graphs in Language Models* (2025), "Attribution graphs".
Letters: A active features, C targets of a block, D width, L layers, T position.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.attribution import nodes as table
from jaxinterp.attribution.effects import Block, Effects, final_vectors, walk_blocks
from jaxinterp.attribution.expand import expand, partial_influence
from jaxinterp.attribution.sources import Active, error_vectors, find_active, lay_out, write_rows, written
from jaxinterp.attribution.targets import Targets, choose, values
from jaxinterp.core.errors import InputError
from jaxinterp.core.precision import einsum
from jaxinterp.core.provenance import versions
from jaxinterp.dictionaries.base import Dictionary, fits, kind_of
from jaxinterp.graphs.build import EdgeBuilder
from jaxinterp.graphs.graph import Graph, assemble
from jaxinterp.graphs.kinds import CONVENTIONS
from jaxinterp.models.decoder import softcap, unembedding
from jaxinterp.models.generation import check_tokens, prompt_ids
from jaxinterp.models.model import Model
from jaxinterp.replacement import Run, freeze, make_operator, model_sources
from jaxinterp.replacement.operator import ReplacementOperator

BLOCK = 128
RANK_EVERY = {"paper": 512, "circuit-tracer": 2048}
RECORDED = ("convention", "max_feature_nodes", "rank_every", "targets", "dtype")
EDGE_BYTES = 24  # of a finished edge and of sorting it


def trace(
    model: Model, dictionary: Dictionary, prompt: str | Sequence[int], *, targets: Sequence[Any] | None = None,
    max_feature_nodes: int | None = None, convention: str = "paper", rank_every: int | None = None,
    memory_budget: int | None = None, devices: Sequence[Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Graph:  # fmt: skip
    """The exact attribution graph of a prompt.

    Args:
      model: the model; the graph is computed in the dtype of its weights.
      dictionary: per-layer or cross-layer transcoders that fit it.
      prompt: text (the tokenizer adds its own start token) or token ids [T], used as they are.
      targets: None for the salient next tokens: the smallest set of most probable tokens that reaches
        probability 0.95, at most 10. Or token ids, token texts and `Direction`, in any mixture.
      max_feature_nodes: keep at most so many features, chosen by influence; None keeps every active one.
      convention: "paper" (bias nodes, position 0 as any other) or "circuit-tracer" (no bias nodes, no
        features and errors at position 0, its selection and scores).
      rank_every: with ``max_feature_nodes``, features are ranked again after this many; None means 512,
        or 2,048 in the circuit-tracer convention.
      memory_budget: bytes that the edges may take; None means half of the machine's memory.
      devices: devices to spread blocks over; None means the first one. The result does not depend on it.
      progress: called with (rows done, rows in all).

    Returns:
      `Graph` with every node and edge; prune it with ``graph.prune()``.

    Raises:
      InputError: an empty prompt, a token outside the vocabulary, a prompt longer than the context, a
        dictionary that does not fit, no active feature to explain where a cap leaves none, an unknown
        convention, weights that are not finite, or a graph over the memory budget (with a cap that fits).
    """
    if convention not in CONVENTIONS:
        raise InputError(f"convention is {convention!r}, expected one of {', '.join(CONVENTIONS)}")
    if max_feature_nodes is not None and max_feature_nodes < 1:
        raise InputError(f"max_feature_nodes is {max_feature_nodes}, at least 1 is needed")
    fits(dictionary, model.config)
    dictionary = _same_dtype(dictionary, model)
    ids = check_tokens(model.config, prompt_ids(model, prompt))
    text = getattr(model.tokenizer, "text", str)

    d = dictionary.config
    run = _freeze(
        model.params, model.config, jnp.asarray(ids)[None, :], read_site=d.read_site, write_site=d.write_site
    )
    if not bool(jnp.isfinite(run.logits).all()):
        raise InputError(f"the model's logits are not finite on this prompt: {_bad_weights(model)}")
    paper = convention == "paper"
    active, dense = find_active(dictionary, run.read[:, 0], skip_first=not paper)
    chosen = choose(
        targets, run.logits[0, -1], unembedding(model.params, model.config), model.tokenizer, text
    )
    limit = len(active) if max_feature_nodes is None else min(max_feature_nodes, len(active))

    tracer = _Tracer(model, dictionary, run, active, dense, chosen, paper, ids)
    _check_budget(tracer.layout, len(active), limit, len(chosen.tokens), memory_budget)
    builder, nodes = tracer.rows(limit, rank_every or RANK_EVERY[convention], _mesh(devices), progress)
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
        measured={"identity_1": tracer.identity_1()},
    )  # fmt: skip


_freeze = partial(jax.jit, static_argnames=("config", "read_site", "write_site", "precision"))(freeze)
_final_vectors = jax.jit(final_vectors)


@jax.jit
def _replacement_logits(operator: ReplacementOperator, run: Run, write: Any) -> Any:
    final = operator.apply(model_sources(operator, run, write)).final
    raw = einsum("td,dv->tv", final, unembedding(operator.params, operator.config))
    return softcap(raw, operator.config)


def record_digest(settings: dict[str, Any], ids: Sequence[int]) -> str:
    """sha256 of the settings that a graph follows from and of its token ids; names do not count."""
    kept = {key: settings.get(key) for key in RECORDED}
    text = json.dumps([kept, [int(i) for i in ids]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class _Tracer:
    """The state of one trace: everything that rows are computed from."""

    def __init__(
        self, model: Model, dictionary: Dictionary, run: Run, active: Active, dense: Any, chosen: Targets,
        paper: bool, ids: np.ndarray,
    ) -> None:  # fmt: skip
        config, d = model.config, dictionary.config
        self.model, self.dictionary, self.run, self.active, self.chosen = (
            model,
            dictionary,
            run,
            active,
            chosen,
        )
        self.dense = dense
        errors = error_vectors(dictionary, run, dense)
        self.all_errors = errors
        omitted = jnp.zeros_like(errors)
        if not paper:
            # Position 0 is left out: all that is written there but bias and skip, which the operator adds.
            omitted = omitted.at[:, 0].set(written(dictionary, dense)[:, 0] + errors[:, 0])
            errors = errors.at[:, 0].set(0)
        slots = lay_out(active, config.n_layers, len(ids))
        self.writes = write_rows(dictionary, slots, errors, omitted)
        skip = dictionary.params.get("W_skip")
        self.operator: ReplacementOperator = make_operator(
            model.params, config, run, decoder_bias=dictionary.params["b_dec"], skip=skip, read_site=d.read_site,
            write_site=d.write_site,
        )  # fmt: skip
        learned = self.operator.positions
        self.embed = run.embed[0] if learned is None else run.embed[0] - learned
        biases = []
        if paper:
            biases = table.bias_places(
                config.n_layers,
                config.qkv_bias or config.out_bias,
                config.norm == "layer",
                learned is not None,
            )
        self.layout = table.lay_out_nodes(slots, len(active), biases, len(chosen.tokens))
        target_values = values(chosen, run.final_norm[0, -1])
        self.nodes = table.table(self.layout, active, ids, chosen.tokens, chosen.probabilities, target_values)

    def identity_1(self) -> float:
        """Largest difference between the replacement's logits and the model's, relative to the largest logit."""
        write = written(self.dictionary, self.dense) + self.all_errors
        found = _replacement_logits(self.operator, self.run, write)
        difference = jnp.max(jnp.abs(found - self.run.logits[0]))
        return float(difference / jnp.max(jnp.abs(self.run.logits)))

    def rows(
        self, limit: int, rank_every: int, mesh: Any, progress: Callable[[int, int], None] | None
    ) -> tuple[EdgeBuilder, np.ndarray]:
        """All rows of the graph: its edges and its node table."""
        layout, total = self.layout, limit + len(self.chosen.tokens)
        target_rows, target_left = self._target_rows(mesh)
        done = len(target_rows)
        everything = limit == len(self.active)
        collected: dict[int, tuple[np.ndarray, float]] = {}
        known, known_nodes = [target_rows], [np.arange(layout.targets, layout.size)]

        def influence() -> np.ndarray:
            weights = np.zeros(layout.size)
            weights[layout.targets :] = self.chosen.probabilities
            return partial_influence(np.concatenate(known), np.concatenate(known_nodes), weights)

        for batch in expand(len(self.active), limit, rank_every, influence):
            if everything:
                break
            for numbers, found, left in self._feature_rows(batch, mesh):
                known.append(found)
                known_nodes.append(numbers)
                collected.update(zip(numbers.tolist(), zip(found, left, strict=True), strict=True))
                done += len(numbers)
                if progress:
                    progress(done, total)

        keep = np.ones(layout.size, bool)
        if not everything:
            keep[: layout.errors] = False
            keep[list(collected)] = True
        place = np.where(keep, np.cumsum(keep) - 1, -1)
        columns, dropped = np.flatnonzero(keep), np.flatnonzero(~keep)
        builder = EdgeBuilder(int(keep.sum()), target_rows.dtype)
        nodes = self.nodes

        def add(numbers: np.ndarray, found: np.ndarray, left: np.ndarray) -> None:
            builder.add(place[numbers], place[columns], found[:, columns])
            nodes["left_out"][numbers] = left + found[:, dropped].sum(axis=1, dtype=np.float64)

        if everything:
            for numbers, found, left in self._feature_rows(np.arange(limit), mesh):
                add(numbers, found, left)
                done += len(numbers)
                if progress:
                    progress(done, total)
        else:
            for number in sorted(collected):
                one, outside = collected[number]
                add(np.asarray([number]), one[None], np.asarray([outside]))
        add(np.arange(layout.targets, layout.size), target_rows, target_left)
        return builder, nodes[keep]

    def _target_rows(self, mesh: Any) -> tuple[np.ndarray, np.ndarray]:
        vectors, bias = _final_vectors(self.operator, self.chosen.vectors)
        count, last = len(self.chosen.tokens), self.operator.n_tokens - 1
        layers = np.full(count, self.model.config.n_layers)
        final = np.asarray(bias, np.float64) if self.model.config.norm == "layer" else None
        found, left = [], []
        for _, effects, part in self._blocks(layers, np.full(count, last), vectors, mesh):
            rows, outside = table.rows(self.layout, effects, None if final is None else final[part])
            found.append(rows)
            left.append(outside)
        return np.concatenate(found), np.concatenate(left)

    def _feature_rows(
        self, features: np.ndarray, mesh: Any
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(node numbers, rows, effects left out) block by block, in node order."""
        features = np.sort(features)
        kind, config = kind_of(self.dictionary.config), self.dictionary.config
        for layer in range(config.n_layers):
            numbers = features[self.active.layer[features] == layer]
            if not len(numbers):
                continue
            index = jnp.asarray(self.active.feature[numbers])
            vectors = kind.encoder_rows(self.dictionary.params, config, layer, index)
            layers = np.full(len(numbers), layer)
            for _, effects, part in self._blocks(layers, self.active.position[numbers], vectors, mesh):
                rows, left = table.rows(self.layout, effects, None)
                yield numbers[part], rows, left

    def _blocks(
        self, layers: np.ndarray, positions: np.ndarray, vectors: Any, mesh: Any
    ) -> Iterator[tuple[int, Effects, slice]]:
        """Walks for targets of one layer, in padded blocks, as many at once as the mesh has devices."""
        together = mesh.shape["data"] * BLOCK
        for start in range(0, len(layers), together):
            part = slice(start, min(start + together, len(layers)))
            fill = together - (part.stop - start)
            block = Block(
                jnp.pad(vectors[part], ((0, fill), (0, 0))).reshape(-1, BLOCK, vectors.shape[1]),
                jnp.asarray(np.pad(positions[part], (0, fill)), jnp.int32).reshape(-1, BLOCK),
                jnp.full((mesh.shape["data"],), int(layers[start]), jnp.int32),
            )
            effects = walk_blocks(self.operator, self.writes, self.embed, block, mesh)
            yield start, jax.tree.map(partial(_unblock, part.stop - start), effects), part


def _unblock(count: int, blocks: Any) -> np.ndarray:
    """The first ``count`` rows of blocks [B, C, ...], on the host."""
    return np.asarray(blocks).reshape(-1, *blocks.shape[2:])[:count]


def _same_dtype(dictionary: Dictionary, model: Model) -> Dictionary:
    dtype = model.params["embed"]["tokens"].dtype
    return dataclasses.replace(dictionary, params=jax.tree.map(lambda x: x.astype(dtype), dictionary.params))


def _mesh(devices: Sequence[Any] | None) -> Any:
    from jaxinterp.parallel.mesh import make

    return make(devices=list(devices) if devices is not None else jax.local_devices()[:1])


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
