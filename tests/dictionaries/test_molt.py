"""Mixtures of linear transforms: loops over features in NumPy, their Jacobian, starts, restarts, files, gradients."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries import initialise, molt, normalise, sparse
from jaxinterp.dictionaries.base import Dictionary, DictionaryConfig, check, kind_of
from jaxinterp.dictionaries.load import load_dictionary, save_dictionary
from jaxinterp.parallel.weights import is_weight
from jaxinterp.training import resample
from jaxinterp.training.objective import ObjectiveConfig, objective
from jaxinterp.training.sparsity.base import SparsityConfig, make_gate
from tests.support import normal

L, N, D, OUT = 2, 12, 5, 4
RANKS = ((3, 2), (1, 6), (2, 4))
GATES: dict[str, dict[str, Any]] = {
    "relu": {"activation": "relu"},
    "jumprelu": {"activation": "jumprelu", "skip": True},
    "topk": {"activation": "topk", "k": 3, "ranked": True},
    "gated": {"activation": "gated"},
}


def make(gate: str = "relu", **changes: Any) -> Dictionary:
    fields = {"n_layers": L, "n_features": N, "d_model": D, "d_write": OUT, "ranks": RANKS}
    config = DictionaryConfig("molt", **{**fields, **GATES[gate], **changes})
    rng = np.random.default_rng(1)
    declared = kind_of(config).declare(config)
    draw = lambda weight: jnp.asarray(0.5 * rng.normal(size=weight.shape))  # noqa: E731
    return check(Dictionary(jax.tree.map(draw, declared, is_leaf=is_weight), config))


def inputs(*batch: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(5).normal(size=(L, *batch, D)))


def maps(d: Dictionary) -> np.ndarray:
    """``U_i V_i``, [L, N, D', D], feature by feature."""
    us, vs = (d.params[name] for name in (molt.OUT, molt.IN))
    each = [np.asarray(u) @ np.asarray(v) for u, v in zip(us, vs, strict=True)]
    return np.concatenate(each, axis=1)


@pytest.mark.parametrize("gate", GATES)
def test_a_molt_is_a_sum_of_gated_maps(x64: None, gate: str) -> None:
    d, x = make(gate), inputs(7)
    a, every, p = np.asarray(jax.jit(d.encode)(x)), maps(d), jax.tree.map(np.asarray, d.params)
    assert 0 < (a > 0).mean() < 1
    expected = np.zeros((L, 7, OUT))
    for layer in range(L):
        for row in range(7):
            y = p["b_dec"][layer].copy()
            for i in range(N):
                y += a[layer, row, i] * every[layer, i] @ np.asarray(x)[layer, row]
            if d.config.skip:
                y += p["W_skip"][layer] @ np.asarray(x)[layer, row]
            expected[layer, row] = y
    np.testing.assert_allclose(jax.jit(d.decode)(a, x), expected, atol=1e-12)
    norms = np.sqrt((every**2).sum((2, 3)))
    kind = kind_of(d.config)

    @jax.jit
    def others(params: Any) -> Any:
        parts = [kind.decode_into(params, d.config, layer, a[layer], x[layer]) for layer in range(L)]
        rest = kind.decode(params, d.config, jnp.zeros_like(a), x)
        return kind.decoder_norms(params, d.config), molt.writes_of(params, d.config, x), sum(parts) + rest

    sizes, each, whole = others(d.params)
    np.testing.assert_allclose(sizes, norms, rtol=1e-12)
    np.testing.assert_allclose(each, np.einsum("lnij,lrj->lrni", every, x), atol=1e-12)
    np.testing.assert_allclose(whole, expected, atol=1e-12)
    with pytest.raises(ValueError, match="decode needs x"):
        d.decode(a)
    with pytest.raises(ValueError, match="writes no one direction"):
        kind.decoder_rows(d.params, d.config, 0, 0, jnp.arange(2))


def test_which_features_win_depends_on_the_size_of_their_maps(x64: None) -> None:
    d, x = make("topk"), inputs(9)
    h = np.asarray(kind_of(d.config).pre_activations(d.params, d.config, x))
    size = np.sqrt((maps(d) ** 2).sum((2, 3)))[:, None]
    cut = np.sort(h * size, axis=-1)[..., -3:-2]
    np.testing.assert_array_equal(np.asarray(d.encode(x)) > 0, (h * size >= cut) & (h > 0))


@pytest.mark.parametrize("gate", GATES)
def test_its_jacobian_is_exact(x64: None, gate: str) -> None:
    d, x = make(gate), inputs(3)

    def one(layer: int, row: jax.Array) -> jax.Array:
        return d.reconstruct(jnp.zeros((L, D)).at[layer].set(row))[layer]

    plain = dataclasses.replace(d.config, skip=False)
    bare = {**d.params, "b_dec": jnp.zeros_like(d.params["b_dec"])}

    @jax.jit
    def everything(params: Any) -> Any:
        expected = [jax.vmap(jax.jacrev(partial(one, layer)))(x[layer]) for layer in range(L)]
        a = molt.encode(params, d.config, x)
        held = molt.transform(params, d.config, a)
        moved = molt.decode(bare, plain, a, x)
        return jnp.stack(expected), molt.jacobian(params, d.config, x), held, moved

    expected, found, held, moved = everything(d.params)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    # With activations held it is the sum of the active maps (and the skip, which is no feature's).
    np.testing.assert_allclose(np.einsum("lred,lrd->lre", held, x), moved, atol=1e-12)


@pytest.mark.parametrize("gate", ["relu", "gated"])
def test_scales_and_lengths_fold(x64: None, gate: str) -> None:
    d, x = make(gate), inputs(6)
    read, write = jnp.asarray([0.5, 2.0]), jnp.asarray([4.0, 0.3])
    folded = check(normalise.fold(d, normalise.Scales(read, write)))
    np.testing.assert_allclose(folded.encode(x), d.encode(x * read[:, None, None]), atol=1e-11)
    expected = d.reconstruct(x * read[:, None, None]) / write[:, None, None]
    np.testing.assert_allclose(folded.reconstruct(x), expected, atol=1e-11)
    unit = check(normalise.unit_decoders(d))
    np.testing.assert_allclose(unit.reconstruct(x), d.reconstruct(x), atol=1e-12)
    np.testing.assert_allclose(molt.decoder_norms(unit.params, unit.config), 1.0, rtol=1e-12)


def test_losses_and_gradients_agree_with_finite_differences(x64: None) -> None:
    d, x = make(), inputs(6)
    y = normal(9, (L, 6, OUT))
    gate = make_gate(SparsityConfig("l1", coefficient=0.3, ramp=0.0, pre_activation=0.01))
    terms = ObjectiveConfig("sum", auxiliary=0.1, auxiliary_k=3, nesting=(4,))
    control = {"coefficient": jnp.full(L, 0.3)}
    dead = jnp.arange(N)[None, :] % 3 == 0

    def loss(params: Any) -> Any:
        at = {"dead": jnp.broadcast_to(dead, (L, N)), "progress": jnp.float64(1.0)}
        return objective(terms, gate, d.config, params, control, x, y, **at)

    (total, found), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(d.params)
    # The penalty by hand: activation times the Frobenius norm.
    size = np.sqrt((maps(d) ** 2).sum((2, 3)))
    by_hand = 0.3 * (np.asarray(found.a) * size[:, None]).sum(-1).mean(1)
    np.testing.assert_allclose(found.terms["sparsity"], by_hand, rtol=1e-12)
    assert float(total) == pytest.approx(sum(float(term.mean()) for term in found.terms.values()))
    # What aux-k is to predict does not move with the parameters: its own gradient is left out of the difference.
    leaves, tree = jax.tree.flatten(d.params)
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(d.params)[0]]

    def plain(params: Any) -> Any:
        return sum(term.mean() for name, term in loss(params)[1].terms.items() if name != "auxiliary")

    step, value = 1e-6, jax.jit(jax.value_and_grad(plain))
    found_own = jax.tree.leaves(value(d.params)[1])
    for number, (name, leaf) in enumerate(zip(names, leaves, strict=True)):
        direction = normal(number, leaf.shape)
        moved = [
            value(jax.tree.unflatten(tree, [*leaves[:number], leaf + s * direction, *leaves[number + 1 :]]))[
                0
            ]
            for s in (step, -step)
        ]
        exact = jnp.vdot(found_own[number], direction)
        np.testing.assert_allclose(
            exact, (moved[0] - moved[1]) / (2 * step), rtol=2e-6, atol=1e-7, err_msg=name
        )
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


