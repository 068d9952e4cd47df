"""From a prompt to its attribution graph.

Method: *Circuit Tracing: Revealing Computational Graphs in Language Models* (2025), "Attribution graphs".
Letters: A active features, C targets, L layers, T position, n nodes.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from jaxinterp.attribution import nodes as table
from jaxinterp.attribution import readings as reads
from jaxinterp.attribution.blocks import block_rows
from jaxinterp.attribution.costs import Costs, Shapes
from jaxinterp.attribution.estimate import check_memory, check_prompt, shapes_of
from jaxinterp.attribution.expand import Known, expand
from jaxinterp.attribution.prepare import Prepared, prepare
from jaxinterp.attribution.prompts import each, several
from jaxinterp.attribution.readings import Targets
from jaxinterp.attribution.rows import Part, Rows
from jaxinterp.attribution.setup import Parts, Setup, fit, set_up
from jaxinterp.attribution.targets import resolve
from jaxinterp.core.errors import InputError
from jaxinterp.core.provenance import versions
from jaxinterp.dictionaries.lazy import AnyDictionary
from jaxinterp.graphs.build import Csr, EdgeBuilder, rows_of
from jaxinterp.graphs.graph import Graph, assemble
from jaxinterp.graphs.kinds import CONVENTIONS, FEATURE
from jaxinterp.models.generation import check_tokens, prompt_ids
from jaxinterp.models.model import Model, require_ours
from jaxinterp.models.sites import VECTOR_SITES
from jaxinterp.parallel.mesh import make

_MANY = 500  # rows from which on it pays to compile for prompts to come
RANK_EVERY = {"paper": 512, "circuit-tracer": 2048}
RECORDED = ("convention", "max_feature_nodes", "rank_every", "targets", "dtype")
RECORDED_WHERE_SET = ("dynamic_tanh", "mlp", "first_position", "linearisation", "steps", "precision")


def trace(
    model: Model, dictionary: AnyDictionary | Sequence[AnyDictionary], prompt: Any, *, targets: Any = None,
    max_feature_nodes: int | None = None, seconds: float | None = None, convention: str = "paper",
    rank_every: int | None = None, first_position: bool | None = None, dynamic_tanh: str = "secant",
    mlp: str = "constant", linearisation: str = "frozen", steps: int = 16, precision: str = "highest",
    memory_budget: int | None = None, devices: Sequence[Any] | None = None,
    progress: Callable[[int, int], None] | None = None, warm_up: bool = True,
) -> Any:  # fmt: skip
    """The exact attribution graph of a prompt.

    Args:
      model: the model; the graph is computed in the dtype of its weights.
      dictionary: one that stands for what its layers write (transcoders, sparse autoencoders, Lorsa), or one for each
        of several junctions; see `replacement.places`. In memory or opened lazily (``load_dictionary(...,
        lazy=True)``); the graph is the same, byte for byte.
      prompt: text (the tokenizer adds its own start token) or token ids [T], used as they are; or a list of prompts.
      targets: None for the salient next tokens: the smallest set of most probable tokens that reaches
        probability 0.95, at most 10. Or one or several of: token ids, token texts and the sorts of
        `attribution.wanted` (``Token``, ``Salient``, ``Completion``, ``Direction``, ``Difference``, ``Feature``,
        ``Supernode``), at any positions.
      max_feature_nodes: keep at most so many features, chosen by influence; None keeps every active one.
      seconds: stop choosing features after so long; the graph records how many there were, and is made again by that
        number.
      convention: "paper" (bias nodes, position 0 as any other) or "circuit-tracer" (no bias nodes, no
        features and errors at position 0, its selection and scores).
      rank_every: where features are chosen, they are ranked again after this many; None means 512, or 2,048 in the
        circuit-tracer convention.
      first_position: whether features and errors at position 0 are sources; None leaves it to the convention.
      dynamic_tanh: what stands for a Dynamic Tanh in a model that has it, the "secant" through the origin or the
        "tangent", whose constant goes to the bias nodes of norms; see `replacement.freeze`.
      mlp: what stands for MLPs without a dictionary, their output as an error ("constant") or their "tangent".
      linearisation: "frozen", the replacement model whose effects add up exactly; or what effects are when "live-norms"
        or also patterns ("live") respond, or averaged along the path from nothing to the prompt ("integrated-norms",
        "integrated"); see `replacement.linearise`. What they leave of a value is in the column ``constant``.
      steps: operators along the path of an integrated one.
      precision: of matrix products on accelerators, "highest" for float32; a graph of "high" or "default" is not exact.
      memory_budget: bytes that the graph may take; None means half of the machine's memory.
      devices: devices to spread blocks over; None means those that hold the model. The result does not
        depend on it, unless the model's weights themselves are divided over them (then to rounding). Of several
        processes, ``jax.devices()``: each calls this with the same arguments, and each has the whole graph.
      progress: called with (rows done, rows in all), first with none done once the model has run; what it raises ends
        the work.
      warm_up: also compile what other prompts of similar length will need; for a process that traces one, it is lost.

    Returns:
      `Graph` with every node and edge (prune it with ``graph.prune()``), or a list of them for a list of prompts.

    Raises:
      InputError: an empty prompt, a token outside the vocabulary, a prompt longer than the context, a dictionary that
        does not fit, a target that does not exist, an unknown convention, weights that are not finite, or a graph
        over the memory budget (with a cap that fits).
    """
    require_ours(model)
    if convention not in CONVENTIONS:
        raise InputError(f"convention is {convention!r}, expected one of {', '.join(CONVENTIONS)}")
    if max_feature_nodes is not None and max_feature_nodes < 1:
        raise InputError(f"max_feature_nodes is {max_feature_nodes}, at least 1 is needed")
    if seconds is not None and not seconds > 0:
        raise InputError(f"seconds is {seconds}, expected a positive number")
    if rank_every is not None and rank_every < 1:
        raise InputError(f"rank_every is {rank_every}, at least 1 is needed")
    parts = fit(model, dictionary, mlp)
    paper = convention == "paper"
    skip_first = not paper if first_position is None else not first_position
    mesh = _mesh(devices, model)
    shapes = shapes_of(model, parts, linearisation, steps)

    def one(prompt: Any) -> Graph:
        ids = check_tokens(model.config, prompt_ids(model, prompt))
        text = prompt if isinstance(prompt, str) else None
        wanted = prepare(targets, ids, model.config, model.tokenizer, parts.junctions(), text)
        check_prompt(shapes, len(wanted.ids), memory_budget)
        found = set_up(
            model, parts, wanted.ids, mesh=mesh, skip_first=skip_first, dynamic_tanh=dynamic_tanh,
            linearisation=linearisation, steps=steps, precision=precision,
        ).lean()  # fmt: skip
        settings = {
            "convention": convention,
            "max_feature_nodes": max_feature_nodes,
            "rank_every": rank_every,
            "targets": wanted.plain,
            "dtype": str(found.run.logits.dtype),
            "model": model.name,
            "dictionary": _plain_names(parts),
            "active_features": len(found.active),
        }
        if model.config.norm == "tanh":
            settings["dynamic_tanh"] = dynamic_tanh
        if found.operator.mlps is not None or not any(
            p.junction == "mlp" and p.dictionary is not None for p in parts.places
        ):
            settings["mlp"] = mlp
        if linearisation != "frozen":
            settings |= {"linearisation": linearisation, "steps": steps}
        if precision != "highest":
            settings["precision"] = precision
        if first_position is not None:
            settings["first_position"] = first_position
        limits = _Limits(
            max_feature_nodes, seconds, rank_every or RANK_EVERY[convention], memory_budget, progress, warm_up
        )
        return _graph(model, found, wanted, shapes, paper, limits, settings, text)

    prompts = several(prompt)
    return one(prompt) if prompts is None else each(prompts, one)


class _Limits:
    """How much of a graph is wanted."""

    def __init__(
        self, features: int | None, seconds: float | None, rank_every: int, memory: int | None, progress: Any,
        warm_up: bool,
    ) -> None:  # fmt: skip
        self.features, self.rank_every, self.memory, self.progress = features, rank_every, memory, progress
        self.warm_up = warm_up
        self.end = None if seconds is None else time.monotonic() + seconds

    def chooses(self, active: int) -> bool:
        """Whether features are chosen by influence.

        A cap of exactly all of them chooses too: it is what a graph records whose time limit let it reach them all, and
        rows that are computed in another order have other last digits.
        """
        return self.end is not None or (self.features is not None and self.features <= active)


def _graph(
    model: Model, found: Setup, wanted: Prepared, shapes: Shapes, paper: bool, limits: _Limits,
    settings: dict[str, Any], text: str | None,
) -> Graph:  # fmt: skip
    config, active = model.config, found.active
    targets = resolve(wanted, found.logits, model.params, config)
    biases = table.bias_places(config, found.parts.places, found.groups, found.mlp_layers()) if paper else []
    layout = table.lay_out_nodes(
        found.groups, len(active), biases, len(targets), config.n_layers, len(found.ids)
    )
    limit = len(active) if limits.features is None else min(limits.features, len(active))
    costs = Costs(shapes, layout, targets.readings.position, targets.readings.layer)
    check_memory(costs, limit, limits.memory, limits.chooses(len(active)))
    if limits.progress:
        limits.progress(0, limit + len(targets))
    rows = Rows(found.walkers, layout, found.readers, active, block_rows(jax.default_backend()))
    vectors, constants = rows.encoder_rows(targets.readings)
    readings = targets.readings._replace(vectors=vectors)
    values = targets.of_readings(rows.values(readings, constants, found))
    nodes = table.table(
        layout, active, found.parts.places, found.ids, targets, values, targets.of_readings(constants)
    )
    if limits.warm_up and limit >= _MANY:
        rows.warm()
    csr, nodes, left_out = _Collector(rows, nodes, targets, readings, limits).edges(limit)
    if "linearisation" in settings:
        known = ~np.isnan(nodes["value"])
        sums = np.bincount(rows_of(csr), weights=csr.weights.astype(np.float64), minlength=len(nodes))
        nodes["constant"][known] = (nodes["value"] - nodes["left_out"] - sums)[known]
    measured: dict[str, Any] = {"identity_1": found.identity_1}
    if left_out is not None:
        measured["left_out"] = left_out
    if limits.end is not None:
        settings["max_feature_nodes"] = int((nodes["kind"] == FEATURE).sum()) or None
    provenance = {
        "record_digest": record_digest(settings, found.ids),
        "model_digest": model.digest(),
        "dictionary_digest": ",".join(one.digest() for one in found.parts.dictionaries),
        "versions": versions(),
        "platform": jax.devices()[0].platform,
    }
    labels = np.full(len(nodes), "", object)
    labels[len(nodes) - len(targets) :] = targets.labels
    name = getattr(model.tokenizer, "text", str)
    texts = tuple(name(int(i)) for i in found.ids)
    return assemble(
        nodes, csr, token_ids=tuple(int(i) for i in found.ids), token_texts=texts,
        prompt="".join(texts) if text is None else text, n_layers=config.n_layers, labels=tuple(labels),
        settings=settings, provenance=provenance, measured=measured,
    )  # fmt: skip


class _Collector:
    """Collects the rows of a graph, of every active feature or of those chosen by influence."""

    def __init__(
        self, rows: Rows, nodes: np.ndarray, targets: Targets, readings: reads.Readings, limits: _Limits
    ) -> None:
        self.rows, self.nodes, self.limits, self.layout = rows, nodes, limits, rows.layout
        self.targets = np.arange(self.layout.targets, self.layout.size)
        self.weights = np.zeros(self.layout.size)
        self.weights[self.targets] = targets.weights
        self.target_rows, self.target_left = self._of_targets(targets, readings)
        self.done = len(self.targets)

    def edges(self, limit: int) -> tuple[Csr, np.ndarray, dict[str, Any] | None]:
        """The edges, the node table, and what was left out (None for nothing)."""
        if self.limits.chooses(self.layout.features):
            return self._chosen(limit)
        return self._all(), self.nodes, None

    def _of_targets(self, targets: Targets, readings: reads.Readings) -> tuple[np.ndarray, np.ndarray]:
        layout = self.layout
        rows, left = None, np.zeros(len(readings.layer))
        for part in self.rows.of_readings(readings):
            if rows is None:
                rows = np.zeros((len(readings.layer), layout.size), part.rows.dtype)
            rows[part.numbers, : part.features] = part.rows[:, : part.features]
            rows[part.numbers, layout.features :] = part.rows[:, part.features :]
            left[part.numbers] = part.left
        assert rows is not None
        return targets.of_readings(rows).astype(rows.dtype, copy=False), targets.of_readings(left)

    def _report(self, count: int, limit: int) -> None:
        self.done += count
        if self.limits.progress:
            self.limits.progress(self.done, limit + len(self.targets))

    def _all(self) -> Csr:
        layout = self.layout
        builder = EdgeBuilder(layout.size, self.target_rows.dtype)
        rest = np.arange(layout.features, layout.size)
        for part in self.rows.of_features(np.arange(layout.features)):
            builder.add(part.numbers, np.concatenate([np.arange(part.features), rest]), part.rows)
            self.nodes["left_out"][part.numbers] = part.left
            self._report(len(part.numbers), layout.features)
        builder.add(self.targets, np.arange(layout.size), self.target_rows)
        self.nodes["left_out"][self.targets] = self.target_left
        return builder.finish()

    def _chosen(self, limit: int) -> tuple[Csr, np.ndarray, dict[str, Any] | None]:
        layout = self.layout
        known = Known(layout.features, self._stages())
        known.add(Part(self.targets, layout.features, self.target_rows, self.target_left))
        batches = expand(
            layout.features, limit, self.limits.rank_every, lambda: known.influence(self.weights)
        )
        for batch in batches:
            for part in self.rows.of_features(batch):
                known.add(part)
                self._report(len(part.numbers), limit)
            end = self.limits.end
            if end is not None and self.rows.walker.any_says(time.monotonic() > end):
                break
        keep = np.ones(layout.size, bool)
        keep[: layout.features] = False
        for part in known.parts:
            keep[part.numbers] = True
        place = np.cumsum(keep) - 1
        rest = place[layout.features :]
        builder = EdgeBuilder(int(keep.sum()), self.target_rows.dtype)
        for part in known.parts:
            kept = np.flatnonzero(keep[: part.features])
            gone = np.flatnonzero(~keep[: part.features])
            rows = np.concatenate([part.rows[:, kept], part.rows[:, part.features :]], axis=1)
            builder.add(place[part.numbers], np.concatenate([place[kept], rest]), rows)
            lost = part.rows[:, gone].sum(axis=1, dtype=np.float64)
            self.nodes["left_out"][part.numbers] = part.left + lost
        return builder.finish(), self.nodes[keep], self._left_out(known, keep)

    def _left_out(self, known: Known, keep: np.ndarray) -> dict[str, Any] | None:
        """How many features have no row, and a bound on what passes through them.

        Influence that reaches a feature without a row goes no further here; with its row it would be divided among
        its sources. So the sum of it bounds by how much any node's influence, the replacement score or a share of
        errors could change (completeness and path lengths are averages over nodes, for which it is no bound).
        """
        gone = ~keep[: self.layout.features]
        if not gone.any():
            return None
        influence = known.influence(self.weights)
        total = float(self.weights.sum())
        lost = influence[: self.layout.features][gone]
        return {
            "features": int(gone.sum()),
            "influence": float(lost.sum() / total) if total > 0 else 0.0,
            "largest": float(lost.max() / total) if total > 0 else 0.0,
        }

    def _stages(self) -> np.ndarray:
        """[n] such that every edge comes from a lower one: the order in which features read."""
        layout, found = self.layout, np.full(self.layout.size, -1)
        for group in layout.groups:
            site = self.rows.walker.places[group.place].read_site
            if site is not None:
                at = slice(group.first, group.first + len(group.feature))
                found[at] = group.layer * len(VECTOR_SITES) + VECTOR_SITES.index(site)
        found[self.targets] = np.iinfo(found.dtype).max
        return found


def record_digest(settings: dict[str, Any], ids: Iterable[int]) -> str:
    """sha256 of the settings that a graph follows from and of its token ids; names do not count."""
    kept = {key: settings.get(key) for key in RECORDED}
    kept |= {key: settings[key] for key in RECORDED_WHERE_SET if key in settings}
    text = json.dumps([kept, [int(i) for i in ids]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain_names(parts: Parts) -> Any:
    names = [one.name for one in parts.dictionaries]
    return names[0] if len(names) == 1 else names


def _mesh(devices: Sequence[Any] | None, model: Model) -> Any:
    tokens = model.params["embed"]["tokens"]
    if isinstance(tokens, jax.Array) and not tokens.is_fully_addressable:
        raise InputError(
            "the model's weights are spread over several processes, each needs them whole: load it without a mesh"
        )
    if devices is None:
        devices = sorted(tokens.devices(), key=lambda device: device.id)
    return make(devices=list(devices))
