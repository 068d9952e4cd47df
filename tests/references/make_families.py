"""Make `families/<case>/`: configs of tiny models and what PyTorch computes on weights made from seeds.

Run from the root of the repository, in an environment with PyTorch and transformers (see README.md):

    python -m tests.references.make_families [case ...]
    python -m tests.references.make_families --check [case ...]

Without names all cases are made. ``--check`` makes them elsewhere and compares them with those stored.
The weights are written by `stored.write_folder`, in NumPy, and read by `transformers`, which must not find
any tensor missing, left over or misshapen.
"""

from __future__ import annotations

import json
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
from tests.references.make_torch import correct, layers_of, replace_norms

# How far outputs of another machine may be from those stored, relative to the largest of them.
TOLERANCE = 1e-5


def build(family: str) -> Any:
    """The class that makes and loads models of a family."""
    return (
        transformers.AutoModelForImageTextToText if family == "gemma3" else transformers.AutoModelForCausalLM
    )


def describe(name: str, definition: Definition, folder: Path) -> None:
    """Write the case's config.json as `save_pretrained` does, and case.json with the tensors it saves."""
    config = transformers.AutoConfig.for_model(definition.family, **definition.config)
    model = build(definition.family).from_config(config, attn_implementation="eager")
    with tempfile.TemporaryDirectory() as temporary:
        model.save_pretrained(temporary)
        folder.mkdir(parents=True)
        shutil.copyfile(Path(temporary) / "config.json", folder / "config.json")
        saved = safetensors.numpy.load_file(Path(temporary) / "model.safetensors")
    shapes = {key: saved[key].shape for key in sorted(saved)}
    if definition.dynamic_tanh:
        shapes = seeded.with_dynamic_tanh(shapes)
    content = {
        "family": definition.family,
        "dynamic_tanh": definition.dynamic_tanh,
        "seed": seed(name),
        "gain": definition.gain,
        "scale": definition.scale,
        "digest": seeded.digest(seeded.tensors(seed(name), shapes, definition.gain, definition.scale)),
    }
    lines = ",\n".join(f"    {json.dumps(key)}: {json.dumps(shapes[key])}" for key in sorted(shapes))
    text = json.dumps(content, indent=2).removesuffix("\n}") + ',\n  "tensors": {\n' + lines + "\n  }\n}\n"
    (folder / "case.json").write_text(text)


def load(case: stored.Case) -> torch.nn.Module:
    """The model with the case's weights, float32."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = stored.write_folder(case, Path(temporary))
        if case.dynamic_tanh:
            config = transformers.AutoConfig.from_pretrained(folder)
            model = build(case.family).from_config(config, attn_implementation="eager")
            replace_norms(model)
            state = {key: torch.from_numpy(value) for key, value in case.tensors().items()}
            missing, left = model.load_state_dict(state, strict=False)
            model.tie_weights()
            assert not left and set(missing) <= set(model._tied_weights_keys), (case.name, missing, left)
        else:
            model, report = build(case.family).from_pretrained(
                folder, attn_implementation="eager", dtype=torch.float32, output_loading_info=True
            )
            assert not any(report.values()), (case.name, report)
    correct(model)
    return model.eval()


def run(model: torch.nn.Module, tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Logits, and the residual stream before each layer and after the last, before the final norm."""
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


def make(name: str, root: Path) -> dict[str, np.ndarray]:
    """Write the folder of a case; its arrays."""
    definition, folder = CASES[name], root / name
    shutil.rmtree(folder, ignore_errors=True)
    describe(name, definition, folder)
    case = stored.case(name, root)
    vocab_size = definition.config.get("text_config", definition.config)["vocab_size"]
    arrays = run(load(case), seeded.prompts(case.seed, definition.batch, definition.length, vocab_size))
    np.savez_compressed(folder / "reference.npz", **arrays)
    spread = " ".join(f"{key} {np.std(arrays[key]):.2f}" for key in ("logits", "residuals"))
    print(f"{name}: {arrays['residuals'].shape} {arrays['logits'].shape} std {spread}", flush=True)
    return arrays


def check(name: str, root: Path) -> None:
    """Stop unless the case, made again below ``root``, is the stored one."""
    arrays, case = make(name, root), stored.case(name)
    for file in ("config.json", "case.json"):
        again, kept = (json.loads((folder / name / file).read_text()) for folder in (root, stored.FAMILIES))
        for content in (again, kept):
            content.pop("transformers_version", None)
        assert again == kept, f"{name}/{file} is not what is stored"
    for key, value in case.reference().items():
        far = np.max(np.abs(arrays[key] - value)) / np.max(np.abs(value))
        assert arrays[key].shape == value.shape and far <= TOLERANCE, f"{name}: {key} differs by {far:.1e}"


def main() -> None:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    chosen = [word for word in sys.argv[1:] if word != "--check"]
    if "--check" in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as temporary:
            for name in chosen or CASES:
                check(name, Path(temporary))
        return
    if not chosen:
        shutil.rmtree(stored.FAMILIES, ignore_errors=True)
    for name in chosen or CASES:
        make(name, stored.FAMILIES)
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
