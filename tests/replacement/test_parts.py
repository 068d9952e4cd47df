"""Replacement models of several parts as linear operators: I1, transposes, the model's own derivative, bad input."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries import lorsa
from jaxinterp.dictionaries.base import DictionaryConfig
from jaxinterp.dictionaries.encoder import encoder_rows
from jaxinterp.replacement import model_sources, own_writes, places
from jaxinterp.replacement.layer import layer_transpose, shorten
from jaxinterp.replacement.linearise import linearise
from jaxinterp.replacement.operator import layer_slices
from tests.attribution.cases import of_config
from tests.replacement.combinations import CLT, COMBINATIONS, LORSA, PLT, Made, dictionary, make, sae
from tests.replacement.routes import FROZEN, TOLERANCE, close, derivative, dot, random_like, without_units
from tests.support import tiny_model

pytestmark = pytest.mark.usefixtures("x64")
FAST = ("mlp-sae-some", "three")


def check(made: Made) -> None:
    operator, run = made.operator, made.run

    @jax.jit
    def everything(operator: Any, run: Any, change: Any, bars: Any) -> Any:
        again = operator.apply(model_sources(operator, run, own_writes(operator, run)))
        return again, operator.apply(change), operator.transpose(bars)

    change = without_units(random_like(operator.in_structure, 1))
    bars = random_like(operator.out_structure, 3)
    again, forth, back = everything(operator, run, change, bars)
    # I1: with errors the operator repeats the model.
    close(again.final, run.final_norm[0])
    assert [read is None for read in again.read] == [place.dictionary is None for place in made.places]
    close(again.read, tuple(None if own is None else own[:, 0] for own in run.read))
    # <apply x, y> = <x, transpose y>.
    assert dot(forth, bars) == pytest.approx(dot(change, back), rel=TOLERANCE)
    # The model itself, everything frozen held fixed, changes as the operator says.
    close(forth, jax.jit(lambda change: derivative(made, change, FROZEN))(change))


@pytest.mark.parametrize(
    "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in COMBINATIONS]
)
def test_combination(name: str) -> None:
    check(make(name))


@pytest.mark.parametrize("how", ["frozen", pytest.param("live", marks=pytest.mark.slow)])
def test_layers_one_by_one_and_no_later_positions(how: str) -> None:
    """A walk down the transposed layers over the first positions is the transpose, whatever later ones hold."""
    made = make("complete-clt")
    sources = model_sources(made.operator, made.run, own_writes(made.operator, made.run))
    ((_, operator),) = linearise(made.operator, sources, how)
    layers, t = layer_slices(operator), 4

    def cut(bar: Any) -> Any:
        return bar.at[..., t:, :].set(0)

    bars = jax.tree.map(cut, random_like(operator.out_structure, 3))

    @jax.jit
    def walk(operator: Any, bars: Any) -> Any:
        short, _ = shorten(operator, None, t)
        x = jax.ShapeDtypeStruct((t, operator.config.d_model), operator.dtype)
        factor = jax.ShapeDtypeStruct((t,), operator.dtype)
        x_bar, _ = jax.linear_transpose(short.end, x, factor)(bars.final[:t])
        found = []
        for number in reversed(range(operator.config.n_layers)):
            _, one = shorten(operator, jax.tree.map(lambda leaf, n=number: leaf[n], layers), t)
            x_bar, bar = layer_transpose(short, one, x_bar, tuple(read[number, :t] for read in bars.read))
            found.append(bar)
        return x_bar, jax.tree.map(lambda *leaves: jnp.stack(leaves), *found[::-1])

    whole = jax.jit(lambda operator, bars: operator.transpose(bars))(operator, bars)
    x_bar, found = walk(operator, bars)
    close(x_bar, whole.embed[:t])
    close(found, jax.tree.map(lambda leaf: leaf[:, :t], whole.layers))
    assert not any(leaf[:, t:].any() for leaf in jax.tree.leaves(whole.layers))


def test_targets_of_a_lorsa_look_elsewhere() -> None:
    """A pre-activation is what its row finds wherever its head looks on the prompt, and the bias."""
    made = make("three")
    (number,) = (i for i, place in enumerate(made.places) if place.junction == "attention")
    place, own, read = made.places[number], made.at(made.places[number]), made.run.read[number]
    assert own is not None and own.config.attention is not None
    assert [p is None for p in made.run.patterns] == [i != number for i in range(len(made.places))]
    h = lorsa.pre_activations(own.params, own.config, read[jnp.asarray(place.layers)])
    at, features, positions = 1, jnp.asarray([0, 3, 6, 7]), jnp.asarray([5, 2, 0, 4])
    vectors = encoder_rows(own.params, own.config, at, features)
    looks = made.run.patterns[number][at, 0, features // 4, positions]  # two heads of four features
    found = jnp.einsum("cs,cd,sd->c", looks, vectors, read[place.layers[at], 0])
    close(found, h[at, 0, positions, features] - own.params["b_enc"][at, features])


def test_places_are_in_the_order_of_their_sites() -> None:
    model = tiny_model("llama")
    given = [dictionary(model, spec, i) for i, spec in enumerate([sae("resid_post"), PLT, LORSA])]
    found = places(given, model.config)
    assert [(p.junction, p.dictionary) for p in found] == [("attention", 2), ("mlp", 1), ("residual", 0)]
    (alone,) = places(given[2:], model.config, "tangent")
    assert alone.layers == (0, 1, 2) and not alone.constant
    assert [p.dictionary for p in places(given[2:], model.config)] == [0, None]


FAULTS: dict[str, tuple[list[dict[str, Any]], str, str]] = {
    "two": ([PLT, CLT], "constant", "part-1 and part-0 both replace the mlp junction"),
    "nowhere": ([sae("attn_in")], "constant", "part-0 stands at no junction: it writes attn_in"),
    "later": ([{**PLT, "read_site": "resid_post"}], "constant", "writes mlp_out and reads resid_post"),
    "residual": ([{**PLT, "write_site": "resid_post"}], "tangent", "expected to read one of resid_post"),
    "order": ([{**PLT, "layers": (2, 0)}], "constant", "of layers 2, 0, expected ascending"),
    "beyond": ([{**PLT, "layers": (1, 3)}], "constant", "ascending numbers below 3"),
    "acausal": ([{**sae("resid_post"), "kind": "crosscoder", "centre": False}], "constant", "every layer"),
    "maps": ([{**PLT, "kind": "molt", "ranks": ((2, 8),)}], "constant", "linear maps"),
    "constant": ([sae("mlp_out")], "constant", 'take mlp="tangent"'),
    "rows": ([sae("resid_post", normalise_rows="length")], "constant", "row by row"),
    "choice": ([], "linear", "mlp is 'linear', expected one of constant, tangent"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_bad_input(name: str) -> None:
    specs, mlp, message = FAULTS[name]
    model = tiny_model("llama")
    with pytest.raises(InputError, match=message):
        places([dictionary(model, spec, i) for i, spec in enumerate(specs)], model.config, mlp)


def test_dictionaries_of_another_model() -> None:
    model = tiny_model("llama")
    for changes, message in (
        ({"d_model": 12}, "d_model"),
        ({"n_layers": 2}, "n_layers"),
        ({"d_write": 12}, "d_write"),
    ):
        values = {"n_layers": 3, "n_features": 8, "d_model": model.config.d_model, **PLT, **changes}
        other = of_config(DictionaryConfig(**values), "other")
        with pytest.raises(InputError, match=rf"other does not fit the model.*\({message}\)"):
            places([other], model.config)
