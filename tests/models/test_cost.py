"""Counts from a config against the program itself, against arrays, and against published numbers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from jaxinterp.checkpoints.shapes import SHAPES, shape
from jaxinterp.core import flops
from jaxinterp.core.errors import InputError
from jaxinterp.models import SITES, ModelConfig, cost, declare, forward
from jaxinterp.models.decoder import empty_cache, forward_cached
from jaxinterp.parallel import weights
from tests.support import EVERY, tiny_config, tiny_model


def counted(config: ModelConfig, dispatch: str = "sparse") -> int:
    params = weights.abstract(declare(config), jnp.float32)
    tokens = jax.ShapeDtypeStruct((2, 8), jnp.int32)
    return flops.count(lambda p, t: forward(p, config, t, dispatch=dispatch)[0], params, tokens)


def repeated(config: ModelConfig, n: int) -> int:
    """Our program writes the compression of the latent three times; compilers merge them."""
    latent = config.latent
    return 0 if latent is None else config.n_layers * 2 * 2 * n * config.d_model * latent.kv_rank


@pytest.mark.parametrize("dispatch", ["sparse", "dense"])
@pytest.mark.parametrize("family", EVERY)
def test_operations_are_those_of_the_program(family: str, dispatch: str) -> None:
    config = tiny_config(family)
    found = cost.forward_flops(config, 2, 8, dispatch=dispatch)
    assert counted(config, dispatch) == found.total + repeated(config, 16)
    assert cost.forward_flops(config, 2, 8, dispatch=dispatch, logits=False) == found._replace(unembedding=0)


def test_operations_of_a_step_with_a_cache() -> None:
    config = tiny_config("llama")
    params = weights.abstract(declare(config), jnp.float32)
    cache = jax.eval_shape(lambda: empty_cache(config, 2, 16, jnp.float32))
    token = jax.ShapeDtypeStruct((2, 1), jnp.int32)

    def step(params, cache, token):
        return forward_cached(params, config, token, cache, positions=token, segments=token)[0]

    assert flops.count(step, params, cache, token) == cost.forward_flops(config, 2, 1, keys=16).total


def test_attention_grows_with_the_square_of_the_length() -> None:
    config = shape("llama-3.1-8b")
    one, two = (cost.forward_flops(config, 1, length) for length in (512, 1024))
    assert two.scores == 4 * one.scores
    assert (two.mlp, two.projections, two.unembedding) == (
        2 * one.mlp,
        2 * one.projections,
        2 * one.unembedding,
    )


@pytest.mark.parametrize("family", EVERY)
def test_bytes_are_those_of_the_arrays(family: str) -> None:
    config = tiny_config(family)
    params = weights.abstract(declare(config), jnp.bfloat16)
    assert cost.weight_bytes(config) == sum(leaf.size * 2 for leaf in jax.tree.leaves(params))
    cache = jax.eval_shape(lambda: empty_cache(config, 3, 7, jnp.bfloat16))
    assert cost.cache_bytes(config, 3, 7) == sum(
        leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(cache)
    )


def test_bytes_of_recorded_activations() -> None:
    model = tiny_model("gemma2")
    tokens = jnp.zeros((2, 8), jnp.int32)
    found = jax.jit(lambda p, t: forward(p, model.config, t, sites=SITES)[1])(model.params, tokens)
    for site in SITES:
        value = getattr(found, site)
        size = 0 if value is None else value.nbytes
        assert cost.site_bytes(model.config, (site,), 2, 8, "float32") == size, site
    assert cost.site_bytes(model.config, ("mlp_in", "mlp_out"), 2, 8) == 2 * 2 * 3 * 2 * 8 * 16


PUBLISHED = {  # billions: all parameters, those a token goes through
    "gpt2": (0.124, 0.124),
    "llama-3.1-8b": (8.03, 8.03),
    "llama-3.1-70b": (70.6, 70.6),
    "gemma-2-2b": (2.61, 2.61),
    "gemma-2-27b": (27.2, 27.2),
    "qwen3-30b-a3b": (30.5, 3.35),
    "deepseek-r1": (671, 37.6),
}


@pytest.mark.parametrize("name", SHAPES)
def test_public_models_have_their_published_sizes(name: str) -> None:
    every, active = PUBLISHED[name]
    facts = cost.summary(shape(name))
    assert facts["parameters"] / 1e9 == pytest.approx(every, rel=5e-3)
    assert facts["active_parameters"] / 1e9 == pytest.approx(active, rel=5e-3)
    # Two operations a parameter that a token goes through (embeddings are looked up), and attention on top.
    config = shape(name)
    tables = (not config.tied) * config.vocab_size + (config.positions == "learned") * config.context
    looked_up = tables * config.d_model
    rest = facts["flops_per_token"] - 2 * (facts["active_parameters"] - looked_up)
    scores = cost.forward_flops(config, 1, 1024).scores // 1024
    assert rest == pytest.approx(scores, rel=0.02)


def test_bad_sizes() -> None:
    config = tiny_config("llama")
    with pytest.raises(InputError, match="length 0"):
        cost.forward_flops(config, 1, 0)
    with pytest.raises(InputError, match="dispatch is 'sparce'"):
        cost.forward_flops(config, 1, 1, dispatch="sparce")
    with pytest.raises(InputError, match="did you mean deepseek-r1"):
        shape("deepseek-r2")
