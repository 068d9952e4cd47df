"""Compiling ahead of time for TPU slices. The long tests need libtpu and are skipped, with the reason, without it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxinterp.checkpoints.shapes import shape
from jaxinterp.cli.main import main
from jaxinterp.core.errors import InputError
from jaxinterp.models import declare
from jaxinterp.models.ahead import compile_forward, study
from jaxinterp.parallel import DEFAULT_RULES, aot, weights
from jaxinterp.parallel.mesh import make
from tests.support import ROOT, tiny_config

needs_libtpu = pytest.mark.skipif(aot.available() is not None, reason=str(aot.available()))


def test_without_libtpu_the_reason_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.setenv("TPU_LIBRARY_PATH", str(tmp_path / "libtpu.so"))
    with pytest.raises(InputError, match=r"cannot compile for v5e:2x2: TPU_LIBRARY_PATH names .*libtpu\.so"):
        aot.devices("v5e:2x2")
    arguments = ["aot", "--model", "llama-3.1-8b", "--topology", "v5e:2x2", "--mesh", "model=4"]
    assert main(arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "needed", "available"),
    [
        (
            "RESOURCE_EXHAUSTED: E1000: Ran out of memory on HBM, the total memory required for HLO temporaries "
            "(21.04G) exceeds available HBM (15.75G). HLO module: jit_run.\nSee ...", 21.04, 15.75,
        ),
        ("RESOURCE_EXHAUSTED: Used 512.00M of 15.75G hbm. Exceeded hbm capacity.", 0.5, 15.75),
        ("RESOURCE_EXHAUSTED: something else", 0, 0),
    ],
)  # fmt: skip
def test_figures_of_an_overflow(text: str, needed: float, available: float) -> None:
    found = aot._too_large(text)
    assert found.needed / aot.GIB == pytest.approx(needed)
    assert found.available / aot.GIB == pytest.approx(available)
    assert found.reason == text.splitlines()[0]


def test_collectives_are_counted_once_when_started_and_done() -> None:
    mesh = make(1, 4, devices=jax.devices()[:4])
    placed = jax.ShapeDtypeStruct((8, 8), jnp.float32, sharding=jax.NamedSharding(mesh, jax.P("model")))
    report = aot.compile_for(
        lambda x: jnp.sum(x, axis=0), (placed,), out_shardings=jax.NamedSharding(mesh, jax.P())
    )
    assert report.too_large is None
    assert report.collectives == {"all-reduce": 1}
    assert report.memory is not None
    assert report.memory.arguments == 8 * 8 * 4 // 4
    text = "  %a = f32[8] all-gather-start(%x)\n  %b = f32[8] all-gather-done(%a)\n  %c = f32[8] all-reduce(%b)\n"
    assert aot.collectives(text) == {"all-gather": 1, "all-reduce": 1}


def test_on_this_machine_a_forward_pass_holds_its_share_of_the_weights() -> None:
    """The same function compiles for the devices that are here: sizes by the declaration, outputs divided."""
    config = tiny_config("experts", n_kv_heads=4)
    mesh = make(2, 2, expert=2)
    report = compile_forward(config, mesh, batch=8, length=8, dtype="float32")
    assert report.memory is not None
    tokens = 8 * 8 * 4 // 4
    assert report.memory.arguments == weights.bytes_per_device(declare(config), "float32", mesh) + tokens
    recorded = 2 * 3 * 8 * 8 * 16 * 4 // 8
    logits = 8 * 8 * 40 * 4 // 8
    assert recorded + logits <= report.memory.outputs < 1.1 * (recorded + logits) + 64
    with pytest.raises(InputError, match="tokens: axis 'batch' of size 6 is not divisible"):
        compile_forward(config, mesh, batch=6, length=8)
    wide = tiny_config("llama", n_kv_heads=4, d_head=6)
    sites = ("attn_z", "pattern", "attn_scale", "final_norm")
    assert compile_forward(wide, mesh, batch=8, length=8, sites=sites, logits=False).memory is not None
    with pytest.raises(InputError, match="this model has no site 'latent_scale'"):
        compile_forward(wide, mesh, batch=8, length=8, sites=("latent_scale",))
    with pytest.raises(InputError, match="longer than the model's context of 32"):
        compile_forward(config, mesh, batch=8, length=33)


def rows() -> list[list[str]]:
    """The table of what fits in docs/scale.md: model, slice, mesh, rules, arguments, outputs, temporaries, peak, of."""
    lines = (ROOT / "docs" / "scale.md").read_text().splitlines()
    cells = [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines if line[:1] == "|"
    ]
    return [row for row in cells if len(row) == 9 and ":" in row[1] and "=" in row[2]]


def test_the_table_of_slices_has_every_model() -> None:
    assert {row[0] for row in rows()} == {"llama-3.1-8b", "gemma-2-27b", "qwen3-30b-a3b", "deepseek-r1"}
    assert {row[1].partition(":")[0] for row in rows()} == {"v5e", "v6e", "v5p"}
    for row in rows():
        assert float(row[7]) < float(row[8])


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row[0]} {row[1]}")
def test_the_table_of_slices_is_true(row: list[str]) -> None:
    model, topology, mesh, rules, *figures = row
    facts = study(shape(model), topology, mesh, batch=8, length=1024, rules=DEFAULT_RULES.changed(rules))
    assert facts["fits"], facts
    # Compilers of other versions plan a little differently.
    assert facts["arguments_gib"] == pytest.approx(float(figures[0]), rel=0.01, abs=0.01)
    assert facts["outputs_gib"] == pytest.approx(float(figures[1]), rel=0.01, abs=0.01)
    assert facts["peak_gib"] == pytest.approx(float(figures[3]), rel=0.1)


@pytest.mark.slow
@needs_libtpu
class TestSlices:
    def test_an_overflow_is_an_answer(self, capsys: Any) -> None:
        arguments = ["aot", "--model", "llama-3.1-8b", "--topology", "v5e:1x1", "--mesh", "data=1", "--json"]
        assert main(arguments) == 1
        facts = json.loads(capsys.readouterr().out)
        assert not facts["fits"]
        assert facts["needed_gib"] > facts["available_gib"] > 15
        assert "RESOURCE_EXHAUSTED" in facts["reason"]

    def test_a_model_that_fits(self, capsys: Any) -> None:
        arguments = ["aot", "--model", "llama-3.1-8b", "--topology", "v5e:2x2", "--mesh", "model=4", "--json"]
        assert main([*arguments, "--batch", "4", "--length", "512"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["fits"]
        assert facts["arguments_gib"] == pytest.approx(8030261248 * 2 / 4 / 2**30, rel=0.01)
        assert facts["peak_gib"] < 15.75

    def test_experts_stay_where_they_are(self) -> None:
        """Left to the compiler, a layer's experts are gathered on every chip; each its own, they are not."""
        config = shape("qwen3-30b-a3b").replace(n_layers=4)
        mesh = make(1, 4, expert=2, devices=aot.devices("v5e:2x4"))
        found = {
            dispatch: compile_forward(
                config, mesh, batch=2, length=64, logits=False, dispatch=dispatch
            ).memory
            for dispatch in (None, "sparse")
        }
        stack = 3 * 128 * 2048 * 768 * 2
        assert found[None].temporaries < 0.5 * stack < found["sparse"].temporaries

    @pytest.mark.parametrize(
        ("topology", "mesh", "message"),
        [
            ("v5e:3x3x3x3", "model=4", "no TPU slice 'v5e:3x3x3x3'"),
            ("v5e:2x2", "model=2", "the mesh 'model=2' has 2 chips, the slice v5e:2x2 has 4"),
            (
                "v5e:2x4",
                "model=8",
                "axis 'kv_heads' of size 4 is not divisible by the mesh axis 'model' of size 8",
            ),
        ],
    )
    def test_bad_input(self, topology: str, mesh: str, message: str) -> None:
        with pytest.raises(InputError, match=message):
            study(shape("qwen3-30b-a3b"), topology, mesh, batch=8, length=64)
        if "kv_heads" in message:
            rules = DEFAULT_RULES.replace(kv_heads=None)
            small = shape("qwen3-30b-a3b").replace(n_layers=2)
            assert study(small, topology, mesh, batch=8, length=64, rules=rules)["fits"]
