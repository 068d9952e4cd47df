"""The logit lens on two-hop questions: the state can be read before the answer.

After each layer the residual stream at the last position goes through the final norm and the unembedding; we
ask whether the true state beats the other states, and the true answer the other values of the same attribute.
Questions are about held-out cities, so the answer cannot have been remembered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxinterp.biology.pocket import items, vocabulary, words
from jaxinterp.biology.pocket.documents import Item
from jaxinterp.core.precision import einsum
from jaxinterp.models import norms
from jaxinterp.models.decoder import forward, unembedding
from jaxinterp.models.model import Model


def by_layer(model: Model, questions: Sequence[Item]) -> np.ndarray:
    """Lens logits [L + 1, B, V] at the last position of questions of one length; row 0 is the embedding."""
    tokens = np.array([vocabulary.encode(item.prompt) for item in questions], np.int32)
    _, found = forward(model.params, model.config, jnp.asarray(tokens), sites=("embed", "resid_post"))
    stream = jnp.concatenate([found.embed[None], found.resid_post])[:, :, -1]
    weights = model.params["final_norm"]
    line = norms.Line(norms.scale(stream, weights, model.config))
    x = norms.affine(norms.divide(stream, line, model.config), weights, model.config)
    return np.asarray(einsum("lbd,dv->lbv", x, unembedding(model.params, model.config)))


def two_hop(model: Model, kind: str = "CITY") -> dict[str, Any]:
    """Shares [L + 1] of questions whose true state leads the states, and whose true answer leads its
    attribute's values.
    """
    questions = [item for item in items.all_items() if item.family == "facts" and item.kind == kind]
    logits, table = by_layer(model, questions), vocabulary.ids()
    states = [table[state] for state in words.STATES]
    state_right = (
        logits[:, :, states].argmax(-1)
        == np.array([words.STATES.index(item.about) for item in questions])[None, :]
    )
    attribute = [item.prompt.split()[1] for item in questions]
    columns = np.array([[table[value] for value in words.ATTRIBUTES[name]] for name in attribute])
    chosen = np.take_along_axis(logits, np.broadcast_to(columns, (len(logits), *columns.shape)), axis=2)
    truth = np.array(
        [
            words.ATTRIBUTES[name].index(item.answer[0])
            for name, item in zip(attribute, questions, strict=True)
        ]
    )
    answer_right = chosen.argmax(-1) == truth[None, :]
    return {
        "questions": len(questions),
        "state": state_right.mean(axis=1).round(3).tolist(),
        "answer": answer_right.mean(axis=1).round(3).tolist(),
    }
