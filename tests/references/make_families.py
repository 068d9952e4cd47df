"""Make `families/<case>/`: configs of tiny models and what PyTorch computes on weights made from seeds.

Run from the root of the repository, in an environment with PyTorch and transformers (see README.md):

    python -m tests.references.make_families [case ...]

Without names everything is made again. The weights are written by `stored.write_folder`, in NumPy, and read
by `transformers`, which is told to complain about any tensor that is missing, left over or misshapen.
"""

from __future__ import annotations

import json
import math
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
import transformers

from tests.references import seeded, stored
from tests.references.family_cases import CASES, Definition, seed


def build(family: str) -> Any:
    """The class that makes and loads models of a family."""
    return transformers.AutoModelForImageTextToText if family == "gemma3" else transformers.AutoModelForCausalLM


def shapes_as_saved(name: str, definition: Definition, folder: Path) -> dict[str, tuple[int, ...]]:
    """Write the case's config and case.json, the latter from what `save_pretrained` writes."""
    config = transformers.AutoConfig.for_model(definition.family, **definition.config)
    model = build(definition.family).from_config(config, attn_implementation="eager")
    with tempfile.TemporaryDirectory() as temporary:
        model.save_pretrained(temporary)
        folder.mkdir(parents=True)
        shutil.copyfile(Path(temporary) / "config.json", folder / "config.json")
        saved = safetensors.numpy.load_file(Path(temporary) / "model.safetensors")
    shapes = {key: saved[key].shape for key in sorted(saved)}
    content = {
        "family": definition.family,
        "seed": seed(name),
        "gain": definition.gain,
        "scale": definition.scale,
        "digest": seeded.digest(seeded.tensors(seed(name), shapes, definition.gain, definition.scale)),
    }
    lines = ",\n".join(f"    {json.dumps(key)}: {json.dumps(shape)}" for key, shape in shapes.items())
    text = json.dumps(content, indent=2).removesuffix("\n}") + ',\n  "tensors": {\n' + lines + "\n  }\n}\n"
    (folder / "case.json").write_text(text)
    return shapes


def correct(model: torch.nn.Module) -> None:
    """Mend what this version of transformers is known to get wrong.

    Its DeepSeek-V2 leaves out the factor of YaRN on attention scores (``mscale_all_dim``), which the
    authors' code, later versions of transformers, and its own DeepSeek-V3 all have.
    """
    scaling = model.config.rope_scaling if model.config.model_type == "deepseek_v2" else None
    if scaling and scaling.get("mscale_all_dim"):
        factor = 1.0 + 0.1 * scaling["mscale_all_dim"] * math.log(scaling["factor"])
        for layer in model.model.layers:
            layer.self_attn.scaling *= factor**2


def layers_of(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The decoder layers, first to last."""
    if model.config.model_type == "gemma3":
        return list(model.model.language_model.layers)
    base = model.base_model if hasattr(model.base_model, "layers") else getattr(model, "model", model.base_model)
    return list(base.h if hasattr(base, "h") else base.layers)


def run(model: torch.nn.Module, tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Logits, and the residual stream before each layer and after the last."""
    stream: list[torch.Tensor] = []
    last: list[torch.Tensor] = []
    layers = layers_of(model)
    for layer in layers:
        layer.register_forward_pre_hook(
            lambda _, args, kwargs: stream.append((args[0] if args else kwargs["hidden_states"]).clone()),
            with_kwargs=True,
        )
    layers[-1].register_forward_hook(
        lambda _, __, out: last.append((out[0] if isinstance(out, tuple) else out).clone())
    )
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(tokens.astype(np.int64)), use_cache=False).logits
    assert len(stream) == len(layers) and len(last) == 1
    return {"tokens": tokens, "logits": logits.numpy(), "residuals": torch.stack(stream + last).numpy()}


def make(name: str, definition: Definition) -> None:
    folder = stored.FAMILIES / name
    shutil.rmtree(folder, ignore_errors=True)
    shapes_as_saved(name, definition, folder)
    case = stored.case(name)
    with tempfile.TemporaryDirectory() as temporary:
        stored.write_folder(case, Path(temporary))
        model, report = build(definition.family).from_pretrained(
            temporary, attn_implementation="eager", dtype=torch.float32, output_loading_info=True
        )
    wrong = {key: value for key, value in report.items() if value}
    assert not wrong, (name, wrong)
    model.eval()
    correct(model)
    text = definition.config.get("text_config", definition.config)
    tokens = seeded.prompts(case.seed, definition.batch, definition.length, text["vocab_size"])
    arrays = run(model, tokens)
    np.savez_compressed(folder / "reference.npz", **arrays)
    spread = " ".join(f"{key} {np.std(arrays[key]):.2f}" for key in ("logits", "residuals"))
    print(f"{name}: {arrays['residuals'].shape} {arrays['logits'].shape} std {spread}", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    chosen = sys.argv[1:] or list(CASES)
    if not sys.argv[1:]:
        shutil.rmtree(stored.FAMILIES, ignore_errors=True)
    for name in chosen:
        make(name, CASES[name])
    record = {
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "attention": "eager",
        "dtype": "float32",
        "cases": {name: seed(name) for name in sorted(CASES)},
    }
    (stored.FAMILIES / "provenance.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
