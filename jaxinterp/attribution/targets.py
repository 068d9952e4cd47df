"""What a graph explains, as combinations of readings: next tokens, directions, features and sums of them.

Letters: C targets, D width, U tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.attribution import readings as reads
from jaxinterp.attribution.prepare import Prepared
from jaxinterp.attribution.wanted import Difference, Direction, Feature, Salient, Supernode, Target, Token
from jaxinterp.attribution.wanted_checks import group, identity, label_of
from jaxinterp.core.letters import Array, Tree
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import unembedding

PROBABILITY = 0.95
AT_MOST = 10


def resolve(
    prepared: Prepared, logits: Callable[[int], np.ndarray], params: Tree, config: ModelConfig
) -> reads.Targets:
    """The targets of a graph, as combinations of readings.

    A target counts in the influence by its own ``weight``; where it has none, a token by its probability at its
    position, and anything else by 1 / C. Weights are not normalised: influence is linear in them and scores are
    ratios, so only their proportions matter.

    Args:
      prepared: from `prepare.prepare`.
      logits: position → [V] logits there after any softcap; asked for where tokens are targets.
      params, config: the model.

    Returns:
      `readings.Targets`; encoder rows of features are still to be looked up.
    """

    @lru_cache(maxsize=8)  # each is as long as the vocabulary
    def probabilities(position: int) -> np.ndarray:
        return _softmax(np.asarray(logits(position)))

    items = _with_salient(prepared.items, probabilities)
    columns = _columns(items, params, config)
    numbers: dict[Any, int] = {}
    found: list[_Reading] = []
    factors: list[dict[int, float]] = []
    for item in items:
        factors.append({})
        for key, reading, factor in _terms(item, columns, config.n_layers):
            if key not in numbers:
                numbers[key] = len(found)
                found.append(reading)
            factors[-1][numbers[key]] = factor
    combine = np.zeros((len(items), len(found)))
    for row, parts in zip(combine, factors, strict=True):
        row[list(parts)] = list(parts.values())
    nodes = [_node(item, config.n_layers) for item in items]
    layer, part, position, index = (np.asarray(column) for column in zip(*nodes, strict=True))
    apart = bool((position != len(prepared.ids) - 1).any())
    labels = tuple(
        label_of(item, prepared.text) + (f"@{p}" if apart and not isinstance(item, Supernode) else "")
        for item, p in zip(items, position.tolist(), strict=True)
    )
    weights = np.asarray([_weight(item, len(items), probabilities) for item in items], np.float64)
    readings = _stacked(found, columns.vectors.dtype, prepared.width)
    return reads.Targets(readings, combine, labels, weights, layer, part, position, index)


def salient(probabilities: np.ndarray, mass: float = PROBABILITY, at_most: int = AT_MOST) -> np.ndarray:
    """Token ids of the smallest set of most probable tokens that reaches ``mass``, at most ``at_most``.

    Args:
      probabilities: [V].
    """
    order = np.argsort(-probabilities, kind="stable")[:at_most]
    reached = int(np.searchsorted(np.cumsum(probabilities[order]), mass)) + 1
    return order[: min(reached, at_most)]


class _Reading(NamedTuple):
    layer: int
    part: int
    position: int
    feature: int = -1
    vector: np.ndarray | None = None


class _Columns(NamedTuple):
    """Demeaned unembedding columns [U, D] and which token has which."""

    vectors: np.ndarray
    place: dict[int, int]

    def mean(self, tokens: Iterable[int]) -> np.ndarray:
        """[D] in float64."""
        return self.vectors[[self.place[token] for token in tokens]].astype(np.float64).mean(axis=0)


def _softmax(logits: np.ndarray) -> np.ndarray:
    # In float64 on the host: the choice must not depend on the device.
    shifted = np.exp(logits.astype(np.float64) - float(logits.max()))
    return shifted / shifted.sum()


def _with_salient(items: Sequence[Target], probabilities: Callable[[int], np.ndarray]) -> list[Target]:
    """Salient tokens in their place, but for those that are named besides."""
    named = {identity(item) for item in items}
    found: list[Target] = []
    for item in items:
        if not isinstance(item, Salient):
            found.append(item)
            continue
        for token in salient(probabilities(_at(item)), item.mass, item.at_most):
            one = Token(int(token), item.position, item.weight)
            if identity(one) not in named:
                named.add(identity(one))
                found.append(one)
    return found


def _columns(items: Sequence[Target], params: Tree, config: ModelConfig) -> _Columns:
    tokens: list[int] = []
    for item in items:
        if isinstance(item, Token):
            tokens.append(int(item.token))
        elif isinstance(item, Difference):
            tokens += [*group(item.plus), *group(item.minus)]
    place = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    filled = np.zeros(max(-(-len(place) // _PADDED), 1) * _PADDED, np.int32)
    filled[: len(place)] = list(place)
    return _Columns(np.asarray(_token_vectors(params, config, filled)), place)


_PADDED = 16  # so that another number of targets does not compile again


@partial(jax.jit, static_argnums=1)
def _token_vectors(params: Tree, config: ModelConfig, tokens: Array) -> Array:
    matrix = unembedding(params, config)
    return (matrix[:, tokens] - jnp.mean(matrix, axis=1, keepdims=True)).T


def _terms(item: Target, columns: _Columns, n_layers: int) -> list[tuple[Any, _Reading, float]]:
    """Each reading of a target: what makes it the same as another, what it is, its factor."""
    if isinstance(item, Supernode):
        factors = item.weights or (1.0,) * len(item.members)
        return [
            (key, reading, float(factor))
            for member, factor in zip(item.members, factors, strict=True)
            for key, reading, _ in _terms(member, columns, n_layers)
        ]
    if isinstance(item, Feature):
        part = reads.PARTS.index(str(item.part))
        reading = _Reading(item.layer, part, _at(item), item.index)
    elif isinstance(item, Direction) and item.layer is not None:
        part = reads.PARTS.index(str(item.site))
        reading = _Reading(item.layer, part, _at(item), vector=np.asarray(item.vector))
    else:
        reading = _Reading(n_layers, reads.FINAL, _at(item), vector=_final_vector(item, columns))
    return [(identity(item), reading, 1.0)]


def _final_vector(item: Target, columns: _Columns) -> np.ndarray:
    """[D] what a target reads after the final norm."""
    if isinstance(item, Direction):
        return np.asarray(item.vector)
    if isinstance(item, Token):
        return columns.vectors[columns.place[int(item.token)]]
    assert isinstance(item, Difference)
    vector = columns.mean(group(item.plus))
    minus = group(item.minus)
    return vector - columns.mean(minus) if minus else vector


def _node(item: Target, n_layers: int) -> tuple[int, int, int, int]:
    """Layer, part, position and index of a target's node; a supernode stands at its last member."""
    if isinstance(item, Supernode):
        last = max(_node(member, n_layers)[:3] for member in item.members)
        return (*last[:2], max(_at(member) for member in item.members), -1)
    if isinstance(item, Feature):
        return item.layer, reads.PARTS.index(str(item.part)), _at(item), item.index
    if isinstance(item, Direction) and item.layer is not None:
        return item.layer, reads.PARTS.index(str(item.site)), _at(item), -1
    index = int(item.token) if isinstance(item, Token) else -1
    return n_layers, reads.PARTS.index("mlp"), _at(item), index


def _weight(item: Target, count: int, probabilities: Callable[[int], np.ndarray]) -> float:
    if item.weight is not None:
        return item.weight
    return float(probabilities(_at(item))[int(item.token)]) if isinstance(item, Token) else 1.0 / count


def _at(item: Any) -> int:
    """The one position of a checked target."""
    return int(item.position)


def _stacked(found: Sequence[_Reading], dtype: Any, width: int) -> reads.Readings:
    vectors = np.zeros((len(found), width), dtype)
    for i, reading in enumerate(found):
        if reading.vector is not None:
            vectors[i, : len(reading.vector)] = reading.vector.astype(dtype)
    layer, part, position, feature = (
        np.asarray(column, np.int32) for column in zip(*(one[:4] for one in found), strict=True)
    )
    return reads.Readings(layer, part, position, feature, np.full_like(layer, -1), vectors)
