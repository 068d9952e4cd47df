"""Hugging Face folders: layouts, shards, dtypes, meshes, and a config that is read strictly."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from jaxinterp.checkpoints import load_model, rearrange
from jaxinterp.checkpoints.export_config import write_config
from jaxinterp.checkpoints.families import FAMILIES
from jaxinterp.checkpoints.families.base import COMMON, COMMON_FIXED
from jaxinterp.checkpoints.families.rope import SHARE
from jaxinterp.checkpoints.huggingface import axis_sizes, read_config
from jaxinterp.core.errors import InputError
from jaxinterp.core.trees import paths
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.weights import declare
from jaxinterp.parallel import mesh as meshes
from jaxinterp.parallel import weights
from jaxinterp.parallel.rules import Rules
from tests.checkpoints.folders import DATA, SHARDED, copied, rewrite

HERE = Path(__file__).parent
FOLDERS = {"gpt2": "gpt2", "llama": "llama_gqa", "gemma2": "gemma2"}


def test_layouts_go_both_ways() -> None:
    """Every pattern of every family is inverted by its own way back, entry by entry."""
    for kind, name in FOLDERS.items():
        content = json.loads((DATA / name / "config.json").read_text())
        config = read_config(content, "config")[1]
        sizes = axis_sizes(config)
        declared = weights.leaves(declare(config))
        entries = FAMILIES[kind].tensors(config)
        assert sorted(entry.ours for entry in entries) == sorted(declared)
        for entry in entries:
            shape = rearrange.stored_shape(entry.pattern, sizes)
            stored = np.arange(np.prod(shape)).reshape(shape)
            ours = rearrange.to_ours(stored, entry.pattern, sizes)
            assert np.array_equal(rearrange.to_stored(ours, entry.pattern, sizes), stored)
            ours = ours if entry.part is None else ours[entry.part]
            expected = declared[entry.ours].shape
            assert ours.shape == (expected[1:] if "{l}" in entry.stored else expected)


def test_projection_layout_by_hand() -> None:
    """q[d, h, e] is row h * E + e, column d of the stored matrix; GPT-2's joint matrix is (d, part h e)."""
    llama = load_model(DATA / "llama_gqa")
    stored = safetensors.numpy.load_file(DATA / "llama_gqa" / "model.safetensors")
    matrix = stored["model.layers.1.self_attn.q_proj.weight"]
    assert np.asarray(llama.params["layers"]["q"])[1, 5, 2, 3] == matrix[2 * 4 + 3, 5]
    matrix = stored["model.layers.2.self_attn.o_proj.weight"]
    assert np.asarray(llama.params["layers"]["o"])[2, 2, 3, 5] == matrix[5, 2 * 4 + 3]
    gpt2 = load_model(DATA / "gpt2")
    joint = safetensors.numpy.load_file(DATA / "gpt2" / "model.safetensors")[
        "transformer.h.2.attn.c_attn.weight"
    ]
    for part, name in enumerate("qkv"):
        assert np.asarray(gpt2.params["layers"][name])[2, 7, 3, 1] == joint[7, part * 16 + 3 * 4 + 1]


