"""Write a model or a dictionary in another form.

  jaxinterp convert SOURCE OUT --to huggingface
  jaxinterp convert llama-folder model.bin --to llama2c --no-tokenizer
  jaxinterp convert some-sae out --format saelens --dtype bfloat16
  jaxinterp convert a-set-of-transcoders out --format sparsify --layers 0-3,7

With --to a model, with --format a dictionary; "auto" is circuit-tracer's format where it can say everything, else ours.
Nothing that is there is written over, and what the form cannot express is refused. What a dictionary's format says in
another way (folded scales, thresholds) is printed.
"""

from __future__ import annotations

import argparse


def options(sub: argparse.ArgumentParser) -> None:
    """The verb's options."""
    sub.add_argument(
        "source",
        help="model: Hugging Face folder, llama2.c .bin, our own folder, 'pocket'; or a dictionary of any format",
    )
    sub.add_argument("out", help="a new folder, or a new file for llama2c")
    sub.add_argument("--to", help="a model's form: huggingface, native, llama2c or orbax")
    sub.add_argument("--format", help="a dictionary's format, as docs/dictionaries.md has them, or auto")
    sub.add_argument(
        "--layers", help="of a dictionary: the model's layers to keep, such as 0-3,7 (default: all)"
    )
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
    from jaxinterp.core.errors import InputError

    if (options.to is None) == (options.format is None):
        raise InputError("one of --to (a model) and --format (a dictionary) is needed")
    if options.format is not None:
        return _dictionary(options)
    if options.layers is not None:
        raise InputError("--layers is of dictionaries, which are written with --format")
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


def _dictionary(options: argparse.Namespace) -> int:
    from jaxinterp.cli import shared
    from jaxinterp.dictionaries.convert import convert

    form = None if options.format == "auto" else options.format
    facts = convert(options.source, options.out, form, dtype=options.dtype, layers=options.layers)
    if options.json:
        shared.print_json(facts)
        return 0
    print(
        f"{facts['out']}: {facts['format']} (from {facts['source_format']}), {facts['kind']}, {facts['features']:,} "
        f"features, {facts['parameters']:,} parameters in {facts['dtype']}"
    )
    for text in facts["notes"] or ["nothing changed in meaning"]:
        print(f"  {text}")
    return 0
