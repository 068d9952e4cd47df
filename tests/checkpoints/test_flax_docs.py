"""Every Python example of docs/flax.md runs, in order, on tiny models under the names that the page uses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.dictionaries import load_dictionary
from tests.activations.flax_models import Prefix, drawn
from tests.checkpoints.test_flax_bridge import TOKENS, gemma, llama
from tests.support import ROOT


def test_the_examples_run(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "flax.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(blocks) == 5
    module, params, config = gemma("first, one key", layers=2)
    _, llama_params, _, _ = llama("llama3.1", scan_axis=1)
    prefix = Prefix()
    names: dict[str, Any] = {
        "gemma_params": params, "gemma_module": module, "gemma_config": config, "llama_params": llama_params,
        "tokens": TOKENS, "module": prefix, "variables": drawn(prefix), "out": tmp_path / "out",
        "text": "tests.activations.flax_models:documents",
    }  # fmt: skip
    for block in blocks:
        exec(compile(block, "docs/flax.md", "exec"), names)
    assert names["values"]["read"].shape == (2, *TOKENS.shape, 8)
    assert np.isfinite(np.asarray(names["logits"])).all()
    assert "transformer/layer_0/mlp/linear" in names["flat"]
    assert load_dictionary(tmp_path / "out" / "dictionary").config.read_site == "mlp_in"
