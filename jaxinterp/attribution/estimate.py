"""What a graph will take, before it is made: seconds, memory, and a cap that fits."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.attribution import nodes as table
from jaxinterp.attribution.blocks import block_rows
from jaxinterp.attribution.costs import Costs, Shapes, prompt_bytes
from jaxinterp.attribution.prepare import Prepared, prepare
from jaxinterp.attribution.prompts import each, several
from jaxinterp.attribution.setup import Parts, fit, look, mlp_layers
from jaxinterp.attribution.sources import Active, lay_out
from jaxinterp.attribution.targets import resolve
from jaxinterp.attribution.wanted import Salient
from jaxinterp.attribution.wanted_checks import parts_of
from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.lazy import AnyDictionary, LazyDictionary
from jaxinterp.graphs.kinds import CONVENTIONS
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.generation import check_tokens, prompt_ids
from jaxinterp.models.model import Model, require_ours
from jaxinterp.replacement import Place
from jaxinterp.replacement.linearise import LINEARISATIONS
from jaxinterp.replacement.parts import JUNCTIONS

GIB = 2**30
_MEASURED = 0.3  # seconds that measuring the rate may take


@dataclass(frozen=True)
class Estimate:
    """What a graph will take.

    Attributes:
      tokens, active: of the prompt; active features.
      measured: whether they were counted by running the model, or given.
      features, targets, nodes, edges: of the graph; edges roughly.
      necessary, executed: floating-point operations that no exact method can leave out, and those of the blocks.
      rate: floating-point operations a second of such products on one device. devices: over how many blocks go.
      seconds: of the products at that rate, the model's run and the host's part, compilation apart.
      memory: bytes by what takes them while rows are computed; bytes: the most at a time, beyond model and dictionary.
      budget: bytes that the graph may take.
      fits: the largest number of features up to ``features`` that stays within the budget; 0 for none.
    """

    tokens: int
    active: int
    measured: bool
    features: int
    targets: int
    nodes: int
    edges: int
    necessary: float
    executed: float
    rate: float
    devices: int
    seconds: float
    memory: dict[str, int]
    bytes: int
    budget: int
    fits: int

    def to_dict(self) -> dict[str, Any]:
        """As plain numbers, for JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        """A few lines for people.

        >>> print(str(Estimate(3, 10, True, 10, 2, 20, 80, 1e6, 2e6, 1e9, 1, 0.002, {"edges": 960}, 960, 2**30, 10)))
        3 tokens, 10 active features (counted); a graph of 10 features and 2 targets: 20 nodes, about 80 edges
        time: about 0.0 s without compilation; 0 GFLOP, 0 of them necessary, at 1 GFLOP/s
        memory: about 0.00 GiB of 1.00 GiB beyond model and dictionary: edges 0.00
        """
        most = sorted(self.memory.items(), key=lambda item: -item[1])
        on = f" on {self.devices} devices" if self.devices > 1 else ""
        lines = [
            f"{self.tokens:,} tokens, {self.active:,} active features ({'counted' if self.measured else 'given'}); "
            f"a graph of {self.features:,} features and {self.targets} targets: {self.nodes:,} nodes, about "
            f"{self.edges:,} edges",
            f"time: about {self.seconds:.1f} s without compilation; {self.executed / 1e9:,.0f} GFLOP, "
            f"{self.necessary / 1e9:,.0f} of them necessary, at {self.rate / 1e9:,.0f} GFLOP/s{on}",
            f"memory: about {self.bytes / GIB:.2f} GiB of {self.budget / GIB:.2f} GiB beyond model and dictionary: "
            + ", ".join(f"{name} {size / GIB:.2f}" for name, size in most),
        ]
        if self.fits < self.features:
            lines.append(f"over the budget: {_fitting(self.fits)}")
        return "\n".join(lines)


