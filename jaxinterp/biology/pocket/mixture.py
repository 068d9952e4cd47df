"""All families together: documents drawn by share, packed into rows; a batch is a pure function of (seed,
step).

As a token source it is named `jaxinterp.biology.pocket.mixture:batch` in a configuration.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from jaxinterp.biology.pocket import vocabulary
from jaxinterp.biology.pocket.documents import Document
from jaxinterp.biology.pocket.families import (
    addition,
    couplets,
    facts,
    induction,
    opposites,
    people,
    sentences,
)

# Share of documents of each family.
SHARES = {
    facts: 0.42,
    addition: 0.20,
    induction: 0.12,
    couplets: 0.07,
    opposites: 0.08,
    people: 0.08,
    sentences: 0.03,
}
# Training begins with nothing but lists of names. Alone, looking names up is learnt within 300 steps; among the other
# families it was not learnt in 7,000 at any share tried: choosing among the names not yet repeated is nearly as good.
START_STEPS = 500
OTHER_WEIGHT = 0.3  # of a token that is not an answer; answers count 1


@cache
def _bounds() -> np.ndarray:
    shares = np.array(list(SHARES.values()))
    return np.cumsum(shares) / shares.sum()


def document(seed: int, row: int, index: int, start: bool = False) -> Document:
    """The index-th document of a row of the stream of this seed; `start`: as in the first steps of training."""
    rng = np.random.default_rng([seed, row, index])
    drawn = rng.random()
    family = induction if start else tuple(SHARES)[int(np.searchsorted(_bounds(), drawn, side="right"))]
    return family.draw(rng)


def training_batch(seed: int, step: int, batch: int, length: int) -> dict[str, np.ndarray]:
    """`batch` as the model's training takes it: the first `START_STEPS` steps have lists of names only."""
    return _pack(seed, step, batch, length, step < START_STEPS)


def batch(seed: int, step: int, batch: int, length: int) -> dict[str, np.ndarray]:
    """One batch of packed documents, a pure function of its arguments.

    Returns arrays [batch, length]: `tokens` (each document begins with the beginning-of-document token),
    `segments` (which document of its row a token belongs to, from 0), `positions` (within the document),
    `targets` (the next token; at a document's end the end-of-document token, which is never an input) and
    `weights` (float32: 1 where the target is an answer, 0.3 elsewhere). The last document of a row is cut off
    at the row's end.
    """
    return _pack(seed, step, batch, length, False)


def _pack(seed: int, step: int, batch: int, length: int, first: bool) -> dict[str, np.ndarray]:
    table = vocabulary.ids()
    bos, eos = table[vocabulary.BOS], table[vocabulary.EOS]
    shape = (batch, length)
    tokens, targets = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    segments, positions = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    weights = np.full(shape, OTHER_WEIGHT, np.float32)
    for b in range(batch):
        start, index = 0, 0
        while start < length:
            words, answers = document(seed, step * batch + b, index, first)
            ids = [table[word] for word in words]
            n = min(len(ids) + 1, length - start)
            here = slice(start, start + n)
            tokens[b, here] = [bos, *ids][:n]
            targets[b, here] = [*ids, eos][:n]
            segments[b, here] = index
            positions[b, here] = np.arange(n)
            weights[b, here][np.array([*answers, False])[:n]] = 1.0
            start, index = start + n, index + 1
    return {
        "tokens": tokens,
        "segments": segments,
        "positions": positions,
        "targets": targets,
        "weights": weights,
    }
