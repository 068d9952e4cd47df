"""Quantised checkpoints: the numbers that their codes stand for, and one clear line where they are not understood."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxinterp.checkpoints import convert, dequantise, load_model
from jaxinterp.core.errors import InputError
from jaxinterp.core.trees import paths
from jaxinterp.models import forward
from jaxinterp.parallel import mesh as meshes
from jaxinterp.parallel.rules import Rules
from tests.checkpoints import quantised_folders as folders
from tests.checkpoints.quantised_folders import refused
from tests.references import quantised_cases, stored

GOLDEN = Path(__file__).parent.parent / "references" / "data" / "quantised"
FLOAT32, BFLOAT16 = np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16)
DEEPSEEK = "deepseek_v3_groups"
GATE = "model.layers.1.mlp.experts.3.gate_proj.weight"
UP = "model.layers.1.mlp.experts.gate_up_proj"


# Numbers --------------------------------------------------------------------------------------------


def test_tensors_agree_with_pytorch_and_transformers() -> None:
    with np.load(GOLDEN / "tensors.npz") as golden:
        found = dequantise.mxfp4(golden["mxfp4_blocks"], golden["mxfp4_scales"], FLOAT32, "here")
        assert found.tobytes() == np.swapaxes(golden["mxfp4_numbers"], 1, 2).tobytes()
        every = np.arange(256, dtype=np.uint8)[None, :]
        ones, valid = np.ones((1, 1), np.float32), (every & 127) != 127
        table = dequantise.fp8(np.where(valid, every, 0), ones, (1, 256), FLOAT32, "here")
        assert np.array_equal(table[valid], golden["e4m3"][valid[0]])
        assert np.isnan(golden["e4m3"][~valid[0]]).all()
        found = dequantise.fp8(golden["fp8_codes"], golden["fp8_factors"], (3, 4), FLOAT32, "here")
        assert found.tobytes() == golden["fp8_numbers"].tobytes()
        found = dequantise.fp8(golden["fp8_codes"], golden["fp8_factors"], (3, 4), BFLOAT16, "here")
        assert found.tobytes() == golden["fp8_bfloat16"].tobytes()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 12), st.integers(1, 12), st.integers(0, 5))
def test_fp8_in_any_blocks(rows: int, columns: int, high: int, wide: int, seed: int) -> None:
    codes, factors = quantised_cases.fp8(seed, "any", (rows, columns), (high, wide))
    found = dequantise.fp8(codes, factors, (high, wide), FLOAT32, "here")
    assert np.array_equal(found, folders.decode(codes, factors, (high, wide)))


def test_every_number_of_mxfp4_is_exact() -> None:
    """All codes under all scales, in float64; bfloat16 and float32 hold each but those beyond their range."""
    codes = np.tile(np.arange(16, dtype=np.uint8), (255, 1))
    magnitude = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])[codes & 7]
    exact = np.where(codes & 8, -1.0, 1.0) * np.ldexp(magnitude, np.arange(255)[:, None] - 127)
    fits = np.abs(exact) < 2.0**128
    # Of both signs, 2, 3, 4 and 6 times 2^127 do not, nor do 4 and 6 times 2^126.
    assert (~fits).sum() == 12
    blocks = np.zeros((255, 1, 16), np.uint8)
    scales = np.arange(255, dtype=np.uint8)[:, None]
    blocks[:, 0, :8] = codes[:, ::2] | codes[:, 1::2] << 4
    for scale in (253, 254):
        with pytest.raises(InputError, match="here holds numbers that are not finite"):
            dequantise.mxfp4(blocks[scale], scales[scale], FLOAT32, "here")
    codes, exact = np.where(fits, codes, 0), np.where(fits, exact, 0)
    blocks[:, 0, :8] = codes[:, ::2] | codes[:, 1::2] << 4
    for dtype in (FLOAT32, BFLOAT16):
        found = dequantise.mxfp4(blocks, scales, dtype, "here")[:, :16]
        assert found.dtype == dtype
        assert np.array_equal(found.astype(np.float64), exact)
        assert np.array_equal(np.signbit(found.astype(np.float64)), np.signbit(exact))


# Models ---------------------------------------------------------------------------------------------


def test_gpt_oss_agrees_with_transformers(tmp_path: Path) -> None:
    model = load_model(folders.gpt_oss(tmp_path / "m"))
    with np.load(GOLDEN / "gpt_oss.npz") as golden:
        logits = np.asarray(forward(model.params, model.config, jnp.asarray(golden["tokens"]))[0])
        assert np.abs(logits - golden["logits"]).max() <= 1e-5 * np.abs(golden["logits"]).max()
    # bfloat16 holds every number of these files.
    half = load_model(tmp_path / "m", dtype="bfloat16")
    for (name, leaf), (_, exact) in zip(paths(half.params), paths(model.params), strict=True):
        assert leaf.dtype == jnp.bfloat16 and np.array_equal(np.asarray(leaf).astype(FLOAT32), exact), name


@pytest.mark.parametrize(
    ("name", "block"),
    [
        (DEEPSEEK, (128, 128)),
        (DEEPSEEK, (5, 8)),
        ("deepseek_v2_groups", (7, 3)),
        ("phi3_gqa_partial", (8, 16)),
    ],
)
def test_fp8_models_hold_what_their_blocks_say(tmp_path: Path, name: str, block: tuple[int, int]) -> None:
    """The same parameters as from a folder with the numbers themselves, which are worked out entry by entry."""
    numbers = folders.fp8_case(tmp_path / "fp8", name, block)
    assert sum(array.dtype == np.float32 for array in numbers.values()) == len(numbers)
    plain = {key: ("F32", array) for key, array in numbers.items()}
    folders.write(tmp_path / "plain", stored.case(name).config, plain)
    found, expected = load_model(tmp_path / "fp8"), load_model(tmp_path / "plain")
    assert found.config == expected.config and found.digest() == expected.digest()
    half = load_model(tmp_path / "fp8", dtype="bfloat16")
    assert half.digest() == expected.astype("bfloat16").digest()
    assert found.digest() != load_model(stored.write_folder(name, tmp_path / "original")).digest()


def test_factors_may_be_bfloat16_and_in_another_shard(tmp_path: Path) -> None:
    numbers = folders.fp8_case(tmp_path / "one", DEEPSEEK, (8, 8))
    expected = load_model(tmp_path / "one")
    tensors: dict[str, Any] = {}

    def keep(stored_tensors: dict[str, Any]) -> None:
        tensors.update(stored_tensors)

    folders.fp8_case(tmp_path / "one", DEEPSEEK, (8, 8), change=keep)
    scales = {name: value for name, value in tensors.items() if name.endswith("_scale_inv")}
    rest = {name: value for name, value in tensors.items() if name not in scales}
    folder = tmp_path / "two"
    folder.mkdir()
    (folder / "config.json").write_bytes((tmp_path / "one" / "config.json").read_bytes())
    files = {"a.safetensors": rest, "b.safetensors": scales}
    for file, inside in files.items():
        quantised_cases.write_safetensors(folder / file, inside)
    place = {name: file for file, inside in files.items() for name in inside}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": place}))
    assert load_model(folder).digest() == expected.digest()
    # Rounded factors are others: the numbers change by at most that rounding, and are its exact products.
    half = {name: quantised_cases.bfloat16(value) for name, (_, value) in scales.items()}
    quantised_cases.write_safetensors(folder / "b.safetensors", half)
    leaf = np.asarray(load_model(folder).params["experts"]["gate"][0, 3]).T
    factors = (half[f"{GATE}_scale_inv"][1].astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(leaf, folders.decode(tensors[GATE][1], factors, (8, 8)))
    assert np.abs(leaf - numbers[GATE]).max() <= 2.0**-8 * np.abs(numbers[GATE]).max()


def test_divided_over_a_mesh(tmp_path: Path) -> None:
    mesh, rules = meshes.make(data=4, model=2), Rules().replace(vocab=None)
    folders.fp8_case(tmp_path / "fp8", DEEPSEEK)
    folders.gpt_oss(tmp_path / "mxfp4")
    for name in ("fp8", "mxfp4"):
        divided = load_model(tmp_path / name, mesh=mesh, rules=rules)
        gate = divided.params["experts"]["gate"]
        assert {shard.data.shape[1] for shard in gate.addressable_shards} == {gate.shape[1] // 2}
        assert divided.digest() == load_model(tmp_path / name).digest()


def test_written_without_codes(tmp_path: Path) -> None:
    """A quantised model is exported as numbers, in a dtype that holds them, and says nothing of codes."""
    folders.gpt_oss(tmp_path / "a")
    folders.fp8_case(tmp_path / "b", DEEPSEEK)
    for name, dtype in (("a", "bfloat16"), ("b", "float32")):
        out = tmp_path / f"{name}_out"
        facts = convert(tmp_path / name, out, "huggingface")
        content = json.loads((out / "config.json").read_text())
        assert facts["dtype"] == content["torch_dtype"] == dtype
        assert "quantization_config" not in content
        assert load_model(out).digest() == load_model(tmp_path / name).digest()


def test_listed_modules_stay_as_they_are(tmp_path: Path) -> None:
    """A list that names what is stored as numbers changes nothing, whole names and patterns alike."""
    folders.fp8_case(tmp_path / "a", DEEPSEEK)
    listed = [
        "lm_head",
        "model.layers.*.mlp.gate",
        "model.layers.0.input_layernorm",
        "model.layers.1.mlp.experts.30",
    ]
    quantisation = {**folders.FP8, "weight_block_size": [5, 8], "modules_to_not_convert": listed}
    folders.fp8_case(tmp_path / "b", DEEPSEEK, quantization_config=quantisation)
    assert load_model(tmp_path / "b").digest() == load_model(tmp_path / "a").digest()


# The layers of multi-token prediction ---------------------------------------------------------------


def with_further_layer(tensors: dict[str, Any], layer: int = 3) -> dict[str, Any]:
    """The tensors with a layer after the last one, as the published DeepSeek-V3 has it: fp8 and all."""
    last, after = f"model.layers.{layer - 1}.", f"model.layers.{layer}."
    more = {after + name.removeprefix(last): v for name, v in tensors.items() if name.startswith(last)}
    ones = ("F32", np.ones((16, 16), np.float32))
    for part in ("embed_tokens", "enorm", "hnorm", "eh_proj", "shared_head.norm", "shared_head.head"):
        more[f"{after}{part}.weight"] = ones
    return {**tensors, **more}


def test_layers_of_multi_token_prediction_are_left_out(tmp_path: Path) -> None:
    folders.fp8_case(tmp_path / "without", DEEPSEEK)
    expected = load_model(tmp_path / "without")
    folders.fp8_case(tmp_path / "with", DEEPSEEK, change=with_further_layer, num_nextn_predict_layers=1)
    found = load_model(tmp_path / "with")
    assert found.config == expected.config and found.digest() == expected.digest()
    # The config may announce them where the files have them no more.
    folders.fp8_case(tmp_path / "none", DEEPSEEK, num_nextn_predict_layers=1)
    assert load_model(tmp_path / "none").digest() == expected.digest()


@pytest.mark.parametrize(
    ("announced", "further", "words"),
    [
        (0, {}, ("unexpected tensor 'model.layers.3.",)),
        (None, {}, ("unexpected tensor 'model.layers.3.",)),
        (1, {"model.layers.4.enorm.weight": "again"}, ("unexpected", "model.layers.4.enorm.weight")),
        (1, {"model.layers.3.fnorm.weight": "again"}, ("unexpected", "model.layers.3.fnorm.weight")),
        (1, {"model.layers.2.enorm.weight": "again"}, ("unexpected", "model.layers.2.enorm.weight")),
        ("1", {}, ("num_nextn_predict_layers", "'1'", "whole number")),
        (-1, {}, ("num_nextn_predict_layers", "-1", "whole number")),
    ],
)
def test_only_announced_layers_are_left_out(
    tmp_path: Path, announced: Any, further: dict[str, str], words: tuple[str, ...]
) -> None:
    def change(tensors: dict[str, Any]) -> dict[str, Any]:
        longer = with_further_layer(tensors)
        return {**longer, **dict.fromkeys(further, longer["model.layers.3.enorm.weight"])}

    folders.fp8_case(tmp_path, DEEPSEEK, change=change, num_nextn_predict_layers=announced)
    refused(tmp_path, *words)
