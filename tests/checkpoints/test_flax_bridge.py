"""Flax models into the decoder and back: against their own modules, against transformers, bit by bit, and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import linen as nn
from flax import nnx

from jaxinterp.checkpoints import load_model
from jaxinterp.checkpoints.flax_gemma import Gemma
from jaxinterp.checkpoints.flax_maxtext import MaxText
from jaxinterp.checkpoints.flax_params import flax_fields, load_flax, to_flax
from jaxinterp.checkpoints.flax_presets import _SIZES, names, preset
from jaxinterp.core.errors import InputError
from jaxinterp.core.trees import paths
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import forward
from jaxinterp.models.model import Model
from jaxinterp.models.rotary import RopeScaling
from jaxinterp.parallel.mesh import make
from tests.checkpoints.flax_modules import GemmaNet, MaxTextLlama, NnxGemma
from tests.references import stored

GEMMA: dict[str, Any] = {
    "vocab": 23, "width": 12, "layers": 3, "heads": 4, "kv_heads": 2, "head": 6, "mlp": 20, "windows": (0, 0, 0),
    "base": 10000.0, "local_base": 10000.0, "stretch": 1.0, "query_scale": 6**-0.5, "attn_cap": None,
    "final_cap": None, "post_norms": False, "qk_norm": False, "transposed": False,
}  # fmt: skip
GEMMAS: dict[str, dict[str, Any]] = {
    "first, one key": {"kv_heads": 1},
    "first, every key": {"kv_heads": 4},
    "second": {
        "windows": (3, 0, 3), "query_scale": 0.3, "attn_cap": 2.0, "final_cap": 5.0, "post_norms": True,
        "transposed": True,
    },
    "third": {
        "windows": (3, 3, 0), "query_scale": 0.4, "post_norms": True, "qk_norm": True, "transposed": True,
        "base": 1000.0, "local_base": 100.0, "stretch": 8.0,
    },
}  # fmt: skip
LLAMA: dict[str, Any] = {
    "vocab": 23, "width": 12, "layers": 3, "heads": 4, "kv_heads": 2, "head": 6, "mlp": 20, "base": 50.0,
    "original": 16, "eps": 1e-5, "rope_type": "default", "scanned": True, "scan_axis": 1, "tied": False,
    "normalised": False,
}  # fmt: skip
LLAMAS: dict[str, dict[str, Any]] = {
    "scanned": {},
    "unscanned": {"scanned": False},
    "llama3.1": {"rope_type": "llama3.1", "scan_axis": 0},
    "tied": {"tied": True, "normalised": True, "kv_heads": 4},
}
TOKENS = np.random.default_rng(0).integers(0, 23, (2, 9)).astype(np.int32)


def drawn(module: nn.Module, seed: int) -> Any:
    """Random parameters of a module, without compiling its initialisers."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), TOKENS)["params"]
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(random.normal(0, 0.4, leaf.shape), leaf.dtype), shapes)


def gemma(kind: str, dtype: str = "float32", **changes: Any) -> tuple[Any, Any, ModelConfig]:
    """The module, random parameters of it, and our config."""
    c = {**GEMMA, **GEMMAS[kind], **changes, "dtype": dtype}
    module = GemmaNet(c)
    params = drawn(module, 1)
    local = c["local_base"] if any(c["windows"]) else None
    config = ModelConfig(
        **flax_fields(params, "gemma"), context=32, rope_base=c["base"], rope_local_base=local,
        rope_scaling=RopeScaling("linear", 8.0) if c["stretch"] != 1 else None, query_scale=c["query_scale"],
        attn_softcap=c["attn_cap"], final_softcap=c["final_cap"],
        windows=c["windows"] if any(c["windows"]) else (),
    )  # fmt: skip
    return module, params, config


def llama(kind: str, dtype: str = "float32", **changes: Any) -> tuple[Any, Any, ModelConfig, MaxText]:
    """The module, random parameters of it, our config for the stored weights as they are, and the layout."""
    c = {**LLAMA, **LLAMAS[kind], **changes, "dtype": dtype}
    module = MaxTextLlama(c)
    params = drawn(module, 2)
    turned = c["rope_type"] == "llama3.1"
    layout = MaxText(c["rope_type"], c["normalised"] if c["tied"] else None, scan_axis=c["scan_axis"])
    config = ModelConfig(
        **flax_fields(params, layout), context=64, rope_base=c["base"], norm_eps=c["eps"],
        rope_pairs="adjacent" if turned else "half",
        rope_scaling=RopeScaling("llama3", 8.0, 16) if turned else None,
    )  # fmt: skip
    return module, params, config, layout