def estimate(
    model: Model, dictionary: AnyDictionary | Sequence[AnyDictionary], prompt: Any, *, targets: Any = None,
    max_feature_nodes: int | None = None, seconds: float | None = None, convention: str = "paper",
    rank_every: int | None = None, first_position: bool | None = None, dynamic_tanh: str = "secant",
    mlp: str = "constant", linearisation: str = "frozen", steps: int = 16, precision: str = "highest",
    memory_budget: int | None = None, devices: Sequence[Any] | None = None, progress: Any = None,
    warm_up: bool = True, active: int | None = None, rate: float | None = None,
) -> Any:  # fmt: skip
    """What `trace` with the same arguments will take, without making the graph.

    The model runs once on the prompt and its features are encoded, which is how many are active; no decoder is
    read. With ``active`` not even that happens.

    Args:
      active: how many features are active, over all layers and positions; None counts them.
      rate: floating-point operations a second of one device; None measures it, in a fraction of a second.

    Returns:
      `Estimate`, or a list of them for a list of prompts. Live linearisations take longer than it says.

    Raises:
      InputError: as `trace`, but for a graph over the memory budget, of which the estimate says what would fit.
    """
    require_ours(model)
    if convention not in CONVENTIONS:
        raise InputError(f"convention is {convention!r}, expected one of {', '.join(CONVENTIONS)}")
    for name, value, least in (("max_feature_nodes", max_feature_nodes, 1), ("active", active, 0)):
        if value is not None and value < least:
            raise InputError(f"{name} is {value}, at least {least} is needed")
    if linearisation not in LINEARISATIONS:
        raise InputError(f"linearisation is {linearisation!r}, expected one of {', '.join(LINEARISATIONS)}")
    parts = fit(model, dictionary, mlp)
    paper, config = convention == "paper", model.config
    skip_first = not paper if first_position is None else not first_position
    shapes = shapes_of(model, parts, linearisation, steps)
    tokens = model.params["embed"]["tokens"]
    count = len(tokens.devices() if devices is None else devices)

    def one(prompt: Any) -> Estimate:
        ids = check_tokens(config, prompt_ids(model, prompt))
        text = prompt if isinstance(prompt, str) else None
        wanted = prepare(targets, ids, config, model.tokenizer, parts.junctions(), text)
        n_tokens = len(wanted.ids)
        if active is None:
            check_prompt(shapes, n_tokens, memory_budget)
            found = look(model, parts, wanted.ids, skip_first, dynamic_tanh)
            known, groups = found.active, found.groups
            readings = resolve(
                wanted, lambda at: np.asarray(found.run.logits[0, at]), model.params, config
            ).readings
            where = readings.position, readings.layer
        else:
            known = _spread(parts.places, config.n_layers, n_tokens, active, skip_first)
            groups = lay_out(known, parts.places, config.n_layers, n_tokens)
            where = _about(wanted, config)
        biases = (
            table.bias_places(config, parts.places, groups, mlp_layers(parts.places, config.n_layers))
            if paper
            else []
        )
        layout = table.lay_out_nodes(groups, len(known), biases, len(where[0]), config.n_layers, n_tokens)
        costs = Costs(shapes, layout, np.asarray(where[0]), np.asarray(where[1]))
        limit = len(known) if max_feature_nodes is None else min(max_feature_nodes, len(known))
        chosen = seconds is not None or limit < len(known)
        budget = default_budget() if memory_budget is None else memory_budget
        necessary, executed = costs.operations(limit)
        speed = _rate(config, costs.padded, tokens.dtype) if rate is None else float(rate)
        needed = costs.peak(limit, chosen)
        return Estimate(
            n_tokens, len(known), active is None, limit, len(where[0]), layout.size - len(known) + limit,
            costs.edges(limit), necessary, executed, speed, count,
            executed / speed / count + costs.beside(limit, jax.default_backend() == "cpu"),
            costs.memory(limit, chosen), needed, budget,
            limit if needed <= budget else costs.most(limit, seconds is not None, budget),
        )  # fmt: skip

    prompts = several(prompt)
    return one(prompt) if prompts is None else each(prompts, one)


def shapes_of(model: Model, parts: Parts, linearisation: str = "frozen", steps: int = 16) -> Shapes:
    """What costs depend on, of a model and dictionaries."""
    return Shapes(
        model.config, parts.places, tuple(d.config for d in parts.dictionaries),
        tuple(isinstance(d, LazyDictionary) for d in parts.dictionaries),
        model.params["embed"]["tokens"].dtype.itemsize, block_rows(jax.default_backend()),
        steps if linearisation.startswith("integrated") else 1, LINEARISATIONS.get(linearisation, ""),
    )  # fmt: skip