def test_a_start_from_data_points_writes_them(x64: None) -> None:
    config = make("jumprelu", skip=False).config
    x, y = inputs(200), normal(8, (L, 200, OUT))

    def start() -> Any:
        params = initialise.from_data(config, jax.random.key(0), x, y, decoder=0.7, noise=0.0)
        return initialise.set_firing_rate(params, config, x, 0.1)

    params = jax.jit(start)()
    d = check(Dictionary(params, config))
    np.testing.assert_allclose((d.encode(x) != 0).mean(axis=1), 0.1, atol=0.006)
    np.testing.assert_allclose(molt.decoder_norms(params, config), 0.7, rtol=1e-12)
    # Every feature is a map of rank one that sends a row of x along that row's y.
    written = np.asarray(molt.writes_of(params, config, x))
    centred = np.asarray(y - y.mean(axis=1, keepdims=True))
    cosine = (written * centred[:, :, None]).sum(-1) / (
        np.linalg.norm(written, axis=-1) * np.linalg.norm(centred, axis=-1)[..., None]
    )
    np.testing.assert_allclose(cosine.max(axis=1), 1.0, atol=1e-9)
    assert all(np.linalg.matrix_rank(m, tol=1e-9) == 1 for m in maps(d).reshape(-1, OUT, D))


