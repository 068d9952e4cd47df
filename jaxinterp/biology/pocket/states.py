"""State features: do two-hop answers pass through features that stand for the city's state?

A state's feature is one that fires on at least 80 % of the seen two-hop prompts of that state and on at most
10 % of those of other states; it is labelled on seen cities only. On prompts about held-out cities, which the
model answers rightly without ever having been shown them, we ask whether such a feature survives pruning, and
which share of the influence on the answer passes through them, beside the same number of active features
taken at random.

Letters: B prompts, T position, L layers, N features.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.attribution.tracing import trace
from jaxinterp.biology.pocket import gates, items, vocabulary, words
from jaxinterp.biology.pocket.documents import Item
from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries.base import Dictionary, DictionaryConfig, kind_of
from jaxinterp.graphs.graph import Graph
from jaxinterp.graphs.influence import normalised, steps
from jaxinterp.graphs.kinds import FEATURE, TARGET
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import forward
from jaxinterp.models.model import Model

OWN_SHARE, OTHER_SHARE = 0.80, 0.10
ROWS = 32  # prompts encoded at a time
RANDOM_DRAWS = 20

Feature = tuple[int, int]
"""(layer, index)."""


class PromptResult(NamedTuple):
    """One held-out prompt: how many state-feature nodes it has before and after pruning, and the shares of
    influence.
    """

    prompt: str
    state: str
    nodes: int
    survivors: int
    share: float
    random_share: float


@partial(jax.jit, static_argnums=(1, 3))
def _fires(
    params: Tree, config: ModelConfig, features: Tree, dictionary: DictionaryConfig, tokens: Array
) -> Array:
    """tokens [B, T] → [B, L, N]: whether a feature is active at any token but the first."""
    _, activations = forward(params, config, tokens, sites=(dictionary.read_site,))
    site = getattr(activations, dictionary.read_site)
    active = kind_of(dictionary).encode(features, dictionary, site) > 0
    return jnp.moveaxis(active[:, :, 1:].any(axis=2), 1, 0)


def fires(model: Model, dictionary: Dictionary, questions: Sequence[Item]) -> np.ndarray:
    """[B, L, N] bool: whether a feature is active at any token of a question, the first (start) token apart."""
    packed = [vocabulary.encode(item.prompt) for item in questions]
    if len({len(row) for row in packed}) != 1:
        raise ValueError("two-hop questions are all of one length")
    tokens, result = np.array(packed, np.int32), []
    for start in range(0, len(tokens), ROWS):
        rows = np.zeros((ROWS, tokens.shape[1]), np.int32)
        rows[: len(tokens[start : start + ROWS])] = tokens[start : start + ROWS]
        found = _fires(model.params, model.config, dictionary.params, dictionary.config, rows)
        result.append(np.asarray(found)[: len(tokens) - start])
    return np.concatenate(result)


def state_features(model: Model, dictionary: Dictionary) -> dict[str, list[Feature]]:
    """The features of each state, labelled on two-hop prompts about seen cities."""
    seen = [item for item in items.all_items() if item.family == "facts" and item.kind == "composite"]
    active = fires(model, dictionary, seen)
    states = np.array([item.about for item in seen])
    result: dict[str, list[Feature]] = {}
    for state in words.STATES:
        own, other = active[states == state].mean(axis=0), active[states != state].mean(axis=0)
        layers, indices = np.nonzero((own >= OWN_SHARE) & (other <= OTHER_SHARE))
        result[state] = [(int(layer), int(index)) for layer, index in zip(layers, indices, strict=True)]
    return result


def passing_share(graph: Graph, through: np.ndarray, target: int) -> float:
    """Share of the influence on one target that passes through a set of nodes.

    Influence runs from the target backwards along edges, divided in proportion to their absolute weights,
    until it ends in tokens, errors and biases. The share is that of the runs that meet the set at all.

    Args:
      graph: a whole graph.
      through: [nodes] bool.
      target: number of the target node.
    """
    rows = normalised(graph.csr, graph.convention)
    lengths = np.diff(rows.indptr)
    stopped = rows.copy()
    stopped.data = np.where(
        np.repeat(through, lengths), 0.0, rows.data
    )  # a run that meets the set ends there
    start = np.zeros(len(graph.nodes))
    start[target] = 1.0
    return float(sum(flow[through].sum() for flow in steps(stopped, start)))


def study_prompt(
    model: Model, dictionary: Dictionary, question: Item, features: Sequence[Feature], seed: int = 0,
    **settings: Any,
) -> PromptResult | None:  # fmt: skip
    """Trace one question and see what passes through the state's features; None where the answer is no
    target.
    """
    graph = trace(model, dictionary, question.prompt, **settings)
    nodes = graph.nodes
    answer = vocabulary.ids()[question.answer[0]]
    target = np.flatnonzero((nodes["kind"] == TARGET) & (nodes["index"] == answer))
    if not len(target):
        return None
    wanted = set(features)

    def members(table: np.ndarray) -> np.ndarray:
        named = zip(table["layer"].tolist(), table["index"].tolist(), strict=True)
        return np.array([pair in wanted for pair in named]) & (table["kind"] == FEATURE)

    mine, kept = members(nodes), members(graph.prune().nodes)
    all_features = np.flatnonzero(nodes["kind"] == FEATURE)
    rng, shares = np.random.default_rng(seed), []
    for _ in range(RANDOM_DRAWS):
        drawn = np.zeros(len(nodes), bool)
        drawn[rng.choice(all_features, min(int(mine.sum()), len(all_features)), replace=False)] = True
        shares.append(passing_share(graph, drawn, int(target[0])))
    return PromptResult(
        question.prompt, question.about, int(mine.sum()), int(kept.sum()), passing_share(graph, mine, int(target[0])),
        float(np.mean(shares)),
    )  # fmt: skip


def study(model: Model, dictionary: Dictionary, limit: int | None = None, **settings: Any) -> dict[str, Any]:
    """The whole study on prompts about held-out cities that the model answers rightly.

    Args:
      limit: at most so many prompts, spread evenly; None takes all.
      settings: for `trace`.

    Returns:
      `prompts`, `surviving` (share of prompts with a state feature left after pruning), `share` and
      `random_share` (means),
      `states_with_features`, `features` per state and `results`.
    """
    features = state_features(model, dictionary)
    held_out = [item for item in items.all_items() if item.kind == "CITY"]
    answered = [item for item, hit in zip(held_out, gates.right(model, held_out), strict=True) if hit]
    if limit is not None and limit < len(answered):
        answered = [answered[i] for i in np.linspace(0, len(answered) - 1, limit).round().astype(int)]
    found = [
        study_prompt(model, dictionary, item, features[item.about], seed=i, **settings)
        for i, item in enumerate(answered)
    ]
    results = [result for result in found if result is not None]
    return {
        "prompts": len(results),
        "surviving": float(np.mean([result.survivors > 0 for result in results])),
        "nodes": float(np.mean([result.nodes for result in results])),
        "share": float(np.mean([result.share for result in results])),
        "random_share": float(np.mean([result.random_share for result in results])),
        "states_with_features": sum(bool(own) for own in features.values()),
        "features": {state: [list(feature) for feature in own] for state, own in features.items()},
        "results": [result._asdict() for result in results],
    }


def main(arguments: Sequence[str]) -> None:
    """Print the study of a dictionary (a folder or a bundled name) as JSON: `python -m
    jaxinterp.biology.pocket.states pocket-clt 60`.
    """
    from jaxinterp.checkpoints import load_model
    from jaxinterp.dictionaries.load import load_dictionary

    source = arguments[0] if arguments else "pocket-clt"
    limit = int(arguments[1]) if len(arguments) > 1 else None
    result = study(load_model("pocket"), load_dictionary(source), limit)
    print(json.dumps({key: value for key, value in result.items() if key != "results"}, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
