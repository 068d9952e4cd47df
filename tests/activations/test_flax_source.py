"""Activations of Flax models by path: the module's own values, on a mesh, trained on; tracing refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from flax import linen as nn
from flax import nnx

import jaxinterp as ji
from jaxinterp.activations import Stream, StreamConfig, TextConfig, flax_source, make_source
from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries import load_dictionary
from jaxinterp.parallel.mesh import make
from jaxinterp.replacement import freeze
from jaxinterp.training import train
from jaxinterp.training.configs import parse
from jaxinterp.training.dictionary import CONFIG, task
from jaxinterp.training.metrics import read
from tests.activations.flax_models import (
    CONTEXT,
    LAYERS,
    VOCAB,
    WIDTH,
    NnxPrefix,
    Prefix,
    documents,
    drawn,
    linen_source,
    nnx_source,
    prefix_mean,
)  # fmt: skip

TOKENS = np.asarray(documents(0, 0, 4, 12)["tokens"], np.int32)
TEXT = TextConfig(source="tests.activations.flax_models:documents", length=12, batch=8)


def test_linen_values_are_the_module_s_own() -> None:
    module = Prefix()
    reads, writes = module.apply(drawn(module), TOKENS, method="insides")
    source = linen_source()
    assert (source.config.n_layers, source.config.d_model) == (LAYERS, WIDTH)
    found = jax.jit(source.activations)(source.variables, TOKENS)
    np.testing.assert_allclose(found["mlp_in"], reads, atol=1e-6)
    np.testing.assert_allclose(found["mlp_out"], writes, atol=1e-6)
    hidden = flax_source(
        module, source.variables, sites={"write": "h_{l}/mlp/hidden"}, vocab_size=VOCAB, context=CONTEXT,
        keywords={"deterministic": True},
    )  # fmt: skip
    sown = hidden.activations(hidden.variables, TOKENS)["write"]
    assert sown.shape == (LAYERS, 4, 12, 24)
    inner = source.variables["params"]["h_1"]["mlp"]["inner"]
    expected = jnp.tanh(reads[1] @ inner["kernel"] + inner["bias"][None, None])
    np.testing.assert_allclose(sown[1], expected, atol=1e-6)


def test_a_scanned_module_gives_the_same_by_one_path() -> None:
    plain, scanned = linen_source(), linen_source(scanned=True)
    layers = [plain.variables["params"][f"h_{i}"] for i in range(LAYERS)]
    params = {
        "embed": plain.variables["params"]["embed"],
        "layers": jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers),
    }
    one = plain.activations(plain.variables, TOKENS)
    two = scanned.activations({"params": params}, TOKENS)
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, atol=1e-6)


def test_nnx_values_are_the_module_s_own() -> None:
    source = nnx_source()
    module = NnxPrefix(nnx.Rngs(0))
    x, reads, writes = module.embed(TOKENS), [], []
    for layer in module.layers:
        x = x + layer.mix(prefix_mean(x))
        reads.append(layer.ln(x))
        writes.append(layer.mlp.outer(jnp.tanh(layer.mlp.inner(reads[-1]))))
        x = x + writes[-1]
    found = jax.jit(source.activations)(source.variables, TOKENS)
    np.testing.assert_allclose(found["read"], jnp.stack(reads), atol=1e-6)
    np.testing.assert_allclose(found["write"], jnp.stack(writes), atol=1e-6)
    # Any reading or writing site of a dictionary is what the source calls so.
    batch = make_source(TEXT, source, 0).batch(0)
    rows = source.collect(batch.tokens, batch.segments, batch.positions, ("mlp_normalized", "mlp_out"))
    direct = source.activations(source.variables, batch.tokens)
    np.testing.assert_allclose(rows[1], np.asarray(direct["write"]).reshape(LAYERS, -1, WIDTH), atol=1e-6)
    assert source.digest() == nnx_source().digest() != linen_source().digest()


def test_a_stream_of_it_is_the_same_on_a_mesh() -> None:
    source = linen_source()
    config = StreamConfig(text_batches=2, microbatch=8)
    sites = ("mlp_in", "mlp_out")
    streams = [
        Stream(source, sites, make_source(TEXT, source, 0), rows=16, seed=0, config=config, mesh=mesh)
        for mesh in (None, make(4, devices=jax.devices()[:4]))
    ]
    one, four = (stream.batch(3) for stream in streams)
    assert one[0].shape == (LAYERS, 16, WIDTH)
    for a, b in zip(one, four, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    spread = streams[1].pool(0)[0][0]
    assert len(spread.sharding.device_set) == 4


RUN: dict[str, Any] = {
    "model": "tests.activations.flax_models:linen_source", "steps": 60, "batch": 64,
    "dictionary": {"kind": "clt", "n_features": 32, "read_site": "mlp_in"},
    "text": {"source": TEXT.source, "length": 12, "batch": 16}, "start": {"rate": 0.2, "decoder": 0.2},
    "sparsity": {"method": "layer-threshold", "l0": 5, "start_l0": 8, "pre_activation": 0, "threshold": 1.0},
    "optimiser": {"warmup": 10}, "held_out": {"tokens": 512, "validation_tokens": 256},
}  # fmt: skip


def test_a_transcoder_trains_on_a_linen_model_named_in_a_config(tmp_path: Path) -> None:
    loop = {"log_every": 20, "evaluate_every": 40, "checkpoint_every": 60}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"task": "dictionary", **RUN, "loop": loop}))
    out = train(tmp_path / "c.yaml", [], tmp_path / "out", quiet=True)
    final = read(out / "metrics.jsonl")[-1]["final"]
    assert final["mean_nmse"] < 0.5 and final["rows"] == 512 and "ce_gap" not in final
    card = json.loads((out / "dictionary" / "card.json").read_text())
    assert card["model"] == {"name": "prefix", "digest": linen_source().digest()}
    found = load_dictionary(out / "dictionary")
    assert (found.config.n_layers, found.config.d_model, found.config.read_site) == (LAYERS, WIDTH, "mlp_in")


def test_a_transcoder_trains_on_an_nnx_model() -> None:
    config = parse(CONFIG, {**RUN, "dictionary": {"kind": "plt", "n_features": 32}}, "test")
    made = task(config, nnx_source())
    state, step, errors = made.init(jax.random.key(0)), jax.jit(made.step), []
    for index in range(40):
        state, metrics = step(state, made.batch(index))
        errors.append(float(metrics["nmse"]))
    assert np.mean(errors[-5:]) < 0.7 * errors[0]


def refused(message: str, **changes: Any) -> None:
    module = changes.pop("module", Prefix())
    given: dict[str, Any] = {
        "sites": {"read": "h_{l}/ln", "write": "h_{l}/mlp"}, "vocab_size": VOCAB, "context": CONTEXT,
        "keywords": {"deterministic": True}, **changes,
    }  # fmt: skip
    variables = given.pop("variables", drawn(module) if isinstance(module, Prefix) else None)
    with pytest.raises(InputError, match=message) as caught:
        flax_source(module, variables, **given)
    assert "\n" not in str(caught.value)


def test_wrong_paths_and_shapes_are_named() -> None:
    refused("nothing at 'h_0/mpl' .site 'write'.*did you mean h_0/mlp", sites={"write": "h_{l}/mpl"})
    refused("nothing at 'h_2/ln'", n_layers=3)
    refused(r"'h_0/mlp' .site 'write'. has shape \(2, 5, 8\).*expected \[layers, B, T, D\].*{l} in place of",
            sites={"read": "h_{l}/ln", "write": "h_0/mlp"})  # fmt: skip
    refused(r"sites of different widths: read .* 8, write .* 24",
            sites={"read": "h_{l}/ln", "write": "h_{l}/mlp/hidden"})  # fmt: skip
    refused(r"cannot be called with tokens \(2, 5\): TypeError.*keywords= or inputs=", keywords={})
    refused("needs its variables", variables=None)
    refused("a function is neither a linen nor an nnx module", module=documents)
    refused("no sites", sites={})
    with pytest.raises(InputError, match="no site 'resid_pre'"):
        linen_source().collect(TOKENS, TOKENS, TOKENS, ("resid_pre",))


def test_text_that_it_cannot_use_is_refused() -> None:
    source = linen_source()
    with pytest.raises(InputError, match="only models of ours can sample text"):
        make_source(TextConfig(length=8), source, 0)
    two = TextConfig(source="tests.activations.flax_models:packed", length=12, batch=8)
    stream = Stream(source, ("mlp_in",), make_source(two, source, 0), rows=8, seed=0)
    with pytest.raises(InputError, match="several documents, which this model cannot tell apart"):
        stream.batch(0)

    class Apart(nn.Module):
        @nn.compact
        def __call__(self, tokens: jax.Array, segments: jax.Array) -> jax.Array:
            x = nn.Embed(VOCAB, WIDTH, name="embed")(tokens)
            return nn.Dense(WIDTH, name="mlp")(x * segments[:, :, None].astype(x.dtype))

    variables = Apart().init(jax.random.key(0), TOKENS, TOKENS)
    apart = flax_source(
        Apart(), variables, sites={"read": "embed", "write": "mlp"}, vocab_size=VOCAB, context=CONTEXT,
        inputs=lambda tokens, positions, segments: ((tokens, segments), {}),
    )  # fmt: skip
    stream = Stream(apart, ("mlp_in", "mlp_out"), make_source(two, apart, 0), rows=8, seed=0)
    assert [value.shape for value in stream.batch(0)] == [(1, 8, WIDTH)] * 2


def test_tracing_through_it_is_refused() -> None:
    dictionary = load_dictionary("pocket")
    source = linen_source()
    for model in (source, Prefix(), NnxPrefix(nnx.Rngs(0))):
        with pytest.raises(InputError, match=r"no graph can be traced through a .*load_flax") as caught:
            ji.trace(model, dictionary, [1, 2, 3])  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no graph can be traced"):
        freeze(source.variables, source.config, TOKENS[:1], places=())  # type: ignore[arg-type]
