"""One attribution graph by circuit-tracer: CPU seconds, memory, and the rate of matrix products in the same process.

Run: PYTHON tests/benchmarks/peer_circuit_tracer.py [--size small] [--kind plt] [--tokens 64] [--nodes 2048]
     [--batch 256] [--active 75] [--threads 1] [--lazy]

PYTHON is an interpreter of another environment, which has torch and circuit-tracer; nothing of this package is imported
here. Models and transcoders are random, of the shapes of `bench_attribution`, with about ``--active`` features on at
each layer and token. A small graph is made first, which pays for imports. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.metadata
import json
import math
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LLAMA: dict[str, Any] = {
    "act_fn": "silu", "gated_mlp": True, "normalization_type": "RMS", "positional_embedding_type": "rotary",
}  # fmt: skip
GEMMA: dict[str, Any] = {
    "act_fn": "gelu_pytorch_tanh", "gated_mlp": True, "normalization_type": "RMS",
    "positional_embedding_type": "rotary", "use_normalization_before_and_after": True, "output_logits_soft_cap": 30.0,
}  # fmt: skip
GPT2: dict[str, Any] = {"act_fn": "gelu_new", "normalization_type": "LN"}
SIZES: dict[str, tuple[dict[str, Any], int]] = {
    "warm": ({**LLAMA, "d_vocab": 64, "d_model": 16, "n_layers": 2, "n_heads": 2, "d_head": 8, "d_mlp": 32}, 64),
    "tiny": (
        {**GEMMA, "d_vocab": 4096, "d_model": 64, "n_layers": 4, "n_heads": 4, "n_key_value_heads": 2, "d_head": 16,
         "d_mlp": 256}, 1024,
    ),
    "small": (
        {**LLAMA, "d_vocab": 4096, "d_model": 288, "n_layers": 6, "n_heads": 6, "d_head": 48, "d_mlp": 768}, 2048,
    ),
    "gpt2s": (
        {**GPT2, "d_vocab": 32000, "d_model": 768, "n_layers": 12, "n_heads": 12, "d_head": 64, "d_mlp": 3072}, 16384,
    ),
}  # fmt: skip
READ, WRITE = "mlp.hook_in", "hook_mlp_out"
START = 1  # a token id that counts as special, so that none is put before the prompt


class Texts:
    """What the program asks of a tokenizer."""

    bos_token_id = pad_token_id = eos_token_id = START
    all_special_ids = (START,)
    padding_side = "right"

    def __init__(self, size: int) -> None:
        self.vocab_size = size

    def decode(self, ids: Any) -> str:
        """Numbers as text."""
        return str(ids)


def build(size: str, kind: str, tokens: int, active: int, folder: Path | None) -> tuple[Any, list[int]]:
    """A replacement model with random weights and a prompt; decoders stay in ``folder`` if it is given."""
    import torch
    from circuit_tracer.replacement_model.replacement_model_transformerlens import (
        TransformerLensReplacementModel,
    )
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    fields, n_features = SIZES[size]
    config = HookedTransformerConfig(
        **fields, n_ctx=max(tokens, 128), seed=0, dtype=torch.float32, device="cpu"
    )
    plain = HookedTransformer(config)
    ids = torch.randint(2, config.d_vocab, (tokens,), generator=torch.Generator().manual_seed(0))
    ids[0] = START
    inputs: dict[int, Any] = {}

    def keep(layer: int) -> Callable[..., None]:
        return lambda _, given: inputs.update({layer: given[0][0]})

    for layer, block in enumerate(plain.blocks):
        block.mlp.register_forward_pre_hook(keep(layer))
    with torch.no_grad():
        plain(ids[None])
        dictionary = random_dictionary(kind, config, n_features, inputs, active)
        if folder is not None:
            dictionary = from_files(dictionary, folder)
    # The same seed, so the same weights.
    model = TransformerLensReplacementModel.from_config(config, dictionary)
    model.tokenizer = Texts(config.d_vocab)
    return model, ids.tolist()


def random_dictionary(kind: str, config: Any, n_features: int, inputs: dict[int, Any], active: int) -> Any:
    """Transcoders whose biases leave about ``active`` features on for the inputs [T, D] of each layer."""
    import torch
    from circuit_tracer.transcoder import TranscoderSet
    from circuit_tracer.transcoder.cross_layer_transcoder import CrossLayerTranscoder
    from circuit_tracer.transcoder.single_layer_transcoder import SingleLayerTranscoder

    d, layers = config.d_model, config.n_layers
    like: dict[str, Any] = {"device": torch.device("cpu"), "dtype": torch.float32}
    if kind == "clt":
        clt = CrossLayerTranscoder(
            layers,
            n_features,
            d,
            lazy_decoder=False,
            feature_input_hook=READ,
            feature_output_hook=WRITE,
            **like,
        )
        encoders, biases = list(clt.W_enc), list(clt.b_enc)
        decoders, found = list(clt.W_dec), clt
    else:
        relu = torch.nn.functional.relu
        own = {i: SingleLayerTranscoder(d, n_features, relu, i, **like) for i in range(layers)}
        encoders, biases = [t.W_enc for t in own.values()], [t.b_enc for t in own.values()]
        decoders, found = [t.W_dec for t in own.values()], TranscoderSet(own, READ, WRITE)
    for weights in (*encoders, *decoders):
        weights.normal_(std=1 / math.sqrt(d))
    for layer in range(layers):
        reads = inputs[layer] @ encoders[layer].T
        biases[layer].copy_((-torch.quantile(reads, 1 - active / n_features)).expand(n_features))
    return found


def from_files(dictionary: Any, folder: Path) -> Any:
    """The same dictionary, its decoders read from files when they are needed."""
    import torch
    from circuit_tracer.transcoder import TranscoderSet
    from circuit_tracer.transcoder.cross_layer_transcoder import CrossLayerTranscoder, load_clt
    from circuit_tracer.transcoder.single_layer_transcoder import load_relu_transcoder

    dictionary.to_safetensors(str(folder))
    if isinstance(dictionary, CrossLayerTranscoder):
        return load_clt(str(folder), READ, WRITE, device=torch.device("cpu"), dtype=torch.float32)
    own = {
        layer: load_relu_transcoder(
            str(next(folder.glob(f"*_{layer}.safetensors"))), layer, torch.device("cpu"), lazy_encoder=False
        )
        for layer in range(len(dictionary))
    }
    return TranscoderSet(own, READ, WRITE)


def matmul_rate(size: int = 2048, repeats: int = 8) -> float:
    """Float32 matrix product, floating-point operations a CPU second."""
    import torch

    a = torch.randn(size, size)
    best = math.inf
    for _ in range(repeats):
        start = time.process_time()
        a @ a
        best = min(best, time.process_time() - start)
    return 2 * size**3 / best


def resident(field: str) -> int:
    """A line of this process's status, in bytes; VmHWM is the peak since `forget_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def forget_peak() -> int:
    """Give freed memory back, let the peak count from here, and return what is resident, in bytes."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--kind", choices=("plt", "clt"), default="plt")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--nodes", type=int, default=2048, help="max_feature_nodes")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--active", type=int, default=75)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lazy", action="store_true", help="decoders stay in their files")
    args = parser.parse_args()

    import torch
    from circuit_tracer import attribute

    torch.set_num_threads(args.threads)
    small, prompt = build("warm", args.kind, 8, 8, None)
    attribute(prompt, small, batch_size=8, max_feature_nodes=16)
    del small
    rate = matmul_rate()
    with tempfile.TemporaryDirectory() as name:
        model, prompt = build(
            args.size, args.kind, args.tokens, args.active, Path(name) if args.lazy else None
        )
        before = forget_peak()
        start, wall = time.process_time(), time.monotonic()
        graph = attribute(prompt, model, batch_size=args.batch, max_feature_nodes=args.nodes)
        seconds, wall = time.process_time() - start, time.monotonic() - wall
        peak = resident("VmHWM")
    tensors = [value for value in vars(graph).values() if isinstance(value, torch.Tensor)]
    size = sum(t.numel() * t.element_size() for t in tensors)
    names = ("circuit-tracer", "transformer-lens", "torch")
    result = {
        "size": args.size, "kind": args.kind, "tokens": args.tokens, "nodes": args.nodes, "batch": args.batch,
        "lazy": args.lazy, "active": len(graph.active_features), "logits": len(graph.logit_targets),
        "seconds": round(seconds, 2), "wall_seconds": round(wall, 1), "gb_before": round(before / 1e9, 3),
        "gb_beyond_model_and_result": round((peak - before - size) / 1e9, 3), "result_gb": round(size / 1e9, 3),
        "matmul_gflops": round(max(rate, matmul_rate()) / 1e9, 1), "threads": args.threads,
        "python": platform.python_version(), "versions": {n: importlib.metadata.version(n) for n in names},
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
