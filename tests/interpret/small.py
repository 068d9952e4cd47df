"""A tiny model, dictionaries for it and a text, small enough that everything about every feature is known."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.activations.text import Batch, Source, TextConfig
from jaxinterp.dictionaries import Dictionary, DictionaryConfig, initialise
from jaxinterp.interpret import DashboardConfig
from jaxinterp.models.model import Model
from tests.interpret import plainly
from tests.support import tiny_model

LENGTH, SEQUENCES, BLOCK, WORDS, FEATURES = 8, 22, 2, 40, 12
DEAD, ALWAYS = 0, 1
CONFIG = DashboardConfig(
    tokens=SEQUENCES * LENGTH + 3, text=TextConfig("given", length=LENGTH), top=4, quantiles=2, in_quantile=2, before=4,
    after=3, logits=5, neighbours=3, coactive=4, coactive_tokens=10**6, microbatch=BLOCK,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Words:
    """A tokenizer with a token that is half a character, one that is a quotation mark, one with HTML in it."""

    vocab_size: int = WORDS - 1
    odd: tuple[str, ...] = ('"', "<0xE2>", "\ud83d", "<b>&amp;</b>", "\n", "", "日本")

    def text(self, token: int) -> str:
        return self.odd[token] if token < len(self.odd) else f" w{token}"

    def digest(self) -> str:
        return "00"


def model(**changes: Any) -> Model:
    return dataclasses.replace(tiny_model("llama", **changes), tokenizer=Words())


def dictionary(kind: str = "clt", **changes: Any) -> Dictionary:
    settings = {"read_site": "mlp_in", "write_site": "mlp_out", "activation": "relu", **changes}
    config = DictionaryConfig(kind, 3, FEATURES, 16, **settings)
    params = initialise.random(config, jax.random.key(1), jnp.float32)
    bias = np.random.default_rng(3).normal(size=params["b_enc"].shape).astype(np.float32) - 0.5
    bias[:, DEAD], bias[:, ALWAYS] = -100, 20
    return Dictionary({**params, "b_enc": jnp.asarray(bias)}, config, "it")


def text(seed: int = 0) -> Batch:
    """Sequences with documents in them, of which some come again, and tokens that do not count."""
    random = np.random.default_rng(seed)
    tokens = random.integers(0, WORDS, (SEQUENCES + 4, LENGTH)).astype(np.int32)
    segments = np.sort(random.integers(0, 2, tokens.shape), axis=1).astype(np.int32)
    tokens[5], segments[5] = tokens[2], segments[2]
    tokens[11], segments[11] = tokens[2], segments[2]
    start = np.argmax(segments == segments[:, -1:], axis=1)[:, None] * (segments == segments[:, -1:])
    positions = (np.arange(LENGTH)[None, :] - np.where(segments == segments[:, :1], 0, start)).astype(
        np.int32
    )
    return Batch(tokens, segments, positions, random.random(tokens.shape) < 0.95)


def source(made: Batch | None = None, per_batch: int = 3) -> Source:
    """Batches that do not divide into blocks."""
    found = text() if made is None else made

    def batch(index: int) -> Batch:
        here = (np.arange(per_batch) + index * per_batch) % len(found.tokens)
        return Batch(*(np.asarray(array)[here] for array in found))

    return Source(batch, per_batch * LENGTH)


def plain_text() -> plainly.Text:
    """The text of a whole run."""
    found = text()
    return plainly.Text(
        *(np.asarray(array)[:SEQUENCES] for array in (found.tokens, found.segments, found.use))
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
