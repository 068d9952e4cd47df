"""Operand plots on a model made by hand, whose features of two numbers are known; shapes and the parallelogram."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.attribution.operand_shapes import classify, parallelogram
from jaxinterp.attribution.operands import (
    OperandPlots,
    input_weights,
    number_tokens,
    operand_plots,
    output_weights,
)
from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries import Dictionary, DictionaryConfig
from jaxinterp.dictionaries.from_model import attention_as_lorsa
from jaxinterp.models import Model, ModelConfig, forward
from tests.support import tiny_model

D, PLUS, EQUALS = 12, 40, 41
NUMBERS = np.arange(25)
TEMPLATE = "{a}+{b}="


class Digits:
    """Numbers as digits; tens, units and the two operands have tokens of their own. Small numbers are shorter."""

    vocab_size, bos, eos = 42, None, None

    def encode(self, text: str, bos: bool | None = None) -> list[int]:
        del bos
        prompt, equals, answer = text.partition("=")
        left, _, right = prompt.partition("+")
        ids = [*self._number(left, 0), PLUS, *self._number(right, 20)]
        return ids + ([EQUALS] if equals else []) + self._number(answer, 0)

    def _number(self, text: str, base: int) -> list[int]:
        digits = [int(c) for c in text]
        return [base + 10 * (len(digits) - 1 - i) + d for i, d in enumerate(digits)]

    def text(self, token: int) -> str:
        return str(token)


def by_hand() -> tuple[Model, Dictionary]:
    """Attention of layer 0 takes the mean of all tokens, MLP 0 makes bumps, MLP 1 reads them.

    Entries of the stream: 0 the first operand, 1 the second, 2 one at "=", 3 to 7 what MLP 0 writes, 8 what MLP 1 does.
    After attention 0, 1 and 9, which gets entry 2 of the mean, are divided by the number of tokens.
    """
    config = ModelConfig(
        42, D, 2, 1, 1, D, 16, 16, pre_norms=False, gated=False, activation="relu", tied=False,
    )  # fmt: skip
    tokens = np.zeros((42, D))
    for digit in range(10):
        tokens[[digit, digit + 10], 0] = digit, 10 * digit
        tokens[[digit + 20, digit + 30], 1] = digit, 10 * digit
    tokens[EQUALS, 2] = 1.0
    up, down = np.zeros((2, D, 16)), np.zeros((2, 16, D))
    place = iter(range(16))

    def relu(vector: dict[int, float], to: int, factor: float, layer: int, n: int) -> None:
        for entry, value in vector.items():
            up[layer, entry, n] = value
        down[layer, n, to] = factor

    def bump(vector: dict[int, float], at: float, to: int) -> None:
        for shift, factor in ((-1, 1.0), (0, -2.0), (1, 1.0)):
            relu({**vector, 9: -(at + shift)}, to, factor, 0, next(place))

    bump({0: 1.0, 1: 1.0}, 20, 3)
    bump({0: 1.0}, 7, 4)
    bump({1: 1.0}, 5, 5)
    relu({0: 1.0, 9: -11.0}, 6, 1.0, 0, next(place))
    relu({3: 1.0}, 8, 1.0, 1, 0)
    relu({4: 1.0, 5: 1.0, 9: -1.0}, 8, 1.0, 1, 1)
    relu({4: 1.0}, 8, 1.0, 1, 2)
    zero = np.zeros((2, D, 1, D))
    value = zero.copy()
    value[0, :, 0] = np.eye(D)
    out = np.zeros((2, 1, D, D))
    out[0, 0, [0, 1, 2], [0, 1, 9]] = 1.0
    unembed = np.random.default_rng(0).normal(size=(D, 42))
    params = {
        "embed": {"tokens": tokens}, "unembed": unembed, "final_norm": {"scale": np.ones(D)},
        "layers": {"q": zero, "k": zero, "v": value, "o": out, "up": up, "down": down},
    }  # fmt: skip
    model = Model(jax.tree.map(jnp.asarray, params), config, tokenizer=Digits(), name="by hand")
    dictionary = DictionaryConfig(
        "plt", 2, 16, D, activation="jumprelu", read_site="mlp_in", write_site="mlp_out"
    )
    arrays: dict[str, Any] = {
        "W_enc": jnp.asarray(up.transpose(0, 2, 1)), "b_enc": jnp.zeros((2, 16)), "W_dec": jnp.asarray(down),
        "b_dec": jnp.zeros((2, D)), "threshold": jnp.full((2, 16), 1e-6),
    }  # fmt: skip
    return model, Dictionary(arrays, dictionary, "neurons")


@pytest.mark.usefixtures("x64")
def test_grids_shapes_and_weights() -> None:
    model, dictionary = by_hand()
    kept = {0: [0, 9], 1: [0]}
    seen: list[tuple[int, int]] = []
    plots = operand_plots(
        model, dictionary, TEMPLATE, NUMBERS, NUMBERS, pre_activations=kept, batch=100,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    a, b = np.meshgrid(NUMBERS, NUMBERS, indexing="ij")
    tokens = 2 + (1 + (a > 9)) + (1 + (b > 9))
    known = {
        (0, 0): (np.maximum(a + b - 19, 0), "sum"),
        (0, 9): (np.maximum(a - 11, 0), "first operand"),
        (1, 0): (a + b == 20, "sum"),
        (1, 1): ((a == 7) & (b == 5), "isolated points"),
        (1, 2): (a == 7, "first operand"),
        (1, 3): (np.zeros_like(a), "inactive"),
    }
    for (layer, feature), (value, name) in known.items():
        np.testing.assert_allclose(plots.grid(layer, feature), value / tokens, atol=1e-12)
        assert plots.shape(layer, feature).name == name
    assert plots.shape(1, 0).width < 1.1 < 10 < plots.shape(0, 0).width
    assert seen[-1] == (625, 625)
    counts = {(layer, feature): n for layer, feature, n in plots.active(5)}
    assert counts[1, 0] == 21 and counts[1, 2] == 25 and (1, 1) not in counts

    # Operands of two tokens each: what MLP 0 reads is affine in them, what MLP 1 reads is not.
    two = slice(10, None)
    assert parallelogram(plots.pre_activations[0, 0][two, two]).largest < 1e-12
    assert parallelogram(plots.pre_activations[0, 9][two, two]).share < 1e-12
    assert parallelogram(plots.pre_activations[1, 0][two, two]).largest > 0.1
    with pytest.raises(InputError, match="no feature 16 of layer 1"):
        plots.grid(1, 16)

    numbers = number_tokens(model, TEMPLATE, [3, 17, 20])
    assert numbers.tolist() == [3, 11, 12]
    unembed = np.asarray(model.params["unembed"])
    centred = unembed - unembed.mean(axis=1, keepdims=True)
    out = output_weights(model, dictionary, [(1, 1), (0, 9), (1, 2)], numbers)
    np.testing.assert_allclose(out, centred[[8, 6, 8]][:, numbers])
    into = input_weights(model, dictionary, [(0, 9), (1, 0)], np.array([4, 14, 24]))
    np.testing.assert_allclose(into, [[4, 40, 0], [0, 0, 0]])


def test_other_positions_and_kinds() -> None:
    """Every prompt by itself gives the same: padding is not seen, positions count from the end, Lorsas too."""
    model = dataclasses.replace(tiny_model("llama", vocab_size=42), tokenizer=Digits())
    lorsa = attention_as_lorsa(model)
    values = (3, 14)
    plots = operand_plots(model, lorsa, TEMPLATE, values, values, position=-2, batch=3)
    run = jax.jit(partial(forward, config=model.config, sites=("attn_in",)))
    for i in (0, 1):
        ids = jnp.asarray([Digits().encode(f"{values[i]}+{values[i]}=")])
        logits, found = run(model.params, tokens=ids)
        want = lorsa.encode(found.attn_in)[:, 0, -2]
        got = np.stack([part[[3 * i]].toarray()[0] for part in plots.activations])
        np.testing.assert_allclose(got, want, atol=1e-5)
        assert plots.predicted[i, i] == int(jnp.argmax(logits[0, -2]))


def test_shapes() -> None:
    n = np.arange(40)
    a, b = np.meshgrid(n, n, indexing="ij")
    noise = np.random.default_rng(0).random((40, 40))
    for value, name in (
        (b // 10 == 3, "second operand"),
        ((a + b) % 10 == 5, "sum mod 10"),
        ((a % 10 == 6) & (b % 10 == 9), "both mod 10"),
        (a % 2 == 1, "first operand mod 2"),
        (np.abs(a - b) < 3, "difference"),
        (5.0 + noise, "mostly active"),
        (np.ones_like(a), "mostly active"),
        ((np.abs(a - 20) < 4) & (np.abs(b - 30) < 4), "range of both"),
        (noise > 0.99, "isolated points"),
        ((noise > 0.5) * noise, "mixed"),
    ):
        assert classify(np.asarray(value, float), n, n).name == name, name
    smear = classify(np.exp(-(((a + b - 40) / 8.0) ** 2)), n, n)
    sharp = classify(1.0 * (a + b == 40), n, n)
    assert smear.name == sharp.name == "sum" and smear.width > 10 * sharp.width

    grid = noise[:5, :6]
    brute = max(
        abs(grid[i, j] + grid[k, m] - grid[i, m] - grid[k, j])
        for i in range(5) for k in range(5) for j in range(6) for m in range(6)
    )  # fmt: skip
    assert parallelogram(grid).largest == pytest.approx(brute)
    assert parallelogram(noise[:, :1] + noise[:1, :]).share < 1e-12


def test_faults() -> None:
    model, dictionary = by_hand()

    def plots(
        template: str = TEMPLATE, first: Any = (1, 2), to: Model = model, **changes: Any
    ) -> OperandPlots:
        return operand_plots(to, dictionary, template, first, (1, 2), **changes)

    faults: list[tuple[str, Any]] = [
        ("has no place for both", lambda: plots("{a}+1=")),
        ("at least two of each", lambda: plots(first=(1,))),
        ("counted from the end", lambda: plots(position=0)),
        ("outside the shortest prompt, of 4", lambda: plots(position=-5)),
        ("has no tokenizer", lambda: plots(to=dataclasses.replace(model, tokenizer=None))),
        ("model's context is 16", lambda: plots(first=(1, 10**15))),
        ("no such feature in layer 2", lambda: plots(pre_activations={2: [0]})),
        ("a grid of", lambda: classify(np.zeros((2, 3)), (1, 2), (1, 2))),
    ]
    for match, call in faults:
        with pytest.raises(InputError, match=match):
            call()