def default_budget() -> int:
    """Half of the machine's memory, bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def check_prompt(shapes: Shapes, tokens: int, budget: int | None) -> None:
    """Refuse a prompt whose patterns and values alone take more than ``budget`` bytes (None: half of the memory).

    Raises:
      InputError: saying how much, how far over, and how many tokens would fit.
    """
    budget = default_budget() if budget is None else budget

    def needed(count: int) -> int:
        return sum(prompt_bytes(shapes, count).values())

    if needed(tokens) <= budget:
        return
    low, high = 0, tokens
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if needed(middle) <= budget else (low, middle - 1)
    most = max(prompt_bytes(shapes, tokens).items(), key=lambda item: item[1])
    fit = f"up to {low} tokens fit" if low else "not even one token fits"
    raise InputError(
        f"a prompt of {tokens} tokens needs about {needed(tokens) / GIB:.2f} GiB ({most[0]}: {most[1] / GIB:.2f}), "
        f"{(needed(tokens) - budget) / GIB:.2f} GiB over the budget of {budget / GIB:.2f} GiB: {fit}"
    )


def check_memory(costs: Costs, limit: int, budget: int | None, timed: bool = False) -> None:
    """Refuse a graph that would take more than ``budget`` bytes (None: half of the machine's memory).

    Args:
      limit: how many features get a row.
      timed: features are chosen until time is up, for which rows over every node are kept.

    Raises:
      InputError: saying how much it would take, and the largest number of features that fits.
    """
    budget = default_budget() if budget is None else budget
    needed = costs.peak(limit, timed or limit < costs.layout.features)
    if needed <= budget:
        return
    fit = _fitting(costs.most(limit, timed, budget))
    raise InputError(
        f"the graph of {limit} features needs about {needed / GIB:.2f} GiB, {(needed - budget) / GIB:.2f} GiB over "
        f"the budget of {budget / GIB:.2f} GiB: {fit}"
    )


def _fitting(cap: int) -> str:
    return f"max_feature_nodes={cap} fits" if cap else "no cap fits, use a shorter prompt"


def _spread(places: Sequence[Place], n_layers: int, n_tokens: int, count: int, skip_first: bool) -> Active:
    """So many features, the same number everywhere as nearly as can be."""
    layers = [
        (layer, JUNCTIONS.index(place.junction), number)
        for number, place in enumerate(places)
        if place.dictionary is not None
        for layer in place.layers
    ]
    first = 1 if skip_first and n_tokens > 1 else 0
    spots = [(*spot, position) for spot in sorted(layers) for position in range(first, n_tokens)]
    each_, more = divmod(count, max(len(spots), 1))
    numbers = np.full(len(spots), each_)
    numbers[:more] += 1
    layer, part, place, position = np.repeat(np.array(spots, np.int32), numbers, axis=0).T
    nothing = np.zeros(len(layer))
    index = np.arange(len(layer), dtype=np.int32)
    return Active(place, part, layer, position, index, nothing, nothing, nothing)


def _about(wanted: Prepared, config: ModelConfig) -> tuple[np.ndarray, np.ndarray]:
    """Positions and layers of about so many readings as targets will have, before logits are known."""
    position: list[int] = []
    for item in wanted.items:
        count = item.at_most if isinstance(item, Salient) else max(len(list(parts_of(item))), 1)
        at = getattr(item, "position", len(wanted.ids) - 1)
        position += [int(at) if isinstance(at, int | np.integer) else len(wanted.ids) - 1] * count
    return np.array(position), np.full(len(position), config.n_layers)


def _rate(config: ModelConfig, padded: int, dtype: Any) -> float:
    """Floating-point operations a second of a layer's products on the default device, for blocks of this length."""
    t = min(padded, 512)  # a few milliseconds: on a busy machine longer products never run undisturbed
    columns = max(512 // t, 8)
    d, inner = min(config.d_model, 4096), min(config.n_heads * config.d_value, 4096)

    @jax.jit
    def step(x: Any, weight: Any, pattern: Any) -> Any:
        y = jnp.matmul(x, weight, precision="highest")
        return jnp.matmul(pattern, y.reshape(t, -1), precision="highest")

    given = [jnp.ones(shape, dtype) for shape in ((t * columns, d), (d, inner), (t, t))]
    step(*given).block_until_ready()
    best, end = np.inf, time.perf_counter() + _MEASURED
    while (start := time.perf_counter()) < end or not np.isfinite(best):
        step(*given).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2.0 * t * columns * inner * (d + t) / best
