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


def torch_files() -> None:
    """Files of torch's own format with the names that dictionary_learning, OpenAI and Qwen Scope use."""
    from collections import OrderedDict

    def numbers(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
        return OrderedDict((name.replace("__", "."), torch.randn(shape)) for name, shape in shapes.items())

    torch.manual_seed(3)
    folder = DATA / "torch"
    x = torch.randn(ROWS, D)
    linear = {"encoder__weight": (F, D), "encoder__bias": (F,), "decoder__weight": (D, F)}
    plain = {"W_enc": (D, F), "b_enc": (F,), "W_dec": (F, D), "b_dec": (D,)}
    threshold, k = torch.tensor(0.4), torch.tensor(K)
    cases = {
        "AutoEncoder": numbers(**linear, bias=(D,)),
        "AutoEncoderNew": numbers(**linear, decoder__bias=(D,)),
        "AutoEncoderTopK": numbers(**linear, b_dec=(D,)) | {"k": k, "threshold": threshold},
        "BatchTopKSAE": numbers(**linear, b_dec=(D,)) | {"k": k, "threshold": threshold},
        "MatryoshkaBatchTopKSAE": numbers(**plain)
        | {"k": k, "threshold": threshold, "group_sizes": torch.tensor([4, 6])},
        "JumpReluAutoEncoder": numbers(**plain) | {"threshold": torch.rand(F)},
        "GatedAutoEncoder": numbers(
            encoder__weight=(F, D),
            decoder__weight=(D, F),
            decoder_bias=(D,),
            r_mag=(F,),
            gate_bias=(F,),
            mag_bias=(F,),
        ),
    }
    for name, s in cases.items():
        W_enc = s["W_enc"].T if "W_enc" in s else s["encoder.weight"]
        W_dec = s["W_dec"].T if "W_dec" in s else s["decoder.weight"]
        b_dec = next(s[key] for key in ("b_dec", "bias", "decoder.bias", "decoder_bias") if key in s)
        centred = x if name in ("AutoEncoderNew", "JumpReluAutoEncoder") else x - b_dec
        h = centred @ W_enc.T + s.get("b_enc", s.get("encoder.bias", torch.zeros(F)))
        acts = h.relu()
        if name == "GatedAutoEncoder":
            acts = (s["r_mag"].exp() * h + s["mag_bias"]).relu() * (h + s["gate_bias"] > 0)
        elif name == "AutoEncoderTopK":
            top = acts.topk(K)
            acts = torch.zeros_like(acts).scatter(1, top.indices, top.values)
        elif "threshold" in s:
            acts = acts * (acts > s["threshold"])
        place = folder / name
        place.mkdir(parents=True)
        torch.save(OrderedDict(s), place / "ae.pt")
        trainer = {
            "dict_class": name, "activation_dim": D, "dict_size": F, "k": K, "layer": 4,
            "lm_name": "EleutherAI/pythia-70m",
            "submodule_name": "resid_post_layer_4", "lr": 1e-4,
        }  # fmt: skip
        (place / "config.json").write_text(
            json.dumps({"trainer": trainer, "buffer": {"ctx_len": 128}}) + "\n"
        )
        answers(place, x, acts, acts @ W_dec.T + b_dec)
    s = numbers(encoder__weight=(F, D), decoder__weight=(D, F), pre_bias=(D,), latent_bias=(F,))
    place = folder / "openai" / "resid_post_mlp" / "autoencoders"
    place.mkdir(parents=True)
    extra = {
        "stats_last_nonzero": torch.zeros(F, dtype=torch.int64),
        "activation": "ReLU",
        "activation_state_dict": {},
    }
    torch.save({**s, **extra}, place / "8.pt")
    acts = ((x - s["pre_bias"]) @ s["encoder.weight"].T + s["latent_bias"]).relu()
    answers(place, x, acts, acts @ s["decoder.weight"].T + s["pre_bias"])
    s = numbers(W_enc=(F, D), W_dec=(D, F), b_enc=(F,), b_dec=(D,))
    place = folder / "qwen" / f"SAE-Res-Qwen3-1.7B-Base-W32K-L0_{K}"
    place.mkdir(parents=True)
    torch.save(dict(s), place / "layer7.sae.pt")
    top = (x @ s["W_enc"].T + s["b_enc"]).topk(K)
    acts = torch.zeros(ROWS, F).scatter(1, top.indices, top.values.relu())
    answers(place, x, acts, acts @ s["W_dec"].T + s["b_dec"])


if __name__ == "__main__":
    shutil.rmtree(DATA, ignore_errors=True)
    saelens()
    sparsify()
    torch_files()
