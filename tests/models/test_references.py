"""The plain NumPy forward passes against the outputs of transformers that are stored.

These tests do not run the library: they say that its references can be trusted, and that each of the things
in which families differ is seen by some of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from tests.references import family_cases, seeded, stored
from tests.references.numpy_decoder import Output, deepseek, forward, mlps
from tests.support import ROOT

NAMES = stored.names()
DYNAMIC_TANH = stored.names(dynamic_tanh=True)
OLDER = ROOT / "tests" / "references" / "data"


def difference(ours: np.ndarray, reference: np.ndarray) -> float:
    """The largest difference in units of the largest entry of the reference."""
    assert ours.shape == reference.shape
    return float(np.max(np.abs(ours - reference)) / np.max(np.abs(reference)))


def run(
    case: stored.Case, config: dict[str, Any] | None = None, tensors: dict[str, np.ndarray] | None = None
) -> Output:
    return forward(
        case.config if config is None else config,
        case.tensors() if tensors is None else tensors,
        case.reference()["tokens"],
    )


@pytest.mark.parametrize("name", NAMES + DYNAMIC_TANH)
def test_numpy_agrees_with_transformers(name: str) -> None:
    case = stored.case(name)
    ours, reference = run(case), case.reference()
    assert ours.logits.dtype == ours.residuals.dtype == np.float64
    assert reference["logits"].dtype == reference["residuals"].dtype == np.float32
    assert difference(ours.logits, reference["logits"]) < 1e-5
    for layer, residual in enumerate(reference["residuals"]):
        assert difference(ours.residuals[layer], residual) < 1e-5, layer
    # Closer than that, the rounding of float32 could have chosen another expert.
    assert ours.router_margin > 5e-4


@pytest.mark.parametrize("name", NAMES + DYNAMIC_TANH)
def test_outputs_belong_to_the_seed(name: str) -> None:
    case, definition = stored.case(name), family_cases.CASES[name]
    assert seeded.digest(case.tensors()) == case.digest
    assert (case.family, case.gain, case.scale) == (definition.family, definition.gain, definition.scale)
    assert case.seed == family_cases.seed(name)
    config = case.config.get("text_config", case.config)
    expected = seeded.prompts(case.seed, definition.batch, definition.length, config["vocab_size"])
    assert np.array_equal(case.reference()["tokens"], expected)


def test_every_case_is_stored_with_its_seed() -> None:
    record = json.loads((stored.FAMILIES / "provenance.json").read_text())
    assert record["cases"] == {name: family_cases.seed(name) for name in family_cases.CASES}
    assert sorted(NAMES + DYNAMIC_TANH) == sorted(family_cases.CASES)
    for part in ("torch", "transformers", "numpy"):
        assert record[part]


def test_the_generator_is_as_defined() -> None:
    """PCG64 (XSL-RR 128/64) by its definition, so that the weights do not depend on NumPy's version."""
    modulus, multiplier = 1 << 128, 0x2360ED051FC65DA44385DF649FCCF645
    generator = np.random.PCG64(0)
    state = generator.state
    state["state"] = {"state": 12345, "inc": 67891}
    generator.state = state
    expected, current = [], 12345
    for _ in range(5):
        current = (current * multiplier + 67891) % modulus
        mixed, turn = (current >> 64) ^ (current & (2**64 - 1)), current >> 122
        expected.append(((mixed >> turn) | (mixed << (64 - turn))) & (2**64 - 1))
    assert generator.random_raw(5).tolist() == expected
    assert seeded.bits(1, "a", 3).tolist() == seeded.bits(1, "a", 5).tolist()[:3]
    assert seeded.bits(1, "a", 3).tolist() != seeded.bits(1, "b", 3).tolist()


def test_coverage_of_sizes() -> None:
    """At least three cases a family; the kinds of heads, tying and long prompts that each allows."""
    families = {stored.case(name).family for name in NAMES}
    assert families >= {
        "gpt2", "gpt_neox", "llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma", "gemma2",
        "gemma3_text", "phi3", "olmo2", "gpt_oss", "deepseek_v2", "deepseek_v3",
    }  # fmt: skip
    for family in families - {"gemma3"}:
        cases = [stored.case(name) for name in stored.names(family)]
        assert len(cases) >= 3, family
        tied = {not {"lm_head.weight", "embed_out.weight"} & set(c.shapes) for c in cases}
        assert tied == {True, False}, family
        if family in ("gpt2", "gpt_neox", "deepseek_v2", "deepseek_v3"):
            continue
        shared = {
            "mqa" if c.config["num_key_value_heads"] == 1
            else "mha" if c.config["num_key_value_heads"] == c.config["num_attention_heads"]
            else "gqa"
            for c in cases
        }  # fmt: skip
        assert shared == {"mqa", "mha", "gqa"}, family
        for each in cases:
            window = each.config.get("sliding_window")
            assert window is None or each.reference()["tokens"].shape[1] > window


