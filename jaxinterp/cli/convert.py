"""Write a model in another form.

  jaxinterp convert SOURCE OUT --to huggingface
  jaxinterp convert llama-folder model.bin --to llama2c --no-tokenizer

Nothing that is there is written over, and a model that the form cannot express is refused.
"""

from __future__ import annotations

import argparse


def options(sub: argparse.ArgumentParser) -> None:
    """The verb's options."""
    sub.add_argument("source", help="Hugging Face folder, llama2.c .bin, our own folder, or 'pocket'")
    sub.add_argument("out", help="a new folder, or a new file for llama2c")
    sub.add_argument("--to", required=True, help="huggingface, native, llama2c or orbax")
    sub.add_argument(
        "--family",
        help="for huggingface: the model_type to write (default: the source's, else the first that fits)",
    )
    sub.add_argument("--dtype", help="float16, bfloat16 or float32 (default: the source's)")
    sub.add_argument(
        "--tokenizer",
        help="tokenizer.json, tokenizer.model or llama2.c tokenizer (default: beside the model)",
    )
    sub.add_argument("--no-tokenizer", action="store_true", help="leave the tokenizer out")
    sub.add_argument(
        "--shard-bytes", type=int, default=5_000_000_000,
        help="for huggingface: most bytes of tensors in one file (default: 5000000000)",
    )  # fmt: skip
    sub.add_argument("--json", action="store_true", help="print the outcome as JSON")


def run(options: argparse.Namespace) -> int:
    """Convert and say what was written."""
    from jaxinterp.checkpoints import convert
    from jaxinterp.cli import shared

    facts = convert(
        options.source, options.out, options.to, family=options.family, dtype=options.dtype,
        tokenizer=options.tokenizer, with_tokenizer=not options.no_tokenizer, max_shard_bytes=options.shard_bytes,
    )  # fmt: skip
    if options.json:
        shared.print_json(facts)
        return 0
    kind = f" ({facts['family']})" if "family" in facts else ""
    print(
        f"{facts['out']}: {facts['form']}{kind}, {facts['parameters']:,} parameters in {facts['dtype']}, "
        f"{'with' if facts['tokenizer'] else 'without'} a tokenizer"
    )
    return 0