def test_a_restart_touches_only_the_dead(x64: None) -> None:
    d, x = make(), inputs(50)
    residual = normal(3, (L, 50, OUT))
    which = jnp.zeros((L, N), bool).at[0, 1].set(True).at[1, 7].set(True)
    restart = partial(
        resample.restart, resample.ResampleConfig(share=0.25), d.config, key=jax.random.key(0), x=x,
        residual=residual, thresholds=lambda p, norms: jnp.zeros_like(norms),
    )  # fmt: skip
    new = jax.jit(restart)(d.params, which)
    old_maps, new_maps = maps(d), maps(dataclasses.replace(d, params=new))
    changed = (old_maps != new_maps).any((2, 3))
    np.testing.assert_array_equal(changed, which)
    for layer, feature in ((0, 1), (1, 7)):
        assert np.linalg.matrix_rank(new_maps[layer, feature]) == 1
        # On some row of the batch it makes up for a quarter of the residual.
        a = molt.encode(new, d.config, x)[layer, :, feature]
        writes = molt.writes_of(new, d.config, x)[layer, :, feature] * a[:, None]
        assert (
            min(float(jnp.abs(w - 0.25 * r).max()) for w, r in zip(writes, residual[layer], strict=True))
            < 1e-4
        )


def test_it_comes_back_from_disk(tmp_path: Path, x64: None) -> None:
    d, x = make("topk"), inputs(4)
    save_dictionary(d, tmp_path / "d")
    found = load_dictionary(tmp_path / "d", dtype="float64")
    assert found.config == d.config and found.digest() == d.digest()
    np.testing.assert_array_equal(found.reconstruct(x), d.reconstruct(x))


def test_old_dictionaries_keep_their_digest() -> None:
    config = DictionaryConfig("plt", 1, 2, 3, activation="relu")
    params = {name: np.zeros(shape, np.float32) for name, shape in (("W_enc", (1, 2, 3)), ("b_enc", (1, 2)))}
    # Of the commit before ranks and attention came to be.
    expected = "7fb03c2e9bbcc276dcf07d88357a109d78de9ee99ef7692331f572d23ceeb2f9"
    assert Dictionary(params, config).digest() == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ranks": ()}, "are of 0 features, not of 12"),
        ({"ranks": ((2, 11),)}, "are of 11 features, not of 12"),
        ({"ranks": ((2, 6), (2, 6))}, "every rank once"),
        ({"ranks": ((0, 12),)}, "expected pairs"),
        ({"kind": "plt"}, "ranks is of the kind molt"),
    ],
)
def test_ranks_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    fields = {"kind": "molt", "n_layers": L, "n_features": N, "d_model": D, "ranks": RANKS, **changes}
    with pytest.raises(InputError, match=message):
        DictionaryConfig(**fields)


@pytest.mark.parametrize(
    "gate", ["relu", "topk", *(pytest.param(gate, marks=pytest.mark.slow) for gate in ("jumprelu", "gated"))]
)
def test_sparse_code_gives_the_same_values_and_gradients(x64: None, gate: str) -> None:
    d, x = make(gate), inputs(2, 3)
    slope = jnp.asarray(np.random.default_rng(7).normal(size=(L, 2, 3, OUT)))

    def dense(params: Any, x: jax.Array) -> jax.Array:
        kind = kind_of(d.config)
        return jnp.sum(slope * kind.decode(params, d.config, kind.encode(params, d.config, x), x))

    def sparsely(params: Any, x: jax.Array) -> jax.Array:
        code = sparse.encode(params, d.config, x, N)
        return jnp.sum(slope * sparse.decode(params, d.config, code, x))

    expected = jax.jit(jax.value_and_grad(dense, (0, 1)))(d.params, x)
    found = jax.jit(jax.value_and_grad(sparsely, (0, 1)))(d.params, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), found, expected)
    assert np.abs(expected[1][0][molt.OUT][0]).max() > 0.01