# What a config says, and a case whose numbers must depend on it.
CONFIG_CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("gpt2_relu_unscaled", {"scale_attn_weights": True}),
    ("gpt2_odd_head_full_context", {"layer_norm_epsilon": 1e-5}),
    ("gpt_neox_parallel", {"use_parallel_residual": False}),
    ("gpt_neox_parallel", {"rotary_pct": 1.0}),
    ("gpt_neox_serial_tied", {"rotary_emb_base": 10000}),
    ("mistral_gqa_window", {"sliding_window": None}),
    ("mistral_gqa_window", {"sliding_window": 5}),
    ("mixtral_mha_window_tied", {"sliding_window": None}),
    ("mixtral_gqa", {"num_experts_per_tok": 1}),
    ("qwen2_mqa_window", {"layer_types": ["full_attention"] * 3}),
    ("qwen2_mqa_window", {"layer_types": ["sliding_attention"] * 3}),
    ("qwen3_mqa_bias_window_tied", {"layer_types": ["full_attention"] * 3}),
    ("qwen3_moe_gqa", {"norm_topk_prob": False}),
    ("qwen3_moe_mha_some_dense", {"norm_topk_prob": True}),
    ("qwen3_moe_mqa_window_tied", {"sliding_window": None}),
    ("gemma2_gqa", {"attn_logit_softcapping": None}),
    ("gemma2_gqa", {"final_logit_softcapping": None}),
    ("gemma2_gqa", {"query_pre_attn_scalar": 6}),
    ("gemma2_gqa", {"layer_types": ["full_attention"] * 3}),
    ("gemma3_gqa", {"rope_local_base_freq": 1000.0}),
    ("gemma3_gqa", {"rope_theta": 20.0}),
    ("gemma3_gqa", {"layer_types": ["full_attention"] * 3}),
    ("gemma3_mha_untied_cap", {"final_logit_softcapping": None}),
    ("phi3_gqa_partial", {"partial_rotary_factor": 1.0}),
    ("phi3_longrope_long", {"original_max_position_embeddings": 30}),
    ("phi3_longrope_partial_long", {"sliding_window": None}),
    ("gpt_oss_gqa_long", {"layer_types": ["full_attention"] * 3}),
    ("deepseek_v2_groups", {"topk_method": "greedy"}),
    ("deepseek_v2_groups", {"routed_scaling_factor": 1.0}),
    ("deepseek_v3_groups", {"n_group": 1, "topk_group": 1}),
    ("deepseek_v3_groups", {"norm_topk_prob": False}),
    ("deepseek_v3_no_q_rank_tied", {"norm_topk_prob": True}),
    ("deepseek_v3_yarn_long", {"rope_interleave": False}),
    ("deepseek_v3_yarn_halves_long", {"rope_interleave": True}),
    ("gemma_mqa_odd_head", {"rms_norm_eps": 1e-2}),
    *((name, {"rms_norm_eps": 1e-5}) for name in (
        "llama_mqa_odd_head_biases_tied", "olmo2_gqa_bias", "gpt_oss_mha_plain_rope",
        "deepseek_v2_groups", "qwen3_moe_mqa_window_tied",
    )),
    *((name, {"rope_scaling": None}) for name in (
        "llama3_gqa_long", "llama3_mqa_tied_long", "llama_linear_gqa", "llama_yarn_gqa_long",
        "qwen2_mha_yarn_long", "qwen3_mha_yarn_long", "gemma3_mqa_linear_scaling", "phi3_longrope_short",
        "phi3_longrope_long", "olmo2_mqa_tied_linear", "gpt_oss_gqa_long", "gpt_oss_mqa_truncated_yarn",
        "deepseek_v2_yarn_tied_long", "deepseek_v3_yarn_long",
    )),
]  # fmt: skip

ROPE_CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("llama3_gqa_long", {"low_freq_factor": 2.0}),
    ("llama3_gqa_long", {"high_freq_factor": 2.0}),
    ("llama_yarn_gqa_long", {"attention_factor": None}),
    ("llama_yarn_gqa_long", {"beta_fast": 32.0}),
    ("llama_yarn_gqa_long", {"beta_slow": 1.0}),
    ("deepseek_v3_yarn_long", {"beta_fast": 4.0}),
    ("qwen3_mha_yarn_long", {"beta_slow": 0.2}),
    ("qwen3_mha_yarn_long", {"truncate": True}),
    ("qwen3_mha_yarn_long", {"original_max_position_embeddings": 32}),
    ("gpt_oss_gqa_long", {"truncate": True}),
    ("deepseek_v2_yarn_tied_long", {"mscale_all_dim": 0.0}),
    ("deepseek_v3_yarn_halves_long", {"mscale": 0.4}),
    ("deepseek_v3_yarn_long", {"mscale_all_dim": 0.5}),
]


@pytest.mark.parametrize(("name", "change"), CONFIG_CHANGES)
def test_the_config_matters(name: str, change: dict[str, Any]) -> None:
    case = stored.case(name)
    config = case.config
    assert all(key in config and config[key] != value for key, value in change.items())
    changed = run(case, {**config, **change})
    assert difference(changed.logits, case.reference()["logits"]) > 1e-4


