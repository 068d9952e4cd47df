"""Write tests/dictionaries/data/circuit_tracer and two more of SAELens: tiny dictionaries saved by those programs.

Needs an environment with ``circuit-tracer==0.5.0`` (its own files suffice: ``--no-deps``), ``sae-lens==6.54.12`` and
torch; run from the repository root with ``python -m tests.references.make_circuit_tracer``. Each folder holds the files
that the program itself wrote, for circuit-tracer with the ``config.yaml`` that its users write, and ``answers.npz``
with the input ``x``, the activations ``acts`` and the output ``out``, ``[L, rows, ...]`` of circuit-tracer.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch

DATA = Path(__file__).parents[1] / "dictionaries" / "data"
L, D, F, ROWS, K = 3, 6, 10, 12, 3
HEADER = """model_name: google/gemma-2-2b
model_kind: {kind}
feature_input_hook: {read}
feature_output_hook: hook_mlp_out
scan: mine/transcoders
"""


def randomise(module: torch.nn.Module, seed: int) -> None:
    """Every parameter normal; thresholds positive."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        values = torch.randn(parameter.shape, generator=generator)
        parameter.data = abs(values) / 2 if "threshold" in name else values


def save(folder: Path, x: torch.Tensor, acts: torch.Tensor, out: torch.Tensor) -> None:
    """Store what the program computed."""
    np.savez(folder / "answers.npz", x=x.numpy(), acts=acts.detach().numpy(), out=out.detach().numpy())


def circuit_tracer() -> None:
    """Per-layer transcoders with JumpReLU, top-k and a skip; cross-layer ones with ReLU and JumpReLU."""
    from circuit_tracer.transcoder.activation_functions import JumpReLU, TopK
    from circuit_tracer.transcoder.cross_layer_transcoder import CrossLayerTranscoder
    from circuit_tracer.transcoder.single_layer_transcoder import SingleLayerTranscoder, TranscoderSet

    x = torch.randn(L, ROWS, D, generator=torch.Generator().manual_seed(97))
    for number, name in enumerate(("plt_jumprelu", "plt_relu_skip", "plt_topk")):
        layers = {}
        for layer in range(L):
            function = {
                "plt_jumprelu": lambda: JumpReLU(torch.zeros(F)), "plt_relu_skip": lambda: torch.nn.functional.relu,
                "plt_topk": lambda: TopK(K),
            }[name]()  # fmt: skip
            one = SingleLayerTranscoder(
                D,
                F,
                function,
                layer,
                skip_connection="skip" in name,
                dtype=torch.float32,
                device=torch.device("cpu"),
            )
            randomise(one, 10 * number + layer)
            layers[layer] = one
        whole = TranscoderSet(layers, "hook_resid_mid", "hook_mlp_out")
        folder = DATA / "circuit_tracer" / name
        shutil.rmtree(folder, ignore_errors=True)
        whole.to_safetensors(str(folder))
        more = f"activation: topk\nk: {K}\n" if "topk" in name else ""
        (folder / "config.yaml").write_text(
            HEADER.format(kind="transcoder_set", read="hook_resid_mid") + more
        )
        save(folder, x, whole.encode(x), torch.stack([one(x[layer]) for layer, one in layers.items()]))
    for number, name in enumerate(("relu", "jump_relu")):
        clt = CrossLayerTranscoder(
            L,
            F,
            D,
            activation_function=name,
            lazy_decoder=False,
            dtype=torch.float32,
            device=torch.device("cpu"),
        )
        randomise(clt, 40 + number)
        folder = DATA / "circuit_tracer" / f"clt_{name.replace('_', '')}"
        shutil.rmtree(folder, ignore_errors=True)
        clt.to_safetensors(str(folder))
        header = HEADER.format(kind="cross_layer_transcoder", read="ln2.hook_normalized")
        (folder / "config.yaml").write_text(header)
        save(folder, x, clt.encode(x), clt(x))


def saelens() -> None:
    """Autoencoders that normalise each row."""
    from sae_lens import SAE
    from sae_lens.registry import get_sae_class

    x = 3 * torch.randn(ROWS, D, generator=torch.Generator().manual_seed(96)) + 1
    for number, (architecture, rows) in enumerate(
        (("standard", "layer_norm"), ("topk", "constant_norm_rescale"))
    ):
        cls, config_class = get_sae_class(architecture)
        fields = {"d_in": D, "d_sae": F, "dtype": "float32", "device": "cpu", "normalize_activations": rows}
        if architecture == "topk":
            fields |= {"k": K, "rescale_acts_by_decoder_norm": False}
        metadata = {"model_name": "gpt2-small", "hook_name": "blocks.5.hook_resid_post", "prepend_bos": True}
        sae = cls(config_class.from_dict({**fields, "architecture": architecture, "metadata": metadata}))
        randomise(sae, 70 + number)
        folder = DATA / "saelens" / f"{architecture}_{rows}"
        shutil.rmtree(folder, ignore_errors=True)
        sae.save_model(folder)
        loaded = SAE.load_from_disk(folder)
        save(folder, x, loaded.encode(x), loaded(x))


if __name__ == "__main__":
    circuit_tracer()
    saelens()
