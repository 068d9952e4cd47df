"""Measure a dictionary on held-out text: reconstruction, sparsity, predictions, Jacobians; or compare two.

  jaxinterp evaluate runs/clt/dictionary --model stories260K.bin --tokens 16384 --out figures.json
  jaxinterp evaluate sae --model gpt2 --text corpus.txt --layers 8 --against other-seed --saebench results
  jaxinterp evaluate sae --store stores/gpt2                 (reconstruction and sparsity, without the model)

FVE is 1 - Σ|y - ŷ|² / Σ|y - mean|², the mean over all evaluated tokens. See docs/evaluation.md for every figure.
"""

from __future__ import annotations

import argparse
from typing import Any

from jaxinterp.cli import shared
from jaxinterp.core.errors import InputError


def options(sub: argparse.ArgumentParser) -> None:
    """The verb's options."""
    sub.add_argument("dictionary", help="folder or file of a dictionary, 'pocket' or 'pocket-plt'")
    sub.add_argument("--model", help="the model it was made for (may be left out with --store)")
    sub.add_argument("--tokenizer", help="the model's tokenizer (default: beside the model)")
    text = sub.add_mutually_exclusive_group()
    text.add_argument(
        "--text", default="sampled",
        help=".txt, .jsonl, .parquet, .npy, a folder of token ids, module:function (default: the model's own text)",
    )  # fmt: skip
    text.add_argument("--store", help="a folder that 'jaxinterp collect' made with this model")
    sub.add_argument("--tokens", type=int, default=16_384, help="how many (default: 16384)")
    sub.add_argument("--length", type=int, help="tokens a sequence (default: 256, or the model's context)")
    sub.add_argument("--seed", type=int, default=1, help="of the text, probes and nulls (default: 1)")
    sub.add_argument("--layers", help="the model's layers that the dictionary's are, as in 3 or 3,7")
    sub.add_argument(
        "--skip-first", action="store_true",
        help="leave the first token of every document out, and as it is",
    )  # fmt: skip
    sub.add_argument("--quick", action="store_true", help="no ablations, no layers alone, no Jacobians")
    sub.add_argument("--jacobian", type=int, default=128, help="tokens of the Jacobian cosine (default: 128)")
    sub.add_argument("--max-frequency", type=float, help="of tokens that count for confident agreement")
    sub.add_argument("--against", help="another dictionary, to match features with")
    sub.add_argument("--against-model", help="the other dictionary's model, where it is another one")
    sub.add_argument("--microbatch", type=int, default=16, help="sequences at a time (default: 16)")
    sub.add_argument("--dtype", default="float32", choices=("float32", "float64"))
    sub.add_argument(
        "--dense-above", type=float, default=0.1, help="density of dense features (default: 0.1)"
    )
    sub.add_argument("--features", action="store_true", help="the density of every feature, too, in JSON")
    sub.add_argument("--out", help="write the record as .json")
    sub.add_argument("--saebench", metavar="FOLDER", help="write SAEBench's core results, a file a layer")
    sub.add_argument("--json", action="store_true", help="print the record as JSON")


def run(options: argparse.Namespace) -> int:
    """Measure, print, write."""
    shared.check_out(options.out, (".json",))
    if options.model is None and not options.store:
        raise InputError("give --model, and --text if not the model's own; or --store")
    if options.saebench and (options.quick or not options.model):
        raise InputError("--saebench needs the model, and each layer alone: leave --quick out")
    from jaxinterp.core.files import write_json
    from jaxinterp.dictionaries import load_dictionary
    from jaxinterp.evaluation.applying import at_layers
    from jaxinterp.evaluation.full import full
    from jaxinterp.evaluation.report import report

    model = _model(options, options.model)
    dictionary = load_dictionary(options.dictionary, dtype=options.dtype)
    if options.layers:
        dictionary = at_layers(dictionary, _integers(options.layers))
    record, measured = full(
        dictionary, _config(options), model=model, **_text(options, model),
        against=_against(options, model),
    )  # fmt: skip
    record["text"] = {"source": options.store or options.text, **record["text"]}
    if options.out:
        write_json(options.out, record)
    if options.saebench:
        _saebench(options, measured, model, dictionary)
    if options.json:
        shared.print_json(record)
    else:
        print(report(record))
    return 0


def _model(options: argparse.Namespace, name: str | None) -> Any:
    if options.dtype == "float64":
        import jax

        jax.config.update("jax_enable_x64", True)
    if name is None:
        return None
    from jaxinterp.checkpoints import load_model

    return load_model(name, tokenizer=options.tokenizer, dtype=options.dtype)


def _text(options: argparse.Namespace, model: Any) -> dict[str, Any]:
    from jaxinterp.activations import Store, TextConfig, make_source

    if options.store:
        return {"store": Store(options.store)}
    length = options.length or min(256, model.config.context)
    batch = max(1, min(64, -(-options.tokens // length)))
    config = TextConfig(source=options.text, length=length, batch=batch)
    return {"source": make_source(config, model, options.seed)}


def _config(options: argparse.Namespace) -> Any:
    from jaxinterp.evaluation.full import FullConfig
    from jaxinterp.evaluation.language import LanguageConfig

    language = LanguageConfig(
        ablations=() if options.quick else ("zero", "mean"), each_layer=not options.quick,
        first_tokens=not options.skip_first, max_frequency=options.max_frequency,
    )  # fmt: skip
    return FullConfig(
        tokens=options.tokens, microbatch=options.microbatch, language=language, features=options.features,
        jacobian=0 if options.quick else options.jacobian, seed=options.seed, dense_above=options.dense_above,
    )  # fmt: skip


def _against(options: argparse.Namespace, model: Any) -> Any:
    if not options.against:
        if options.against_model:
            raise InputError("--against-model is the model of --against: give that, too")
        return None
    from jaxinterp.dictionaries import load_dictionary
    from jaxinterp.evaluation.applying import at_layers

    other = load_dictionary(options.against, dtype=options.dtype)
    if options.layers and not options.against_model and not other.config.layers:
        other = at_layers(other, _integers(options.layers))
    return (_model(options, options.against_model) if options.against_model else model), other


def _saebench(options: argparse.Namespace, measured: Any, model: Any, dictionary: Any) -> None:
    from pathlib import Path

    from jaxinterp.core.files import write_json
    from jaxinterp.evaluation.saebench import core, file_name

    folder = Path(options.saebench)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write into {folder}: {error.strerror or error}") from error
    for own in range(dictionary.config.n_layers):
        result = core(measured, model, dictionary, own, dataset=options.store or options.text)
        write_json(folder / file_name(result), result)


def _integers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.replace(",", " ").split()]
    except ValueError as error:
        raise InputError(f"--layers {text!r}: expected whole numbers separated by commas") from error