@pytest.mark.parametrize(("name", "change"), ROPE_CHANGES)
def test_the_scaling_of_positions_matters(name: str, change: dict[str, Any]) -> None:
    case = stored.case(name)
    config = case.config
    config["rope_scaling"] = {**config["rope_scaling"], **change}
    assert config != case.config
    assert difference(run(case, config).logits, case.reference()["logits"]) > 1e-4


@pytest.mark.parametrize(
    ("name", "part", "change"),
    [
        ("gpt_oss_gqa_long", "sinks", lambda t: t - 100),
        ("deepseek_v3_groups", "e_score_correction_bias", lambda t: 0 * t),
        ("qwen3_gqa", "q_norm", lambda t: t + 0.2),
        ("gemma3_gqa", "k_norm", lambda t: t + 0.2),
        ("olmo2_mha", "q_norm", lambda t: t[::-1]),
        ("gpt_oss_mha_plain_rope", "router.bias", lambda t: 0 * t),
        ("gpt_oss_mqa_truncated_yarn", "down_proj_bias", lambda t: 0 * t),
        ("qwen2_gqa_tied", "k_proj.bias", lambda t: 0 * t),
        ("dyt_llama_gqa", "alpha", lambda t: 2 * t),
        ("dyt_qwen3_mqa_tied", "q_norm.bias", lambda t: 0 * t),
    ],
)
def test_the_tensors_matter(name: str, part: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    case = stored.case(name)
    tensors = {key: change(value) if part in key else value for key, value in case.tensors().items()}
    assert difference(run(case, tensors=tensors).logits, case.reference()["logits"]) > 1e-4


def test_constants_that_no_config_holds_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module, constant, value in (
        ("gpt_oss_gqa_long", mlps, "LIMIT", np.inf),
        ("gpt_oss_mha_plain_rope", mlps, "SHARPNESS", 1.0),
        ("deepseek_v2_groups", deepseek, "LATENT_EPS", 1e-3),
        ("deepseek_v3_no_q_rank_tied", deepseek, "LATENT_EPS", 1e-3),
    ):
        case = stored.case(name)
        with monkeypatch.context() as patch:
            patch.setattr(module, constant, value)
            assert difference(run(case).logits, case.reference()["logits"]) > 1e-4, constant


def test_a_wide_dynamic_tanh_is_affine() -> None:
    """With a tiny alpha and gamma as large as one over it, DyT is the identity plus beta."""
    case = stored.case("dyt_llama_gqa")
    tensors = case.tensors()
    tensors["model.norm.alpha"] = np.full(1, 1e-6)
    tensors["model.norm.weight"] = np.full(16, 1e6)
    out = run(case, tensors=tensors)
    final = out.residuals[-1] + tensors["model.norm.bias"].astype(np.float64)
    assert difference(out.logits, final @ tensors["lm_head.weight"].T.astype(np.float64)) < 1e-9


def test_keeping_some_norms() -> None:
    """QK-norms may stay what they are while the others become Dynamic Tanh."""
    case = stored.case("qwen3_gqa")
    shapes = seeded.with_dynamic_tanh(case.shapes, keep=("q_norm", "k_norm"))
    assert "model.layers.0.input_layernorm.alpha" in shapes
    assert "model.layers.0.self_attn.q_norm.alpha" not in shapes
    assert np.isfinite(run(case, tensors=seeded.tensors(3, shapes)).logits).all()


def test_written_folders(tmp_path: Any) -> None:
    case = stored.case("deepseek_v3_groups")
    folder = stored.write_folder(case, tmp_path / case.name)
    assert json.loads((folder / "config.json").read_text()) == case.config
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    assert seeded.digest(tensors) == case.digest
    assert {value.dtype for value in tensors.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", sorted(json.loads((OLDER / "provenance.json").read_text())["models"]))
def test_numpy_agrees_with_the_stored_folders(name: str) -> None:
    """The folders with weights of their own (float32, float16 and bfloat16; one or several files)."""
    folder = OLDER / name
    tensors: dict[str, np.ndarray] = {}
    for file in folder.glob("*.safetensors"):
        tensors |= safetensors.numpy.load_file(file)
    reference = np.load(folder / "reference.npz")
    ours = forward(json.loads((folder / "config.json").read_text()), tensors, reference["tokens"])
    assert difference(ours.logits, reference["logits"]) < 1e-5
    assert difference(ours.residuals[:-1], reference["resid_pre"]) < 1e-5
    assert difference(ours.residuals[1:], reference["resid_post"]) < 1e-5


def test_the_references_stand_alone() -> None:
    """Neither JAX nor the library takes part in them."""
    for path in (ROOT / "tests" / "references").rglob("*.py"):
        lines = path.read_text().splitlines()
        assert not [line for line in lines if line.split()[:2] and line.split()[0] in ("import", "from")
                    and line.split()[1].startswith("jax")], path  # fmt: skip
