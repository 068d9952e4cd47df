"""Models written for other programs: the same bytes, the same meaning, or a refusal that names what does not fit."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxinterp.checkpoints import convert, export_huggingface, load_model, read_tokenizer_json
from jaxinterp.checkpoints.export_config import meaning, write_config
from jaxinterp.checkpoints.export_pairs import with_pairs
from jaxinterp.checkpoints.export_tensors import build, plan
from jaxinterp.checkpoints.families import FAMILIES
from jaxinterp.checkpoints.families.base import inverse_root
from jaxinterp.checkpoints.families.phi3 import rope_share
from jaxinterp.checkpoints.huggingface import axis_sizes, read_config
from jaxinterp.core.errors import InputError
from jaxinterp.core.trees import paths
from jaxinterp.models import forward
from jaxinterp.models.experts import Experts
from jaxinterp.models.rotary import RopeScaling
from jaxinterp.parallel import mesh as meshes
from tests.references import stored
from tests.support import ROOT, tiny_config, tiny_model

TOKENIZERS = ROOT / "tests" / "references" / "data" / "tokenizers"
WRITTEN = tuple(
    name
    for name in stored.names()
    if (family := FAMILIES.get(stored.case(name).family)) is not None and family.export is not None
)


def tensors_of(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of a folder, read by the format's own library."""
    found: dict[str, np.ndarray] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= safetensors.numpy.load_file(file)
    return found


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        same = (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert same and found[name].tobytes() == array.tobytes(), name


def test_most_families_are_written() -> None:
    assert len(WRITTEN) >= 55
    assert {
        "gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "olmo2", "deepseek_v2",
        "deepseek_v3",
    } <= {stored.case(name).family for name in WRITTEN}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_every_tensor_and_the_config_come_back(tmp_path: Path, name: str) -> None:
    case = stored.case(name)
    model = load_model(stored.write_folder(case, tmp_path / "in"))
    assert export_huggingface(model, tmp_path / "out", family=case.family) == case.family
    assert_same(tensors_of(tmp_path / "out"), case.tensors())
    again = load_model(tmp_path / "out")
    assert again.config == model.config
    for dtype in ("bfloat16", "float16") if name.endswith("_tied") else ("bfloat16",):
        half = {key: value.astype(dtype) for key, value in case.tensors().items()}
        (tmp_path / "half").mkdir(exist_ok=True)
        (tmp_path / "half" / "config.json").write_bytes((tmp_path / "in" / "config.json").read_bytes())
        safetensors.numpy.save_file(half, tmp_path / "half" / "model.safetensors")
        convert(tmp_path / "half", tmp_path / dtype, "huggingface")
        assert_same(tensors_of(tmp_path / dtype), half)
        written = json.loads((tmp_path / dtype / "config.json").read_text())
        assert (written["model_type"], written["torch_dtype"]) == (case.family, dtype)


@pytest.mark.parametrize("name", WRITTEN)
def test_without_a_family_one_that_means_the_same_is_found(name: str) -> None:
    case = stored.case(name)
    config = read_config(case.config, name)[1]
    family, content = write_config(config)
    assert read_config(content, "again")[1] == config
    assert write_config(config, case.family)[1]["architectures"] == case.config["architectures"]
    if any(config.windows) or config.qk_norm or config.norm == "layer" or config.norm_unit_offset:
        assert family.model_type not in ("llama", "olmo2" if config.pre_norms else "llama")


def test_of_a_model_of_several_parts_the_text_part_is_written(tmp_path: Path) -> None:
    case = stored.case("gemma3_multimodal_text")
    stored.write_folder(case, tmp_path / "in")
    facts = convert(tmp_path / "in", tmp_path / "out", "huggingface")
    assert facts["family"] == "gemma3_text"
    found = tensors_of(tmp_path / "out")
    text = {name: array.tobytes() for name, array in case.tensors().items() if "language_model" in name}
    assert len(text) >= 10
    assert sorted(array.tobytes() for array in found.values()) == sorted(text.values())
    assert load_model(tmp_path / "out").digest() == load_model(tmp_path / "in").digest()


def test_shards(tmp_path: Path) -> None:
    case = stored.case("phi3_gqa_partial")
    model = load_model(stored.write_folder(case, tmp_path / "in"))
    limit = 20_000
    export_huggingface(model, tmp_path / "out", family="phi3", max_shard_bytes=limit)
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 3
    assert files == [f"model-{i:05d}-of-{len(files):05d}.safetensors" for i in range(1, len(files) + 1)]
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(a.nbytes for a in case.tensors().values())
    for file in files:
        inside = safetensors.numpy.load_file(tmp_path / "out" / file)
        assert len(inside) == 1 or sum(a.nbytes for a in inside.values()) <= limit
        assert all(index["weight_map"][name] == file for name in inside)
    assert_same(tensors_of(tmp_path / "out"), case.tensors())
    assert load_model(tmp_path / "out").digest() == model.digest()


def test_a_host_holds_one_tensor(tmp_path: Path) -> None:
    """Of a stack of layers only the slice that a tensor needs is asked for, and each once."""
    model = load_model(stored.write_folder("phi3_mha", tmp_path / "in"))

    class Watched:
        def __init__(self, array: Any) -> None:
            self.array, self.asked = np.asarray(array), []

        def __getitem__(self, place: tuple[int, ...]) -> np.ndarray:
            self.asked.append(place)
            return self.array[place]

        def __array__(self, *_: Any, **__: Any) -> np.ndarray:
            self.asked.append(())
            return self.array

    leaves = {name: Watched(leaf) for name, leaf in paths(model.params)}
    sizes, table = axis_sizes(model.config), FAMILIES["phi3"].tensors(model.config)
    planned = plan(table, model.config, sizes, lambda name: np.dtype(np.float32))
    assert not any(leaf.asked for leaf in leaves.values())
    for tensor in planned:
        before = sum(len(leaf.asked) for leaf in leaves.values())
        assert build(tensor, leaves, sizes).shape == tensor.shape
        assert sum(len(leaf.asked) for leaf in leaves.values()) - before == len(tensor.parts) <= 3
    every = [(layer,) for layer in range(model.config.n_layers)]
    for name, leaf in leaves.items():
        assert leaf.asked == (every if name.startswith("layers.") else [()]), name


def test_a_model_on_a_mesh_is_written_alike(tmp_path: Path) -> None:
    stored.write_folder("phi3_gqa_partial", tmp_path / "in")
    model = load_model(tmp_path / "in", mesh=meshes.make(data=4, model=2))
    export_huggingface(model, tmp_path / "out", family="phi3")
    assert_same(tensors_of(tmp_path / "out"), stored.case("phi3_gqa_partial").tensors())


def test_parts_of_different_dtypes_share_a_tensor(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    model.params["layers"]["q"] = model.params["layers"]["q"].astype("bfloat16")
    export_huggingface(model, tmp_path / "out")
    again = load_model(tmp_path / "out")
    assert again.params["layers"]["q"].dtype == jnp.float32
    assert again.digest() == model.astype("float32").digest()
    assert "torch_dtype" in json.loads((tmp_path / "out" / "config.json").read_text())


def test_the_config_says_what_the_files_hold(tmp_path: Path) -> None:
    """One dtype is named; of several, which the reference has no word for, none is."""
    model = load_model(stored.write_folder("deepseek_v3_groups", tmp_path / "in"))
    mixed = model.astype("bfloat16")
    mixed.params["experts"]["correction"] = model.params["experts"]["correction"]
    export_huggingface(mixed, tmp_path / "mixed")
    export_huggingface(mixed, tmp_path / "one", dtype="bfloat16")
    found = {name: array.dtype.name for name, array in tensors_of(tmp_path / "mixed").items()}
    assert {name for name, dtype in found.items() if dtype == "float32"} == {
        f"model.layers.{layer}.mlp.gate.e_score_correction_bias" for layer in (1, 2)
    }
    assert set(found.values()) == {"float32", "bfloat16"}
    assert "torch_dtype" not in json.loads((tmp_path / "mixed" / "config.json").read_text())
    assert {array.dtype.name for array in tensors_of(tmp_path / "one").values()} == {"bfloat16"}
    assert json.loads((tmp_path / "one" / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_float64_needs_a_dtype(tmp_path: Path) -> None:
    with jax.enable_x64(True):
        model = tiny_model("llama", dtype="float64")
        with pytest.raises(
            InputError, match=r"float16, bfloat16, float32, not the float64 of 'embed\.tokens'"
        ):
            export_huggingface(model, tmp_path / "out")
        assert list(tmp_path.iterdir()) == []
        export_huggingface(model, tmp_path / "out", dtype="bfloat16")
    assert {a.dtype for a in tensors_of(tmp_path / "out").values()} == {np.dtype(ml_dtypes.bfloat16)}


def test_the_tokenizer_goes_along(tmp_path: Path) -> None:
    tokenizer = read_tokenizer_json(TOKENIZERS / "byte_level" / "tokenizer.json")
    model = dataclasses.replace(tiny_model("llama", vocab_size=400), tokenizer=tokenizer)
    export_huggingface(model, tmp_path / "out")
    assert load_model(tmp_path / "out").tokenizer == tokenizer
    content = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (content["bos_token_id"], content["eos_token_id"]) == (tokenizer.bos, tokenizer.eos)


@pytest.mark.parametrize(
    ("family", "changes", "said"),
    [
        ("llama", {"norm": "layer"}, "norm 'layer', only 'rms'"),
        ("llama", {"activation": "gelu", "windows": (4, 4, 4)}, r"windows \(4, 4, 4\), only \(\)"),
        ("llama", {"out_bias": True}, "out_bias True, only False"),
        ("mistral", {"windows": (4, 0, 4)}, r"windows \(4, 0, 4\), only \(4, 4, 4\)"),
        ("mistral", {"final_softcap": 3.0}, "final_softcap 3.0, only None"),
        ("qwen2", {"qk_norm": "head"}, "qk_norm 'head', only None"),
        ("qwen3", {"windows": (4, 8, 0), "qk_norm": "head"}, r"windows \(4, 8, 0\), only \(8, 8, 0\)"),
        ("gemma", {"norm_unit_offset": True, "embed_scale": 2.0}, "embed_scale 2.0, only 4.0"),
        ("gemma2", {"norm_unit_offset": True}, "post_norms False, only True"),
        ("gpt2", {}, "n_kv_heads 2, only 4"),
        ("gpt2", {"n_kv_heads": 4}, "norm 'rms', only 'layer'"),
        ("gpt_neox", {"norm": "layer", "gated": False}, "n_kv_heads 2, only 4"),
        ("phi3", {"rope_pairs": "adjacent", "d_head": 6}, None),
        ("olmo2", {"d_head": 6}, "d_head 6, only 4"),
        ("llama", {"rope_scaling": RopeScaling("linear", 2.0, size=1.5)}, "rope_scaling RopeScaling"),
        ("gemma3_text", {"rope_scaling": RopeScaling("linear", 2.0)}, "norm_unit_offset False, only True"),
        ("llama", {"sinks": True}, "sinks True, only False"),
        ("mixtral", {}, r"experts None, only Experts\(n=1"),
        ("llama", {"experts": Experts(n=4, active=2, d_expert=24)}, r"experts Experts\(n=4.*, only None"),
    ],
)
def test_what_a_family_cannot_say_is_named(
    tmp_path: Path, family: str, changes: dict[str, Any], said: str | None
) -> None:
    model = tiny_model("llama", **changes)
    if said is None:
        # Pairs of neighbours are another order of the same numbers: written, not refused.
        assert export_huggingface(model, tmp_path / "out", family=family) == family
        return
    with pytest.raises(InputError, match=f"this model does not fit its family: {family}, .*{said}"):
        export_huggingface(model, tmp_path / "out", family=family)
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_no_family_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        InputError, match=r"no Hugging Face family .* nearest is llama, .* gated False, only True"
    ):
        write_config(tiny_config("llama", gated=False))
    with pytest.raises(InputError, match=r"'gemma3' is only read .*written are .*gemma3_text, .*llama"):
        write_config(tiny_config("llama"), "gemma3")
    with pytest.raises(InputError, match=r"'lama' is no family that is known \(did you mean .*llama"):
        write_config(tiny_config("llama"), "lama")


def test_two_ways_of_saying_the_same_are_one() -> None:
    plain = tiny_config("llama")
    spelled = tiny_config("llama", query_scale=0.5, windows=(0, 0, 0), rope_width=4, rope_local_base=30.0)
    assert spelled != plain and meaning(spelled) == meaning(plain)
    assert write_config(spelled, "llama")[1] == write_config(plain, "llama")[1]
    learned = tiny_config("gpt2")
    assert meaning(dataclasses.replace(learned, rope_base=7.0)) == meaning(learned)
    assert meaning(dataclasses.replace(plain, rope_base=7.0)) != meaning(plain)
    experts = Experts(n=4, active=2, d_expert=6)
    assert write_config(tiny_config("llama", experts=experts))[0].model_type == "mixtral"
    some = dataclasses.replace(experts, dense_layers=(1,))
    assert meaning(tiny_config("llama", experts=some)).d_mlp == plain.d_mlp
    with pytest.raises(InputError, match="qwen3_moe, which cannot have qk_norm None, only 'head'"):
        write_config(tiny_config("llama", experts=some), "qwen3_moe")


@pytest.mark.parametrize("changes", [{}, {"sizes": 1.3}, {"truncate": False}])
def test_yarn_and_longrope_keep_their_size(changes: dict[str, Any]) -> None:
    size = changes.pop("sizes", None)
    derived = 0.1 * np.log(4.0) + 1.0 if size is None else size
    yarn = RopeScaling("yarn", 4.0, 8, size=float(derived), **changes)
    config = tiny_config("llama", rope_scaling=yarn)
    content = write_config(config, "llama")[1]
    assert ("attention_factor" in content["rope_scaling"]) == (size is not None)
    assert read_config(content, "again")[1] == config
    if not changes:
        long = RopeScaling("longrope", original_context=8, short=(1.0, 2.0), long=(3.0, 4.5), size=derived)
        config = tiny_config("llama", rope_scaling=long)
        for family in ("llama", "phi3"):
            assert read_config(write_config(config, family)[1], "again")[1] == config


@settings(max_examples=200, deadline=None)
@given(st.floats(1e-3, 1e3))
def test_the_scale_of_scores_comes_back_to_the_last_bit(scale: float) -> None:
    assert float(inverse_root(scale)) ** -0.5 == scale


DEEPSEEK: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "pairs": ("deepseek_v2_lite", {"rope_pairs": "half"}, {}, "rope_pairs 'half', only 'adjacent'"),
    "scale of scores": ("deepseek_v3_groups", {"query_scale": 0.5}, {}, "query_scale 0.5, only 0.28"),
    "smaller scores": ("deepseek_v3_yarn_long", {"query_scale": 0.01}, {}, "query_scale 0.01, only 0.25"),
    "bias": ("deepseek_v2_groups", {"out_bias": False}, {}, "out_bias False, only True"),
    "no experts": ("deepseek_v3_groups", {"experts": None}, {}, r"experts None, only Experts\(n=1"),
    "no latent": ("deepseek_v3_groups", {"latent": None}, {}, "latent None, only Latent"),
    "scores": ("deepseek_v3_groups", {}, {"score": "softmax"}, "experts Experts"),
    "correction": ("deepseek_v2_lite", {}, {"correction": True}, "experts Experts"),
    "dense layers": ("deepseek_v3_groups", {}, {"dense_layers": (1,)}, "experts Experts"),
    "shared width": ("deepseek_v3_groups", {}, {"d_shared": 12}, "experts Experts"),
    "normalised": ("deepseek_v2_lite", {}, {"normalise": True}, "experts Experts"),
}


@pytest.mark.parametrize("what", DEEPSEEK)
def test_what_deepseek_cannot_say_is_named(what: str) -> None:
    name, changes, experts, said = DEEPSEEK[what]
    case = stored.case(name)
    config = read_config(case.config, name)[1]
    assert config.experts is not None
    if experts:
        changes = {**changes, "experts": dataclasses.replace(config.experts, **experts)}
    with pytest.raises(InputError, match=rf"does not fit its family: {case.family}, .*cannot have {said}"):
        write_config(config.replace(**changes), case.family)


@settings(max_examples=100, deadline=None)
@given(
    st.floats(1.0, 64.0, exclude_min=True),
    st.one_of(st.none(), st.integers(1, 2000).map(lambda n: n / 1000), st.floats(0.01, 3.0)),
    st.one_of(st.none(), st.integers(1, 2000).map(lambda n: n / 1000), st.floats(0.01, 3.0)),
)
def test_scales_of_deepseek_come_back_to_the_last_bit(
    factor: float, mscale: float | None, every: float | None
) -> None:
    content = {**stored.case("deepseek_v3_yarn_long").config}
    weights = {"mscale": mscale, "mscale_all_dim": every}
    content["rope_scaling"] = {
        "type": "yarn", "factor": factor, "original_max_position_embeddings": 10,
        **{name: weight for name, weight in weights.items() if weight is not None},
    }  # fmt: skip
    config = read_config(content, "config")[1]
    written = write_config(config, "deepseek_v3")[1]
    assert meaning(read_config(written, "again")[1]) == meaning(config)


@given(st.integers(1, 5000))
def test_a_whole_number_stays_whole(number: int) -> None:
    found = inverse_root(number**-0.5)
    assert isinstance(found, int) and float(found) ** -0.5 == number**-0.5


def test_every_share_of_a_head_comes_back() -> None:
    for d_head in range(2, 300):
        for width in range(2, d_head + 1, 2):
            config = tiny_config("llama", d_head=d_head, rope_width=width)
            assert int(d_head * rope_share(config)) == width


@pytest.mark.parametrize(
    "changes", [{}, {"qk_norm": "head", "qkv_bias": True}, {"qk_norm": "heads", "rope_width": 4, "d_head": 6}]
)
def test_other_pairs_are_the_same_model(changes: dict[str, Any]) -> None:
    with jax.enable_x64(True):
        model = tiny_model("llama", dtype="float64", rope_pairs="adjacent", **changes)
        other = with_pairs(model, "half")
        tokens = jnp.asarray([[3, 1, 4, 1, 5, 9, 2, 6, 5, 3]])
        logits = [np.asarray(forward(m.params, m.config, tokens)[0]) for m in (model, other)]
        assert np.abs(logits[0] - logits[1]).max() <= 1e-12 * np.abs(logits[0]).max()
        wrong = forward(model.params, other.config, tokens)[0]
        assert np.abs(logits[0] - np.asarray(wrong)).max() > 1e-3
        assert with_pairs(other, "adjacent").digest() == model.digest()
    assert with_pairs(model, "adjacent") is model


def test_too_large_a_number_leaves_nothing(tmp_path: Path) -> None:
    model = tiny_model("llama")
    model.params["layers"]["down"] = model.params["layers"]["down"].at[2, 0, 0].set(1e6)
    with pytest.raises(InputError, match=r"layers\.down.*1e\+06, too large for float16"):
        export_huggingface(model, tmp_path / "out", dtype="float16", max_shard_bytes=3000)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(tmp_path: Path) -> None:
    model = tiny_model("llama")
    (tmp_path / "empty").mkdir()
    export_huggingface(model, tmp_path / "empty")
    with pytest.raises(
        InputError, match=r"the folder is in the way, it holds config\.json, model\.safetensors"
    ):
        export_huggingface(model, tmp_path / "empty")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="a file is in the way"):
        export_huggingface(model, tmp_path / "file")
    with pytest.raises(InputError, match="max_shard_bytes is 0"):
        export_huggingface(model, tmp_path / "new", max_shard_bytes=0)
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]