def agree(module: nn.Module, params: Any, model: Model, tolerance: float) -> None:
    expected = np.asarray(jax.jit(module.apply)({"params": params}, TOKENS))
    got = np.asarray(jax.jit(forward, static_argnums=1)(model.params, model.config, TOKENS)[0])
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def same(one: Any, two: Any) -> None:
    """Two trees with the same paths, shapes and bytes."""
    one, two = dict(paths(one)), dict(paths(two))
    assert sorted(one) == sorted(two)
    for name, leaf in one.items():
        a, b = np.asarray(leaf), np.asarray(two[name])
        assert (a.shape, a.dtype) == (b.shape, b.dtype), name
        assert a.tobytes() == b.tobytes(), name


@pytest.mark.parametrize("kind", ["first, every key", "third"])
def test_gemma_computes_what_its_module_computes(kind: str) -> None:
    module, params, config = gemma(kind)
    agree(module, params, load_flax(params, "gemma", config), 1e-5)


@pytest.mark.parametrize("kind", GEMMAS)
def test_gemma_in_float64(kind: str, x64: None) -> None:
    module, params, config = gemma(kind, "float64")
    agree(module, params, load_flax(params, "gemma", config, dtype="float64"), 1e-10)


@pytest.mark.parametrize("kind", ["second", "third"])
def test_gemma_in_nnx_computes_what_its_module_computes(kind: str, x64: None) -> None:
    module = NnxGemma({**GEMMA, **GEMMAS[kind], "dtype": "float64"})
    _, _, config = gemma(kind, "float64")
    model = load_flax(module, "gemma", config, dtype="float64")
    expected = np.asarray(nnx.jit(lambda m, t: m(t))(module, TOKENS))
    got = np.asarray(jax.jit(forward, static_argnums=1)(model.params, config, TOKENS)[0])
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-10 * np.abs(expected).max())
    same(to_flax(model, Gemma("nnx")), nnx.to_pure_dict(nnx.state(module)))


@pytest.mark.parametrize("kind", ["llama3.1", "tied"])
def test_maxtext_computes_what_its_module_computes(kind: str) -> None:
    module, params, config, layout = llama(kind)
    agree(module, params, load_flax({"params": {"params": params}}, layout, config), 1e-5)


@pytest.mark.parametrize("kind", LLAMAS)
def test_maxtext_in_float64(kind: str, x64: None) -> None:
    module, params, config, layout = llama(kind, "float64")
    agree(module, params, load_flax(params, layout, config, dtype="float64"), 1e-10)


def test_maxtext_weights_in_hugging_face_s_form(x64: None) -> None:
    """With a config whose scores have their factor and whose pairs are half a head apart, weights change to it."""
    module, params, config, layout = llama("llama3.1", "float64")
    config = config.replace(query_scale=None, rope_pairs="half")
    model = load_flax(params, layout, config, dtype="float64")
    agree(module, params, model, 1e-10)
    kernel = np.asarray(params["decoder"]["layers"]["self_attention"]["query"]["kernel"])  # L D H E
    query = np.asarray(model.params["layers"]["q"])
    np.testing.assert_allclose(query[1, 2, 3, :3], kernel[1, 2, 3, ::2] * 6**0.5, rtol=1e-14)
    np.testing.assert_allclose(query[1, 2, 3, 3:], kernel[1, 2, 3, 1::2] * 6**0.5, rtol=1e-14)
    key, ours = (
        np.asarray(params["decoder"]["layers"]["self_attention"]["key"]["kernel"]),
        model.params["layers"]["k"],
    )
    assert np.array_equal(np.asarray(ours)[2, 5, 1], key[2, 5, 1][[0, 2, 4, 1, 3, 5]])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", GEMMAS)
