"""Write tests/dictionaries/data: tiny dictionaries saved by SAELens and sparsify, with what they compute.

Needs an environment with ``sae-lens==6.54.12``, ``eai-sparsify==1.3.3`` and torch; run from the repository root with
``python -m tests.references.make_dictionaries``. Each folder holds the files that the program itself wrote and
``answers.npz`` with the input ``x``, the feature activations ``acts`` and the output ``out``.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch

DATA = Path(__file__).parents[1] / "dictionaries" / "data"
D, F, ROWS, K = 6, 10, 12, 3
AUTOENCODER = {"model_name": "gpt2-small", "hook_name": "blocks.5.hook_resid_post", "prepend_bos": True}
TRANSCODER = {
    "model_name": "gpt2-small", "hook_name": "blocks.2.ln2.hook_normalized", "hook_name_out": "blocks.2.hook_mlp_out",
}  # fmt: skip


def randomise(module: torch.nn.Module, seed: int) -> None:
    """Every parameter normal; thresholds positive."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        values = torch.randn(parameter.shape, generator=generator)
        parameter.data = abs(values) / 2 if "threshold" in name else values


def answers(folder: Path, x: torch.Tensor, acts: torch.Tensor, out: torch.Tensor) -> None:
    """Store what the program computed."""
    np.savez(folder / "answers.npz", x=x.numpy(), acts=acts.detach().numpy(), out=out.detach().numpy())


def saelens() -> None:
    """Every architecture that can be read; trained ones as saved for inference and as checkpoints."""
    from sae_lens import SAE, TrainingSAE
    from sae_lens.registry import get_sae_class, get_sae_training_class

    base = {"d_in": D, "d_sae": F, "dtype": "float32", "device": "cpu", "normalize_activations": "none"}
    x = torch.randn(ROWS, D, generator=torch.Generator().manual_seed(99))
    cases = {
        "standard": {}, "standard_uncentred": {"apply_b_dec_to_input": False}, "gated": {}, "jumprelu": {},
        "topk": {"k": K}, "topk_rescaled": {"k": K, "rescale_acts_by_decoder_norm": True},
        "transcoder": {}, "skip_transcoder": {}, "jumprelu_transcoder": {}, "jumprelu_skip_transcoder": {},
    }  # fmt: skip
    for number, (name, extra) in enumerate(cases.items()):
        architecture = name.split("_uncentred")[0].split("_rescaled")[0]
        cls, config_class = get_sae_class(architecture)
        fields = {**base, **extra}
        if "transcoder" in name:
            fields |= {"d_out": D + (1 if name == "transcoder" else 0), "apply_b_dec_to_input": False}
        metadata = TRANSCODER if "transcoder" in name else AUTOENCODER
        config = config_class.from_dict({**fields, "architecture": architecture, "metadata": dict(metadata)})
        sae = cls(config)
        randomise(sae, number)
        folder = DATA / "saelens" / name
        sae.save_model(folder)
        loaded = SAE.load_from_disk(folder)
        acts = loaded.encode(x)
        answers(folder, x, acts, loaded(x))
    for number, (name, extra) in enumerate(
        {
            "topk": {"k": K, "rescale_acts_by_decoder_norm": True},
            "batchtopk": {"k": float(K), "rescale_acts_by_decoder_norm": True},
            "matryoshka_batchtopk": {
                "k": float(K),
                "matryoshka_widths": [4, F],
                "rescale_acts_by_decoder_norm": False,
            },
        }.items()
    ):
        cls, config_class = get_sae_training_class(name)
        trained = cls(config_class(**base, **extra))
        for key, value in AUTOENCODER.items():
            setattr(trained.cfg.metadata, key, value)
        randomise(trained, 50 + number)
        if hasattr(trained, "topk_threshold"):
            trained.topk_threshold = torch.tensor(0.7, dtype=torch.float64)
        assert isinstance(trained, TrainingSAE)
        checkpoint = DATA / "saelens" / f"{name}_checkpoint"
        trained.save_model(checkpoint)
        inference = DATA / "saelens" / f"{name}_inference"
        trained.save_inference_model(inference)
        loaded = SAE.load_from_disk(inference)
        for folder in (checkpoint, inference):
            answers(folder, x, loaded.encode(x), loaded(x))


def sparsify() -> None:
    """A folder of hookpoints a case."""
    from sparsify.config import SparseCoderConfig
    from sparsify.sparse_coder import SparseCoder

    x = torch.randn(ROWS, D, generator=torch.Generator().manual_seed(98))
    cases = {
        "sae": ({}, ("layers.0", "layers.3")),
        "groupmax": ({"activation": "groupmax", "k": 5}, ("h.1.mlp",)),
        "skip": ({"skip_connection": True}, ("layers.2",)),
        "transcoder": ({"transcode": True}, ("layers.0.mlp", "layers.1.mlp")),
        "skip_transcoder": ({"transcode": True, "skip_connection": True}, ("layers.0.mlp", "layers.1.mlp")),
    }
    for number, (name, (extra, hookpoints)) in enumerate(cases.items()):
        root = DATA / "sparsify" / name
        for layer, hookpoint in enumerate(hookpoints):
            coder = SparseCoder(D, SparseCoderConfig(**{"num_latents": F, "k": K, **extra}))
            randomise(coder, 10 * number + layer)
            coder.save_to_disk(root / hookpoint)
            top, indices, _ = coder.encode(x)
            acts = torch.zeros(ROWS, F).scatter(1, indices, top)
            answers(root / hookpoint, x, acts, coder(x).sae_out)
        (root / "config.json").write_text(json.dumps({"sae": extra, "hookpoints": list(hookpoints)}) + "\n")


if __name__ == "__main__":
    shutil.rmtree(DATA, ignore_errors=True)
    saelens()
    sparsify()
