"""Several real processes with ``jax.distributed``: a checkpoint in several files onto one mesh over all of them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.checkpoints import export_huggingface, orbax_folder, save_model
from jaxinterp.checkpoints.huggingface import read_config
from jaxinterp.models import Model, declare, forward
from jaxinterp.parallel import weights
from tests.support import ROOT

SIZES = {
    "vocab_size": 48, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 8,
    "num_key_value_heads": 8, "max_position_embeddings": 32, "rms_norm_eps": 1e-6,
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **SIZES},
    "moe": {
        "model_type": "qwen3_moe", **SIZES, "head_dim": 4, "num_experts": 16, "num_experts_per_tok": 2,
        "moe_intermediate_size": 24, "norm_topk_prob": True,
    },
}  # fmt: skip
JOBS = [
    {"name": "llama", "model": "llama", "mesh": {"data": 1, "model": 8}, "width": None},
    {
        "name": "llama, every weight divided",
        "model": "llama",
        "mesh": {"data": 2, "model": 4},
        "width": "data",
    },
    {"name": "llama, own form", "model": "llama-native", "mesh": {"data": 2, "model": 4}, "width": "data"},
    {"name": "llama, Orbax", "model": "llama-orbax", "mesh": {"data": 2, "model": 4}, "width": "data"},
    {"name": "experts", "model": "moe", "mesh": {"data": 1, "expert": 4, "model": 2}, "width": None},
    {"name": "experts and data", "model": "moe", "mesh": {"data": 2, "expert": 2, "model": 2}, "width": None},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny models in files of a few kilobytes each, and what one process makes of them."""
    place = tmp_path_factory.mktemp("pod")
    for number, (name, content) in enumerate(CONFIGS.items()):
        _, config = read_config(content, name)
        params = weights.initialise(declare(config), key=jax.random.key(number), dtype=jnp.float32)
        model = Model(params, config)
        export_huggingface(model, place / name, family=content["model_type"], max_shard_bytes=20_000)
        assert len(list((place / name).glob("*.safetensors"))) > 3
        tokens = np.random.default_rng(number).integers(0, 48, (8, 6)).astype(np.int32)
        logits, acts = forward(params, config, jnp.asarray(tokens), sites=("mlp_in", "mlp_out"))
        np.savez(
            place / f"{name}.npz", tokens=tokens, logits=logits, mlp_in=acts.mlp_in, mlp_out=acts.mlp_out
        )
        if name == "llama":
            save_model(model, place / "llama-native")
            orbax_folder.save(model, place / "llama-orbax")
    (place / "jobs.json").write_text(json.dumps(JOBS))
    return place


def launch(folder: Path, processes: int) -> list[dict[str, Any]]:
    """What each process of a pod found."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(Path(__file__).with_name("worker.py")), address, str(processes)]
    started = [
        subprocess.Popen(
            [*command, str(index), str(folder)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(processes)
    ]  # fmt: skip
    found = []
    try:
        for process in started:
            out, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors[-3000:]
            assert "rematerialization" not in errors
            found.append(json.loads(out.splitlines()[-1]))
    finally:
        for process in started:
            process.kill()
    return found


def check(folder: Path, processes: int) -> None:
    found = launch(folder, processes)
    assert sorted(one["process"] for one in found) == list(range(processes))
    for one in found:
        assert one["devices"] == 8
        for name, job in one["jobs"].items():
            assert job["error"] <= 1e-5, (name, job)
            assert job["spans"], name
            assert "map to the mesh axis 'model'" in job["refused"], (name, job)
    for name in ("llama", "llama, every weight divided", "llama, own form", "experts"):
        # A process reads what it holds and no more; together they read all of it.
        reads, held = ([one["jobs"][name][what] for one in found] for what in ("read", "held"))
        whole = found[0]["jobs"][name]["whole"]
        assert reads == held, (name, reads, held)
        assert max(held) < 0.8 * whole, (name, held, whole)
        assert sum(held) >= whole, (name, held, whole)


def test_two_processes(folder: Path) -> None:
    check(folder, 2)


@pytest.mark.slow
def test_four_processes(folder: Path) -> None:
    check(folder, 4)
