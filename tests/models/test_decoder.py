"""The decoder: edits, scan and loop, cache, packed documents, meshes, gradients."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.core.errors import InputError
from jaxinterp.models import SITES, Edit, ModelConfig, forward, generate, generate_tokens
from jaxinterp.models.generation import check_tokens
from tests.support import EVERY, FAMILIES, tiny_config, tiny_model

TOKENS = jnp.asarray([[7, 3, 19, 3, 28, 11, 5, 2], [1, 0, 4, 33, 3, 3, 9, 30]])


@pytest.mark.parametrize("family", EVERY)
def test_scan_and_loop_give_the_same_named_sites_and_the_future_does_not_reach_the_past(family: str) -> None:
    model = tiny_model(family)
    absent = set() if model.config.post_norms else {"attn_post_scale", "mlp_post_scale"}
    absent |= set() if model.config.latent else {"latent_scale"}
    scan, loop = (
        jax.jit(partial(forward, config=model.config, sites=SITES, unroll=unroll)) for unroll in (False, True)
    )
    scanned, looped = (run(model.params, tokens=TOKENS) for run in (scan, loop))
    np.testing.assert_allclose(scanned[0], looped[0], atol=2e-5)
    for site in SITES:
        one, two = getattr(scanned[1], site), getattr(looped[1], site)
        assert (one is None) == (two is None) == (site in absent), site
        if one is None:
            continue
        np.testing.assert_allclose(one, two, atol=2e-5)
    bare = jax.eval_shape(partial(forward, config=model.config), model.params, tokens=TOKENS)
    assert bare[1].resid_mid is None

    other = scan(model.params, tokens=TOKENS.at[0, -1].set(9))[0]
    assert np.array_equal(other[0, :-1], scanned[0][0, :-1])
    assert not np.array_equal(other[0, -1], scanned[0][0, -1])


@pytest.mark.parametrize("family", FAMILIES)
def test_cached_generation_equals_uncached(family: str) -> None:
    model = tiny_model(family)
    got = generate_tokens(model.params, model.config, TOKENS, new=12)
    row = np.pad(TOKENS, ((0, 0), (0, 12)))  # one compiled length
    step = jax.jit(lambda row: forward(model.params, model.config, row)[0])
    for length in range(8, 20):
        row[:, length] = np.argmax(step(row)[:, length - 1], -1)
    assert np.array_equal(got, row)


def test_packed_documents_do_not_see_each_other() -> None:
    model = tiny_model("llama")
    segments = jnp.asarray([[0, 0, 0, 1, 1, 1, 1, 2]])
    positions = jnp.asarray([[0, 1, 2, 0, 1, 2, 3, 0]])
    packed, _ = forward(model.params, model.config, TOKENS[:1], segments=segments, positions=positions)
    alone, _ = forward(model.params, model.config, TOKENS[:1, 3:7])
    np.testing.assert_allclose(packed[0, 3:7], alone[0], atol=1e-5)


class TestEdits:
    def test_replacing_by_what_is_there_changes_nothing(self) -> None:
        model = tiny_model("gemma2")
        clean, found = forward(model.params, model.config, TOKENS, sites=SITES)
        edits = [
            Edit(
                site,
                "replace",
                getattr(found, site),
                per_layer=site not in ("embed", "final_norm", "final_scale"),
            )
            for site in SITES
        ]
        again, _ = forward(model.params, model.config, TOKENS, edits=edits)
        np.testing.assert_allclose(again, clean, atol=2e-5)

    def test_only_the_named_layer_and_position_change(self) -> None:
        model = tiny_model("llama")
        edit = Edit("mlp_out", "scale", 0.0, layer=1, position=2)
        _, clean = forward(model.params, model.config, TOKENS, sites=("mlp_out",))
        _, edited = forward(model.params, model.config, TOKENS, sites=("mlp_out",), edits=[edit])
        assert not edited.mlp_out[1, :, 2].any()
        assert np.array_equal(edited.mlp_out[1, :, :2], clean.mlp_out[1, :, :2])
        assert np.array_equal(edited.mlp_out[0], clean.mlp_out[0])
        assert not np.array_equal(edited.mlp_out[2, :, 2], clean.mlp_out[2, :, 2])

    def test_new_values_do_not_compile_again(self) -> None:
        model = tiny_model("llama")
        traced = 0

        @jax.jit
        def run(params, edit):
            nonlocal traced
            traced += 1
            return forward(params, model.config, TOKENS, edits=[edit])[0]

        results = [
            run(
                model.params,
                Edit("resid_mid", "add", jnp.full(16, x), layer=jnp.asarray(l), position=jnp.asarray(p)),
            )
            for x, l, p in ((0.5, 0, 1), (1.5, 2, 3))
        ]
        assert traced == 1
        assert not np.array_equal(results[0], results[1])

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [(("mlp_outt", "add", 0.0), "did you mean mlp_out"), (("mlp_out", "plus", 0.0), "op is 'plus'")],
    )
    def test_unknown_names(self, arguments, message: str) -> None:
        with pytest.raises(InputError, match=message):
            Edit(*arguments)


def test_unknown_site() -> None:
    model = tiny_model("llama")
    with pytest.raises(InputError, match="did you mean resid_mid"):
        forward(model.params, model.config, TOKENS, sites=("resid_midd",))


def test_gradients_agree_with_finite_differences(x64: None) -> None:
    model = tiny_model("gemma2", dtype="float64")

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        logits, _ = forward(params, model.config, TOKENS)
        return jnp.mean(jax.nn.logsumexp(logits, axis=-1) ** 2)

    gradient = loss(model.params)[1]
    rng = np.random.default_rng(0)
    direction = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), model.params)
    slope = sum(
        jnp.vdot(g, d) for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True)
    )
    step = 1e-6
    ahead, behind = (
        loss(jax.tree.map(lambda p, d, s=s: p + s * step * d, model.params, direction))[0] for s in (1, -1)
    )
    assert float(slope) == pytest.approx(float(ahead - behind) / (2 * step), rel=1e-6)


def test_per_example_gradients_by_vmap() -> None:
    model = tiny_model("llama")

    def loss(params, row):
        logits, _ = forward(params, model.config, row[None])
        return jnp.sum(logits[0, -1] ** 2)

    each = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0)))(model.params, TOKENS)
    alone = jax.jit(jax.grad(loss))(model.params, TOKENS[1])
    for got, want in zip(jax.tree.leaves(each), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(got[1], want, atol=2e-3, rtol=2e-3)


def test_sampling_is_a_function_of_the_key() -> None:
    model = tiny_model("llama")
    one, two, other = (
        generate_tokens(model.params, model.config, TOKENS, new=8, temperature=1.0, key=jax.random.key(k))
        for k in (0, 0, 1)
    )
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)
    greedy = generate_tokens(model.params, model.config, TOKENS, new=8)
    best = generate_tokens(
        model.params, model.config, TOKENS, new=8, temperature=1.0, top_k=1, key=jax.random.key(3)
    )
    assert np.array_equal(greedy, best)


def test_generate_checks_its_prompt() -> None:
    model = tiny_model("llama")
    assert len(generate(model, [1, 2, 3], max_new_tokens=4)) == 4
    for prompt, message in (
        ([], "empty"),
        ([50], "vocabulary of 40"),
        ([1] * 30, "context of 32"),
        ("hi", "tokenizer"),
    ):
        with pytest.raises(InputError, match=message):
            generate(model, prompt, max_new_tokens=4)
    with pytest.raises(InputError, match="whole numbers"):
        check_tokens(model.config, [0.5])


class TestConfig:
    def test_round_trip(self) -> None:
        for family in EVERY:
            config = tiny_config(family)
            assert ModelConfig.from_dict(config.to_dict()) == config

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"n_head": 4}, "unknown field 'n_head' .did you mean n_heads"),
            ({"n_kv_heads": 3}, "cannot share 3"),
            ({"norm": "batch"}, "norm is 'batch'"),
            ({"d_head": 5}, "even head width"),
            ({"windows": [1]}, "1 windows for 3 layers"),
            ({"d_model": 0}, "d_model is 0"),
        ],
    )
    def test_bad_fields(self, changes, message: str) -> None:
        with pytest.raises(InputError, match=message):
            ModelConfig.from_dict({**tiny_config("llama").to_dict(), **changes})

    def test_parameter_count(self) -> None:
        for family in EVERY:
            model = tiny_model(family)
            assert model.config.n_params() == sum(leaf.size for leaf in jax.tree.leaves(model.params))
