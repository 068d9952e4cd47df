"""Why a head looks where it looks: attention scores as sums over pairs of sources.

The score of a query for a key, before mask and softmax, is bilinear in the residual stream at two positions. Both are
sums over the sources of the replacement model, so the score is exactly a sum over pairs of them: feature with feature,
feature with bias, and so on (Kamath et al. 2025, "Tracing Attention Computation Through Feature Interactions"). Norms
are kept as they were on the prompt.

Letters: D width, E head width, n sources, T position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxinterp.attribution.nodes import ATTENTION, NO_PART, NORM
from jaxinterp.attribution.qk_record import QkAttribution, QkScore
from jaxinterp.attribution.qk_sides import Form, forms, live
from jaxinterp.attribution.replaced import Replaced, contributions, replace
from jaxinterp.attribution.targets import salient
from jaxinterp.core.errors import InputError
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.model import Model, require_ours

COTANGENT_BYTES = 1 << 28


def qk_attribution(
    model: Model, dictionary: Any, prompt: Any, *, layer: int, head: int, query: int = -1,
    keys: Sequence[int] | int | None = None, dynamic_tanh: str = "secant", mlp: str = "constant",
) -> QkAttribution:  # fmt: skip
    """Attention scores of one query of one head as exact sums over pairs of sources.

    Args:
      model, dictionary: as for `trace`.
      prompt: text, token ids, or what `replaced.replace` gave for one, which saves its work for further heads.
      layer, head: whose scores.
      query: position of the query; negative ones count from the end.
      keys: positions of keys; None takes the fewest that get 95 % of the query's attention to keys, at most 10.
      dynamic_tanh, mlp: as for `trace`.

    Returns:
      `QkAttribution`, a `QkScore` for each key. The sources are those of a graph of the prompt, with the biases of the
      head's own layer.

    Raises:
      InputError: a layer, head or position that does not exist; a key that the query does not see; a model whose scores
        pass a softcap.
    """
    require_ours(model)
    config = model.config
    if config.attn_softcap is not None:
        raise InputError(
            f"{model.name or 'this model'} passes attention scores through a softcap ({config.attn_softcap:g}), "
            "cap * tanh(x / cap), which is no sum over pairs of sources: its scores are not divided"
        )
    _among("layer", layer, config.n_layers)
    _among("head", head, config.n_heads)
    at = (
        prompt
        if isinstance(prompt, Replaced)
        else replace(model, dictionary, prompt, dynamic_tanh=dynamic_tanh, mlp=mlp)
    )
    ids = at.setup.ids
    t = len(ids)
    query = _position("query", query, t)
    attention = np.asarray(at.setup.run.frozen.pattern[layer, 0, head, query, :t], np.float64)
    if keys is None:
        keys = [int(key) for key in salient(attention / attention.sum()) if attention[key] > 0]
    elif isinstance(keys, int | np.integer):
        keys = [int(keys)]
    keys = [_position("key", key, t) for key in keys]
    if not keys or len(set(keys)) < len(keys):
        raise InputError("keys is empty or has a position twice, expected different positions")
    for key in keys:
        _check_seen(config, layer, query, key)

    run = live(model.params, config, at.tokens, np.int32(layer), dynamic_tanh)
    scores = np.asarray(run.queries, np.float64)[query, head] @ (
        np.asarray(run.keys, np.float64)[keys, head // config.group_size].T
    )
    own, _ = forms(at.operator, run, np.int32(layer), np.int32(query), np.int32(head))
    of_query = _vectors(at, layer, query, own)
    text = getattr(model.tokenizer, "text", str)
    found = []
    for key, score in zip(keys, scores * config.score_scale, strict=True):
        _, other = forms(at.operator, run, np.int32(layer), np.int32(key), np.int32(head))
        of_key = _vectors(at, layer, key, other)
        found.append(QkScore((key,), float(score), (float(attention[key]),), at.sources, of_query, of_key))
    return QkAttribution(
        layer, head, query, tuple(int(i) for i in ids), tuple(text(int(i)) for i in ids), tuple(found),
        model.name, tuple(one.name for one in at.setup.parts.dictionaries),
    )  # fmt: skip


def _vectors(at: Replaced, layer: int, position: int, form: Form) -> np.ndarray:
    """What every source adds to a query or key: [n, E]."""
    width = form.vectors.shape[0]
    size = max(1, COTANGENT_BYTES // (at.setup.writes.padded * form.vectors.nbytes // width))
    blocks = -(-width // size)
    size = -(-width // blocks)
    padded = jnp.pad(form.vectors, [(0, blocks * size - width), (0, 0)])
    out = np.concatenate(
        [contributions(at, layer, position, padded[i * size : (i + 1) * size]) for i in range(blocks)], axis=1
    )[:, :width]
    for kind, own in ((ATTENTION, form.attention), (NORM, form.norm)):
        if (start := at.layout.biases.get((layer, kind, NO_PART))) is not None:
            out[start + position] += np.asarray(own)
    return out


def _among(what: str, number: Any, count: int) -> None:
    if not isinstance(number, int | np.integer) or isinstance(number, bool) or not 0 <= number < count:
        raise InputError(f"{what} is {number!r}, the model has {count} of them, 0 to {count - 1}")


def _position(what: str, position: Any, length: int) -> int:
    whole = isinstance(position, int | np.integer) and not isinstance(position, bool)
    if not whole or not -length <= position < length:
        raise InputError(
            f"{what} is {position!r}, expected a position of the prompt's {length} tokens, 0 to {length - 1}"
        )
    return int(position) % length


def _check_seen(config: ModelConfig, layer: int, query: int, key: int) -> None:
    if key > query:
        raise InputError(f"the query at position {query} does not see the key at {key}: it comes later")
    window = config.windows[layer] if config.windows else 0
    if window and query - key >= window:
        raise InputError(
            f"the query at position {query} does not see the key at {key}: layer {layer} sees {window} tokens, its own "
            f"included ({max(query - window + 1, 0)} to {query})"
        )