def test_gemma_there_and_back_is_bitwise(kind: str, dtype: str) -> None:
    _, params, config = gemma(kind)
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    model = load_flax(params, "gemma", config, dtype=dtype)
    transposed = GEMMAS[kind].get("transposed", False)
    same(to_flax(model, Gemma(transposed=transposed)), params)
    # The forms of released checkpoints, and from them to the same weights.
    for form in (Gemma("flat", transposed=transposed), Gemma("stacked", transposed=transposed, cycle=2)):
        tree = to_flax(model, form)
        same(load_flax(tree, "gemma", config, dtype=dtype).params, model.params)
    assert tree["transformer/stacked_layers/attention_type_0/mlp/linear"]["w"].shape == (2, 20, 12)
    assert tree["transformer/stacked_layers/attention_type_1/mlp/linear"]["w"].shape == (1, 20, 12)


@pytest.mark.parametrize("kind", ["scanned", "unscanned", "llama3.1"])
def test_maxtext_there_and_back_is_bitwise(kind: str) -> None:
    _, params, config, layout = llama(kind)
    model = load_flax(params, layout, config)
    layout = MaxText(layout.rope_type, scanned=kind != "unscanned", scan_axis=layout.scan_axis)
    same(to_flax(model, layout), params)
    # Heads of 4 or 16: the factor is a power of two, and taking it out and putting it back changes no bit.
    _, params, config, layout = llama(kind, head=16)
    config = config.replace(query_scale=None, rope_pairs="half")
    model = load_flax(params, layout, config)
    same(load_flax(to_flax(model, layout), layout, config).params, model.params)


FROM_TRANSFORMERS = {
    "gemma_mha": Gemma(transposed=False),
    "gemma2_gqa": Gemma(),
    "gemma3_mqa_linear_scaling": Gemma(),
    "llama_mha": MaxText("default"),
    "llama3_gqa_long": MaxText("llama3.1"),
}


@pytest.mark.parametrize("name", FROM_TRANSFORMERS)
def test_hugging_face_to_flax_computes_what_transformers_computed(name: str, tmp_path: Path) -> None:
    """Stored logits of transformers ← a tiny Flax module ← its parameters ← our decoder ← the Hugging Face folder."""
    case, layout = stored.case(name), FROM_TRANSFORMERS[name]
    model = load_model(stored.write_folder(case, tmp_path / "m"))
    config, reference = model.config, case.reference()
    c: dict[str, Any] = {
        "vocab": config.vocab_size, "width": config.d_model, "layers": config.n_layers, "heads": config.n_heads,
        "kv_heads": config.n_kv_heads, "head": config.d_head, "mlp": config.d_mlp, "base": config.rope_base,
        "dtype": "float32",
    }  # fmt: skip
    module: nn.Module
    if isinstance(layout, Gemma):
        c |= {
            "windows": config.windows or (0,) * config.n_layers, "query_scale": config.score_scale,
            "local_base": config.rope_local_base or config.rope_base, "attn_cap": config.attn_softcap,
            "stretch": config.rope_scaling.factor if config.rope_scaling else 1.0, "final_cap": config.final_softcap,
            "post_norms": config.post_norms, "qk_norm": bool(config.qk_norm), "transposed": layout.transposed is None,
        }  # fmt: skip
        module = GemmaNet(c)
    else:
        scaling = config.rope_scaling
        c |= {
            "eps": config.norm_eps,
            "rope_type": layout.rope_type,
            "scanned": True,
            "scan_axis": 1,
            "tied": False,
        }
        module = MaxTextLlama({**c, "original": scaling.original_context if scaling else 0})
    params = to_flax(model, layout)
    shapes = jax.eval_shape(module.init, jax.random.key(0), TOKENS)["params"]
    assert jax.tree.map(lambda leaf: (leaf.shape, np.dtype(leaf.dtype)), params) == jax.tree.map(
        lambda leaf: (leaf.shape, np.dtype(leaf.dtype)), shapes
    )
    logits = np.asarray(jax.jit(module.apply)({"params": params}, reference["tokens"]))
    np.testing.assert_allclose(
        logits, reference["logits"], rtol=0, atol=1e-5 * np.abs(reference["logits"]).max()
    )


