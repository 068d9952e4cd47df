"""What PyTorch and `transformers` make of quantised tensors and of a quantised model.

Run in an environment with PyTorch (see README.md), from the root of the repository:

    python -m tests.references.make_quantised            # --check compares with what is stored

It writes ``data/quantised/``: ``tensors.npz`` with codes and numbers, ``gpt_oss.npz`` with what a tiny GPT-OSS gives
whose experts are stored as MXFP4. The folder of that model is written by `quantised_cases`, here and in the tests.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from tests.references import quantised_cases as cases
from tests.references import seeded

OUT = Path(__file__).parent / "data" / "quantised"


def tensors() -> dict[str, np.ndarray]:
    """Codes and what they stand for, by the code of `transformers` (MXFP4) and by PyTorch's own fp8."""
    blocks, scales = cases.mxfp4(0, "golden", (3, 4, 2))
    numbers = convert_moe_packed_tensors(
        torch.from_numpy(blocks), torch.from_numpy(scales), dtype=torch.float32
    )
    half = convert_moe_packed_tensors(
        torch.from_numpy(blocks), torch.from_numpy(scales), dtype=torch.bfloat16
    )
    assert torch.equal(half.float(), numbers)
    codes = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)
    matrix, factors = cases.fp8(0, "golden", (7, 11), (3, 4))
    spread = torch.from_numpy(factors).repeat_interleave(3, 0)[:7].repeat_interleave(4, 1)[:, :11]
    whole = torch.from_numpy(matrix).view(torch.float8_e4m3fn).float() * spread
    return {
        "mxfp4_blocks": blocks, "mxfp4_scales": scales, "mxfp4_numbers": numbers.numpy(),
        "e4m3": codes.float().numpy(),
        "fp8_codes": matrix, "fp8_factors": factors, "fp8_numbers": whole.numpy(),
        "fp8_bfloat16": whole.bfloat16().view(torch.int16).numpy(),
    }  # fmt: skip


def gpt_oss() -> dict[str, np.ndarray]:
    """Logits of the tiny model with MXFP4 experts, which `transformers` turns into bfloat16 as it loads them."""
    tokens = seeded.prompts(cases.SEED, 2, 10, cases.GPT_OSS["vocab_size"])
    with tempfile.TemporaryDirectory() as folder:
        cases.write_gpt_oss(Path(folder))
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.bfloat16, attn_implementation="eager"
        )
        # Every stored number is one of bfloat16, so nothing is lost before it computes in float32.
        model = model.float().eval()
        with torch.no_grad():
            logits = model(torch.from_numpy(tokens).long()).logits.numpy()
    return {"tokens": tokens, "logits": logits}


def check(name: str, made: dict[str, np.ndarray]) -> bool:
    """Whether what is made here is what is stored: the same bits, logits to 1e-5 of the largest."""
    with np.load(OUT / name) as kept:
        for key, array in made.items():
            close = key == "logits" and np.abs(array - kept[key]).max() <= 1e-5 * np.abs(kept[key]).max()
            if not close and array.tobytes() != kept[key].tobytes():
                print(f"{name}: {key} differs from what is stored")
                return False
    return True


def main() -> None:
    made = {"tensors.npz": tensors(), "gpt_oss.npz": gpt_oss()}
    if "--check" in sys.argv[1:]:
        sys.exit(0 if all(check(name, arrays) for name, arrays in made.items()) else 1)
    OUT.mkdir(parents=True, exist_ok=True)
    for name, arrays in made.items():
        np.savez_compressed(OUT / name, **arrays)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "seed": cases.SEED}
    (OUT / "provenance.json").write_text(json.dumps(versions, indent=2) + "\n")


if __name__ == "__main__":
    main()