def test_gpt2_without_prefix_and_with_mask_buffers(tmp_path: Path) -> None:
    """The layout of the original upload: bare names, attention masks stored as buffers."""
    folder = copied(tmp_path, "gpt2")
    mask = np.tril(np.ones((1, 1, 24, 24), np.float32))

    def change(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        bare = {name.removeprefix("transformer."): array for name, array in tensors.items()}
        return bare | {f"h.{layer}.attn.bias": mask for layer in range(3)}

    rewrite(folder, change)
    assert load_model(folder).digest() == load_model(DATA / "gpt2").digest()


def test_tied_head_may_be_stored_again_but_not_another_one(tmp_path: Path) -> None:
    folder = copied(tmp_path, "gpt2")
    rewrite(folder, lambda t: {**t, "lm_head.weight": t["transformer.wte.weight"].copy()})
    assert load_model(folder).digest() == load_model(DATA / "gpt2").digest()
    rewrite(folder, lambda t: {**t, "lm_head.weight": t["transformer.wte.weight"] + np.float32(1)})
    with pytest.raises(InputError, match=r"tie_word_embeddings is true, but 'lm_head\.weight' differs"):
        load_model(folder)


@pytest.mark.parametrize("stored", ["float16", "float32"])
@pytest.mark.parametrize("asked", ["bfloat16", "float32"])
def test_dtypes(tmp_path: Path, stored: str, asked: str) -> None:
    folder = copied(tmp_path, "llama_gqa")
    rewrite(folder, lambda t: {name: array.astype(stored) for name, array in t.items()})
    original = load_model(DATA / "llama_gqa")
    for (name, leaf), (_, exact) in zip(
        paths(load_model(folder, dtype=asked).params), paths(original.params), strict=True
    ):
        assert leaf.dtype == jnp.dtype(asked)
        expected = np.asarray(exact).astype(stored).astype(leaf.dtype)
        assert np.array_equal(np.asarray(leaf), expected), name


@pytest.mark.parametrize("name", ["llama_gqa", "gpt2", "gemma2"])
def test_divided_over_a_mesh(name: str) -> None:
    model = load_model(DATA / name)
    mesh = meshes.make(data=4, model=2)
    divided = load_model(DATA / name, mesh=mesh)
    expected = dict(paths(weights.shardings(declare(model.config), mesh)))
    for path, leaf in paths(divided.params):
        assert leaf.sharding == expected[path], path
    assert divided.digest() == model.digest()


def test_divided_over_layers() -> None:
    """Rules may divide the leading axis too: each device then gets its own layers."""
    name = "gpt2_untied_gelu"
    mesh = meshes.make(data=1, model=2)
    rules = Rules().replace(layers="model", heads=None, kv_heads=None, mlp=None, vocab=None)
    divided = load_model(DATA / name, mesh=mesh, rules=rules)
    assert divided.params["layers"]["q"].addressable_shards[0].data.shape == (1, 12, 2, 6)
    assert divided.digest() == load_model(DATA / name).digest()


def test_a_mesh_that_does_not_divide_is_named() -> None:
    with pytest.raises(InputError, match=r"(vocab|kv_heads).* 8"):
        load_model(DATA / "llama_gqa", mesh=meshes.make(data=1, model=8))


def test_shards_are_read_where_the_index_puts_them(tmp_path: Path) -> None:
    folder = copied(tmp_path, SHARDED)
    joined: dict[str, np.ndarray] = {}
    for shard in sorted(folder.glob("*.safetensors")):
        joined |= safetensors.numpy.load_file(shard)
        shard.unlink()
    (folder / "model.safetensors.index.json").unlink()
    safetensors.numpy.save_file(joined, folder / "model.safetensors")
    assert load_model(folder).digest() == load_model(DATA / SHARDED).digest()


def test_fields_are_sorted_without_overlap() -> None:
    """No field is at once decisive and harmless: every one has one place."""
    for family in FAMILIES.values():
        groups = [set(family.fields), set(family.fixed), set(family.harmless), set(COMMON), set(COMMON_FIXED)]
        assert sum(map(len, groups)) == len(set().union(*groups)), family.model_type


def test_what_configs_mean() -> None:
    def config(name: str, **changes: Any) -> Any:
        content = {**json.loads((DATA / name / "config.json").read_text()), **changes}
        return read_config({k: v for k, v in content.items() if v != "absent"}, "config")[1]

    assert config("gemma2", layer_types="absent").windows == (4, 0, 4)
    assert config("gemma2", query_pre_attn_scalar=16).query_scale == 0.25
    assert config("gemma2", tie_word_embeddings=False).tied is False
    assert config("llama_gqa", head_dim="absent").d_head == 4
    assert config("llama_gqa", num_key_value_heads="absent").n_kv_heads == 4
    assert config("llama_gqa", rope_theta="absent").rope_base == 10000.0
    later = {"rope_type": "default", "rope_theta": 5e5}
    assert config("llama_gqa", rope_theta="absent", rope_parameters=later).rope_base == 5e5
    assert config("gpt2", n_inner="absent").d_mlp == 64
    assert config("gpt2", n_ctx=1024, attn_pdrop=0.7).context == 24
    assert config("gpt2", activation_function="relu").activation == "relu"


# Configs as their authors published them, and how many parameters they or their model cards state (of Gemma 3 4B the
# text part, of DeepSeek-V3 and R1 without the layer of multi-token prediction).
PUBLISHED = {path.stem: json.loads(path.read_text()) for path in sorted((HERE / "published").glob("*.json"))}


def test_every_family_has_a_published_config() -> None:
    assert {content["config"]["model_type"] for content in PUBLISHED.values()} == set(FAMILIES)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_have_their_published_sizes(name: str) -> None:
    """Counted twice: as our weights are declared, and as the tensors are stored."""
    content = PUBLISHED[name]
    family, config = read_config(content["config"], name)
    assert config.n_params() == content["parameters"]
    sizes, stored = axis_sizes(config), {}
    for entry in family.tensors(config):
        shape = rearrange.stored_shape(entry.pattern, sizes)
        shape = shape if entry.rows is None else (entry.rows[2], *shape[1:])
        stored |= dict.fromkeys(entry.names(config).values(), math.prod(shape))
    assert sum(stored.values()) == content["parameters"]
    if family.export is not None:
        written = write_config(config, family.model_type)[1]
        assert read_config(written, name)[1] == config
        assert "quantization_config" not in written


def test_what_published_configs_mean() -> None:
    def config(name: str) -> ModelConfig:
        return read_config(PUBLISHED[name]["config"], name)[1]

    r1, lite, oss, phi = (
        config(n) for n in ("DeepSeek-R1", "DeepSeek-V2-Lite", "gpt-oss-20b", "Phi-3-mini-128k-instruct")
    )
    assert r1 == config("DeepSeek-V3") == config("DeepSeek-V3.1")
    assert r1.query_scale == pytest.approx(192**-0.5 * (1 + 0.1 * math.log(40)) ** 2, rel=1e-15)
    assert r1.rope_scaling.size == 1.0 and r1.experts.dense_layers == (0, 1, 2)
    assert lite.latent.q_rank is None and lite.experts.groups == 1 and lite.experts.d_shared == 2816
    assert oss.windows == (128, 0) * 12 and oss.sinks and oss.experts.bias
    assert phi.rope_scaling.size == pytest.approx((1 + math.log(32) / math.log(4096)) ** 0.5, rel=1e-15)
    assert config("gemma-3-4b-it").windows.count(0) == 5 and config("gemma-3-4b-it").vocab_size == 262208
    assert config("Qwen3-8B-FP8") == config("Qwen3-8B")


def later(content: dict[str, Any], outside: tuple[str, ...], **rope: Any) -> dict[str, Any]:
    """A config as transformers 5 writes it: everything about rotary positions in ``rope_parameters``."""
    rest = {
        name: value for name, value in content.items() if name not in (*outside, "rope_scaling", "rope_theta")
    }
    return {**rest, "rope_parameters": rope}


def test_positions_as_later_versions_write_them() -> None:
    def same(name: str, *outside: str, **rope: Any) -> None:
        content = PUBLISHED[name]["config"]
        expected = read_config(content, name)[1]
        assert read_config(later(content, outside, **rope), name)[1] == expected

    same("Qwen3-8B", rope_type="default", rope_theta=1e6)
    same("Llama-3.1-8B", rope_theta=5e5, **PUBLISHED["Llama-3.1-8B"]["config"]["rope_scaling"])
    same(
        "pythia-70m",
        "rotary_pct",
        "rotary_emb_base",
        rope_type="default",
        rope_theta=1e4,
        partial_rotary_factor=0.25,
    )
    phi = PUBLISHED["Phi-4-mini-instruct"]["config"]["rope_scaling"]
    divisors = {"short_factor": phi["short_factor"], "long_factor": phi["long_factor"]}
    inside = {"original_max_position_embeddings": 4096, "partial_rotary_factor": 0.75}
    same("Phi-4-mini-instruct", SHARE, rope_type="longrope", rope_theta=1e4, **divisors, **inside)
    r1 = {**PUBLISHED["DeepSeek-R1"]["config"]["rope_scaling"], "rope_type": "yarn"}
    same("DeepSeek-R1", rope_theta=1e4, **r1)
    window = {"rope_type": "default", "rope_theta": 1e4}
    full = {"rope_type": "default", "rope_theta": 1e6}
    same("gemma-3-1b-it", "rope_local_base_freq", full_attention=full, sliding_attention=window)
    content = PUBLISHED["gemma-3-4b-it"]["config"]
    scaled = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}
    text = later(content["text_config"], (), full_attention=scaled, sliding_attention=window)
    expected = read_config(content, "gemma")[1]
    assert read_config({**content, "text_config": text}, "gemma")[1] == expected
    for rope, words in (
        ({"full_attention": full, "sliding_attention": scaled}, "scales sliding_attention by linear"),
        ({"sliding_attention": {"rope_type": "yarn", "factor": 2.0}}, "scales sliding_attention by yarn"),
        ({"full_attention": full, "chunked_attention": window}, "'chunked_attention'"),
        ({"full_attention": full, "sliding_attention": 3}, "'sliding_attention' = 3"),
        ({"full_attention": {**full, "partial_rotary_factor": 0.5}}, "unknown field 'partial_rotary_factor'"),
    ):
        with pytest.raises(InputError, match=words):
            read_config(later(PUBLISHED["gemma-3-1b-it"]["config"], (), **rope), "gemma")


def test_names_that_deepseek_leaves_out() -> None:
    """The names of the published index: one more layer with experts, and what leads into and out of it."""
    content = PUBLISHED["DeepSeek-R1"]["config"]
    family, config = read_config(content, "config.json")
    names = family.left_out(content, config)
    layer = {name.removeprefix("model.layers.61.") for name in names}
    assert len(names) == len(layer) == 3 * 256 + 3 + 2 + 7 + 2 + 6
    assert {
        "eh_proj.weight", "enorm.weight", "hnorm.weight", "embed_tokens.weight", "shared_head.head.weight",
        "shared_head.norm.weight", "mlp.gate.e_score_correction_bias", "mlp.gate.weight",
        "mlp.experts.255.down_proj.weight", "mlp.shared_experts.up_proj.weight", "self_attn.q_a_layernorm.weight",
        "self_attn.kv_a_proj_with_mqa.weight", "self_attn.kv_b_proj.weight", "input_layernorm.weight",
    } <= layer  # fmt: skip