class Node(nnx.Module):
    """An nnx module with the parameters of a tree, and random numbers, which are none."""

    def __init__(self, tree: Any) -> None:
        self.dropout = nnx.Rngs(0)
        for name, value in tree.items():
            setattr(self, name, nnx.Param(value) if hasattr(value, "shape") else Node(value))


def test_every_kind_of_tree() -> None:
    """Linen variables, frozen and boxed trees, and the same parameters in nnx."""
    _, params, config = gemma("second")
    model = load_flax(params, "gemma", config)
    boxed = jax.tree.map(lambda leaf: nn.Partitioned(leaf, (None,) * leaf.ndim), params)
    state = {"params": params, "step": jnp.asarray(3), "opt_state": {"mu": jnp.zeros(2)}}
    module = Node(params)
    for tree in ({"params": params}, flax.core.freeze(params), boxed, state, module, nnx.state(module)):
        same(load_flax(tree, "gemma", config).params, model.params)
    images = {
        "vision_encoder": {"w": jnp.ones(3)},
        "embedder": {**params["embedder"], "mm_input_projection": {"w": jnp.ones(2)}},
    }
    same(load_flax({**params, **images}, "gemma", config).params, model.params)


def save(tree: Any, folder: Path) -> Path:
    with ocp.StandardCheckpointer() as writer:
        writer.save(folder.resolve(), tree)
    return folder


def test_an_orbax_folder_of_another_program_also_onto_a_mesh(tmp_path: Path) -> None:
    mesh = make(2, 2, devices=jax.devices()[:4])
    _, params, config = gemma("third", vocab=24)
    model = load_flax(params, "gemma", config)
    flat = save(to_flax(model, Gemma("flat")), tmp_path / "flat")
    same(load_flax(flat, "gemma", config).params, model.params)
    spread = load_flax(str(flat), "gemma", config, mesh=mesh)
    same(spread.params, model.params)
    assert spread.params["layers"]["up"].sharding.spec == jax.sharding.PartitionSpec(None, None, "model")

    _, params, config, layout = llama("llama3.1", vocab=24)
    config = config.replace(query_scale=0.5, rope_pairs="half")
    model = load_flax(params, layout, config)
    with ocp.CheckpointManager((tmp_path / "run").resolve(), item_names=("items",)) as manager:
        state = {"params": {"params": params}, "step": np.asarray(7), "opt_state": [{"mu": np.ones(3)}]}
        manager.save(0, args=ocp.args.Composite(items=ocp.args.PyTreeSave(state)))
    same(load_flax(tmp_path / "run" / "0", layout, config).params, model.params)
    for source in (tmp_path / "run" / "0", params):
        spread = load_flax(source, layout, config, mesh=mesh)
        same(spread.params, model.params)
        assert spread.params["layers"]["q"].sharding.spec == jax.sharding.PartitionSpec(
            None, None, "model", None
        )
    with pytest.raises(InputError, match=r"no _METADATA in it but 0; give one of its steps"):
        load_flax(tmp_path / "run", layout, config)
    with pytest.raises(InputError, match=r"an Orbax checkpoint without our config.json: .*load_flax"):
        load_model(flat)
    with pytest.raises(InputError, match=r"no Orbax checkpoint at .*runs"):
        load_flax(tmp_path / "runs", layout, config)


def test_presets_are_the_published_sizes() -> None:
    for name in _SIZES:
        layout: Any = Gemma() if name.startswith("gemma") else MaxText()
        config, resolved = preset(name, layout)
        resolved.check(config)
        assert config.n_layers == _SIZES[name][0]
    # Parameters in all, from the published model cards and configs (embeddings counted once).
    counts = {name: preset(name, Gemma())[0].n_params() for name in names("gemma")}
    assert counts["gemma_2b"] == 2_506_434_560 and counts["gemma2_2b"] == 2_614_636_800
    assert counts["gemma3_1b"] == 999_885_952
    assert preset("llama3.1-8b", MaxText())[0].n_params() == 8_030_261_248
    config = preset("gemma2_27b", Gemma())[0]
    assert config.score_scale == 144**-0.5 and config.windows[:3] == (4096, 0, 4096)
    config = preset("gemma3_4b", Gemma())[0]
    assert config.windows[:6] == (1024,) * 5 + (0,) and config.rope_local_base == 1e4
