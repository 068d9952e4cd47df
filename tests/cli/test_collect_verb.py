"""``jaxinterp collect``: settings from a file and from arguments, resuming, verifying, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from jaxinterp.activations.store_reader import Store
from jaxinterp.checkpoints import load_model, save_model
from jaxinterp.cli.main import main
from jaxinterp.dictionaries import save_dictionary
from jaxinterp.models.decoder import forward
from tests.attribution.cases import random_dictionary
from tests.support import tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("verb")
    model = tiny_model("llama")
    save_model(model, place / "model")
    save_dictionary(random_dictionary(model, "clt", dtype="float32"), place / "clt")
    lines = [json.dumps({"ids": list(range(n, n + 17))}) for n in range(20)]
    (place / "text.jsonl").write_text("\n".join(lines))
    (place / "run.yaml").write_text(
        f"model: {place}/model\nbatches: 3\nmicrobatch: 2\nsites: [mlp_in, 'resid_post@2']\n"
        f"text: {{source: '{place}/text.jsonl#ids', length: 8, batch: 4, start: -1}}\n"
    )
    return place


def test_a_store_from_a_file_and_arguments(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "store")
    what = ["collect", str(folder / "run.yaml"), f"dictionaries=[{folder}/clt]"]
    command = [*what, "--out", out, "--quiet"]
    assert main([*command, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["sites"]["resid_post"] == [1, 16]
    assert set(facts["sites"]) >= {"mlp_in", "mlp_out"}  # what the dictionary writes
    assert facts["tokens"] == 3 * 4 * 8
    store, model = Store(out), load_model(folder / "model")
    assert facts["model"] == model.digest()
    tokens = store.tokens(slice(0, 8))
    _, found = forward(
        model.params, model.config, tokens.token[None], sites=("mlp_in",),
        positions=tokens.position[None], segments=tokens.document[None],
    )  # fmt: skip
    np.testing.assert_allclose(store.read("mlp_in", slice(0, 8)), found.mlp_in[:, 0], atol=1e-6)
    # Again: nothing to do. Other settings: refused. A flipped bit: found, and mended.
    assert main(command) == 0
    assert main([*what, "dtype=int8", "--out", out]) == 2
    assert "layout.dtype: 'float32' there, 'int8' here" in capsys.readouterr().err
    assert main(["collect", "--verify", "--out", out]) == 0
    path = tmp_path / "store/sites/mlp_in/c.0.0.0"
    sound = path.read_bytes()
    path.write_bytes(bytes([sound[0] ^ 1]) + sound[1:])
    assert main(["collect", "--verify", "--out", out]) == 2
    assert "shard 0 is damaged: the bytes of sites/mlp_in/c.0.0.0 do not match" in capsys.readouterr().err
    assert main([*command, "--repair"]) == 0
    assert path.read_bytes() == sound


def test_settings_that_are_not_understood(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more, message in (
        (["batchs=3"], "unknown field 'batchs' (did you mean batches"),
        (["model=nothing-here", "batches=3"], "nothing-here"),
        ([str(folder / "run.yaml"), "sites=[mlp_inn]"], "no site 'mlp_inn' (did you mean mlp_in"),
        ([str(folder / "run.yaml"), "text.source=x.parquet"], "cannot read x.parquet"),
    ):
        assert main(["collect", *more, "--out", str(tmp_path / "s"), "--quiet"]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "s").exists()
