"""Operand plots: every feature's activation on prompts that differ in two numbers, at one position.

*Circuit Tracing* (2025), "Addition case study": 10,000 prompts ``calc: a+b=``, read at the last token. Prompts may have
different lengths, as operands are of several tokens: positions are counted from the end, and prompts are padded on the
right, which a causal model does not see.

Letters: A, B values of the operands, L layers, N features, T positions, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from jaxinterp.attribution.global_weights import GlobalWeights, virtual_weights
from jaxinterp.attribution.layer_features import LayerEncoder
from jaxinterp.attribution.operand_shapes import Numbers, Shape, classify
from jaxinterp.attribution.weight_sides import check_ids, check_layer
from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries.base import kind_of
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.dictionaries.lazy import AnyDictionary
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import forward
from jaxinterp.models.model import Model, require_ours


@dataclass(frozen=True)
class OperandPlots:
    """What features do on all pairs of operands.

    Attributes:
      template, first, second, position: what was asked.
      predicted: [A, B] the most probable next token at that position.
      activations: of each layer of the dictionary [A B, N], sparse by columns.
      pre_activations: layer and feature → [A, B], of the features that were asked for.
    """

    template: str
    first: tuple[int, ...]
    second: tuple[int, ...]
    position: int
    predicted: np.ndarray
    activations: tuple[Any, ...]
    pre_activations: dict[tuple[int, int], np.ndarray]

    def grid(self, layer: int, feature: int) -> np.ndarray:
        """The activations ``[A, B]`` of one feature."""
        if not 0 <= layer < len(self.activations) or not 0 <= feature < self.activations[layer].shape[1]:
            raise InputError(
                f"no feature {feature} of layer {layer}: there are layers 0 to {len(self.activations) - 1} of "
                f"{self.activations[0].shape[1]} features"
            )
        return self.activations[layer][:, [feature]].toarray().reshape(len(self.first), len(self.second))

    def active(self, prompts: int = 1) -> list[tuple[int, int, int]]:
        """(layer, feature, prompts on which it is active) of features active on at least so many, most active first."""
        found = []
        for layer, values in enumerate(self.activations):
            counts = np.diff(values.indptr)
            found += [(layer, int(f), int(counts[f])) for f in np.flatnonzero(counts >= max(prompts, 1))]
        return sorted(found, key=lambda one: (-one[2], one[0], one[1]))

    def shape(self, layer: int, feature: int) -> Shape:
        """How the grid of a feature looks; see `operand_shapes.classify`."""
        return classify(self.grid(layer, feature), self.first, self.second)


def operand_plots(
    model: Model, dictionary: AnyDictionary, template: str, first: Numbers, second: Numbers, *,
    position: int = -1, write: Callable[[int], str] = str,
    pre_activations: Mapping[int, Sequence[int]] | None = None, batch: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> OperandPlots:  # fmt: skip
    """Run a model on every pair of operands.

    Args:
      model: with a tokenizer.
      dictionary: in memory or lazy, of any kind whose features belong to layers.
      template: text with ``{a}`` and ``{b}`` in it, as in "calc: {a}+{b}=".
      first, second: values of a and b.
      position: which token, from the end: -1 is the last.
      write: how a number is written, for tokenizers that want it otherwise (`digits_apart`).
      pre_activations: layer → features whose pre-activations are kept, for `operand_shapes.parallelogram`.
      batch: prompts at a time.
      progress: called with (prompts done, prompts in all).

    Raises:
      InputError: no tokenizer, a template without both operands, fewer than two values, a position outside the shortest
        prompt, or a prompt longer than the context.
    """
    require_ours(model)
    tokens, last = _prompts(model, template, first, second, position, write)
    config = dictionary.config
    wanted = _wanted(config, pre_activations or {})
    count, sequences = len(tokens), kind_of(config).sequences
    predicted = np.zeros(count, np.int64)
    read: list[tuple[np.ndarray, int, np.ndarray]] = []
    for start in range(0, count, batch):
        # The last batch is filled up with its own last prompt, so that nothing compiles again.
        rows = np.minimum(np.arange(start, start + batch), count - 1)
        size, at = min(batch, count - start), last[rows].astype(np.int32)
        best, x = _run(model.params, model.config, tokens[rows], at, config.read_site, not sequences)
        predicted[start : start + size] = np.asarray(best)[:size]
        read.append((np.asarray(x), size, at if sequences else np.zeros_like(at)))
        if progress is not None:
            progress(start + size, count)
    parts, before = [], {}
    for layer in range(config.n_layers):
        # One encoder at a time, of a dictionary that may be larger than memory.
        values, h = _encode(LayerEncoder(dictionary, layer), read, wanted.get(layer, np.zeros(0, np.int64)))
        parts.append(values)
        before[layer] = h
    grid = len(first), len(second)
    kept = {
        (layer, int(f)): before[layer][:, i].reshape(grid)
        for layer, ids in wanted.items()
        for i, f in enumerate(ids)
    }
    return OperandPlots(
        template, tuple(map(int, first)), tuple(map(int, second)), position, predicted.reshape(grid),
        tuple(parts), kept,
    )  # fmt: skip


def _wanted(config: DictionaryConfig, given: Mapping[int, Sequence[int]]) -> dict[int, np.ndarray]:
    wanted = {int(layer): np.asarray(ids, np.int64) for layer, ids in given.items()}
    for layer, ids in wanted.items():
        if not 0 <= layer < config.n_layers or (
            ids.size and not 0 <= ids.min() <= ids.max() < config.n_features
        ):
            raise InputError(
                f"no such feature in layer {layer}: there are {config.n_layers} layers of {config.n_features}"
            )
    return wanted


def _encode(
    encoder: LayerEncoder, read: list[tuple[np.ndarray, int, np.ndarray]], wanted: np.ndarray
) -> tuple[Any, np.ndarray]:
    """Activations [P, N] of all prompts, sparse by columns, and pre-activations [P, n] of some features."""
    values, before = [], []
    for x, size, at in read:
        shape = x.shape[1:3]
        where = np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape)
        h, a = (_at(v, at)[:size] for v in encoder(x[encoder.model_layer], where, np.zeros(shape, np.int32)))
        if not bool(jnp.isfinite(h).all()):
            raise InputError(f"pre-activations of layer {encoder.layer} are not finite")
        values.append(sparse.csr_array(np.asarray(a)))
        before.append(np.asarray(h)[:, wanted])
    return sparse.vstack(values).tocsc(), np.concatenate(before)


@partial(jax.jit, static_argnames=("config", "site", "one"))
def _run(
    params: Tree, config: ModelConfig, tokens: Array, at: Array, site: str, one: bool
) -> tuple[Array, Array]:
    """The best next token at positions ``at [B]``, and a site [L, B, T, D], T = 1 where only these positions count."""
    logits, found = forward(params, config, tokens, sites=(site,))
    x = getattr(found, site)
    if one:
        x = jnp.take_along_axis(x, at[None, :, None, None], axis=2)
    return jnp.argmax(_at(logits, at), axis=-1), x


@jax.jit
def _at(values: Array, at: Array) -> Array:
    """``values [B, T, X]`` at positions [B]."""
    return jnp.take_along_axis(values, at[:, None, None], axis=1)[:, 0]


def _prompts(
    model: Model, template: str, first: Numbers, second: Numbers, position: int, write: Callable[[int], str]
) -> tuple[np.ndarray, np.ndarray]:
    """Token ids [A B, T], padded on the right, and the position of each prompt that is read."""
    if model.tokenizer is None:
        raise InputError("the model has no tokenizer to write numbers with")
    if "{a}" not in template or "{b}" not in template:
        raise InputError(
            f"the template {template!r} has no place for both operands: write {{a}} and {{b}} in it"
        )
    if len(first) < 2 or len(second) < 2:
        raise InputError(
            f"{len(first)} and {len(second)} values of the operands, at least two of each are needed"
        )
    if position >= 0:
        raise InputError(f"position {position}: positions are counted from the end, -1 is the last token")
    rows = [
        model.tokenizer.encode(_fill(template, write(int(a)), write(int(b)))) for a in first for b in second
    ]
    lengths = np.array([len(row) for row in rows])
    if lengths.min() + position < 0:
        raise InputError(f"position {position} is outside the shortest prompt, of {lengths.min()} tokens")
    if lengths.max() > model.config.context:
        raise InputError(f"a prompt of {lengths.max()} tokens, the model's context is {model.config.context}")
    tokens = np.zeros((len(rows), int(lengths.max())), np.int32)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    return tokens, lengths + position


def _fill(template: str, a: str, b: str) -> str:
    return template.replace("{a}", a).replace("{b}", b)


def digits_apart(number: int) -> str:
    """The digits with blanks between them, for tokenizers that know single digits alone."""
    return " ".join(str(number))


def number_tokens(
    model: Model, template: str, numbers: Numbers, *, write: Callable[[int], str] = str, between: str = ""
) -> np.ndarray:
    """The first token of each number as it stands after the prompt: [n]. Numbers of several tokens may share theirs.

    Args:
      write: see `operand_plots`. between: what stands between prompt and number.
    """
    prompt = _fill(template, write(1), write(1))
    before = model.tokenizer.encode(prompt)
    found = []
    for number in numbers:
        after = model.tokenizer.encode(f"{prompt}{between}{write(int(number))}")
        same = next((i for i, (x, y) in enumerate(zip(before, after, strict=False)) if x != y), len(before))
        if same >= len(after):
            raise InputError(f"the number {number} adds no token to {prompt!r}")
        found.append(after[same])
    return np.array(found, np.int64)


def output_weights(
    model: Model, dictionary: AnyDictionary, features: Sequence[tuple[int, int]], tokens: np.ndarray
) -> np.ndarray:
    """The direct effects ``[n, t]`` of one unit of features (layer, number) on the logits of t tokens, less the mean
    logit; denominators of norms count as one."""
    return _weights(virtual_weights(model, dictionary, "logits"), features, tokens, out=True)


def input_weights(
    model: Model, dictionary: AnyDictionary, features: Sequence[tuple[int, int]], tokens: np.ndarray
) -> np.ndarray:
    """What t tokens add to features (layer, number) at their own position, along the residual stream: ``[n, t]``."""
    return _weights(virtual_weights(model, "tokens", dictionary), features, tokens, out=False)


def _weights(
    weights: GlobalWeights, features: Sequence[tuple[int, int]], tokens: np.ndarray, *, out: bool
) -> np.ndarray:
    pairs = np.array(features, np.int64).reshape(-1, 2)
    found = np.zeros((len(pairs), len(tokens)))
    side = weights.source if out else weights.target
    for layer in np.unique(pairs[:, 0]).tolist():
        check_layer(side, layer)
        mine = pairs[:, 0] == layer
        ids = check_ids(side, pairs[mine, 1])
        block = weights.block(layer, 0, ids, tokens) if out else weights.block(0, layer, tokens, ids).T
        found[mine] = np.asarray(block)
    return found
