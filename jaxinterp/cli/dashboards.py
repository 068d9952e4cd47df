"""Compute what features do: examples, histograms, effects on logits, neighbours; or export, check, show what is there.

  jaxinterp dashboards --model gpt2 --dictionary sae --text corpus.jsonl --tokens-limit 10000000 --out dashboards/sae
  jaxinterp dashboards --model pocket --dictionary pocket --text jaxinterp.biology.pocket.mixture:batch --out pocket
  jaxinterp dashboards --out pocket --export circuit-tracer features/
  jaxinterp dashboards --out pocket --feature 3/17

One pass over the text. Run again with the same --out, an interrupted run goes on; the files have the same bytes, on any
number of devices. --dry-run says first what it will take. See docs/dashboards.md.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from typing import Any

from jaxinterp.cli import shared
from jaxinterp.core.errors import InputError

LAYOUTS = ("circuit-tracer", "circuit-tracer-json", "neuronpedia", "saedashboard")


def options(sub: argparse.ArgumentParser) -> None:
    """The verb's options."""
    sub.add_argument("--model", help="Hugging Face folder, llama2.c .bin, our own folder, or 'pocket'")
    sub.add_argument("--dictionary", help="folder of a dictionary, 'pocket' (its CLT) or 'pocket-plt'")
    sub.add_argument("--tokenizer", help="the model's tokenizer (default: beside the model)")
    sub.add_argument(
        "--text", "--tokens", metavar="SOURCE", default="sampled",
        help=".txt, .jsonl, .parquet, .npy, a folder of token ids, module:function (default: the model's own text)",
    )  # fmt: skip
    sub.add_argument(
        "--tokens-limit", type=int, default=1_000_000, metavar="N", help="tokens (default: 1000000)"
    )
    sub.add_argument("--length", type=int, help="tokens a sequence (default: 256, or the model's context)")
    sub.add_argument("--seed", type=int, default=0, help="of the text (default: 0)")
    sub.add_argument("--out", required=True, metavar="FOLDER", help="where dashboards are, or will be")
    sub.add_argument("--layers", help="of the model, as in 3 or 3,7 (default: all that the dictionary has)")
    sub.add_argument("--top", type=int, default=20, help="texts with the largest activations (default: 20)")
    sub.add_argument("--quantiles", type=int, default=5, help="groups of further texts (default: 5)")
    sub.add_argument("--in-quantile", type=int, default=5, help="texts in each (default: 5)")
    sub.add_argument("--before", type=int, default=40, help="tokens shown before a peak (default: 40)")
    sub.add_argument("--after", type=int, default=20, help="tokens shown after it (default: 20)")
    sub.add_argument("--skip-first", action="store_true", help="first tokens of documents do not count")
    sub.add_argument("--microbatch", type=int, default=0, help="sequences a device runs at a time")
    sub.add_argument(
        "--real", default="float32", choices=("float32", "float16"), help="how numbers are stored"
    )
    sub.add_argument(
        "--mesh", metavar="DATA,MODEL", help="devices along sequences and along the model's width"
    )
    sub.add_argument(
        "--export", nargs=2, action="append", default=[], metavar=("LAYOUT", "OUT"),
        help=f"write them in another layout, too: {', '.join(LAYOUTS)}",
    )  # fmt: skip
    sub.add_argument(
        "--name", help="what an export calls the set of features (default: the dictionary's name)"
    )
    sub.add_argument("--feature", metavar="LAYER/INDEX", help="print the record of a feature as JSON")
    sub.add_argument("--verify", action="store_true", help="check every byte of finished dashboards")
    sub.add_argument("--dry-run", action="store_true", help="say what it would take and compute nothing")
    sub.add_argument("--json", action="store_true", help="print what is there as JSON")
    sub.add_argument("--quiet", action="store_true", help="no progress")


def run(options: argparse.Namespace) -> int:
    """Compute, export, show."""
    for layout, _ in options.export:
        if layout not in LAYOUTS:
            raise InputError(f"--export {layout}: expected one of {', '.join(LAYOUTS)}")
    place = _feature(options.feature)
    if options.model is None or options.dictionary is None:
        if options.model or options.dictionary or options.dry_run:
            raise InputError(
                "give both --model and --dictionary, or neither to look at finished dashboards in --out"
            )
        from jaxinterp.dashboards.own import Dashboards

        found = Dashboards(options.out)
    else:
        found = _compute(options)
        if found is None:
            return 0
    if options.verify:
        found.verify()
    for layout, out in options.export:
        _export(found, layout, out, options.name)
    if place is not None:
        record = found.feature(*place) or next(
            (r for part in found.parts() if (r := found.feature(*place, part=part)) is not None), None
        )
        if record is None:
            raise InputError(f"{options.out} has no feature {options.feature}")
        shared.print_json(record)
        return 0
    facts = _facts(found)
    if options.json:
        shared.print_json(facts)
    else:
        print("\n".join(f"{name:<10} {value}" for name, value in facts.items()))
    return 0


def _compute(options: argparse.Namespace) -> Any:
    from jaxinterp.activations.text import TextConfig, make_source, with_batch
    from jaxinterp.checkpoints import load_model
    from jaxinterp.cli.train import _mesh
    from jaxinterp.dictionaries import load_dictionary
    from jaxinterp.interpret import DashboardConfig, estimate, make_dashboards

    model = load_model(options.model, tokenizer=options.tokenizer)
    dictionary = load_dictionary(options.dictionary)
    length = options.length or min(256, model.config.context)
    config = DashboardConfig(
        tokens=options.tokens_limit, text=TextConfig(options.text, length=length), seed=options.seed,
        layers=tuple(shared.integers("--layers", options.layers)) if options.layers else (), top=options.top,
        quantiles=options.quantiles, in_quantile=options.in_quantile, before=options.before, after=options.after,
        microbatch=options.microbatch, first_tokens=not options.skip_first, real=options.real,
    )  # fmt: skip
    mesh = _mesh(options.mesh)
    if options.dry_run:
        source = make_source(with_batch(config.text, config.block), model, config.seed)
        found = estimate(model, dictionary, config, source, mesh)
        if options.json:
            shared.print_json(found)
        else:
            print(_said(found))
        return None
    return make_dashboards(model, dictionary, config, options.out, mesh=mesh, quiet=options.quiet)


def _said(found: dict[str, Any]) -> str:
    size = {name: f"{number / 2**20:,.1f} MiB" for name, number in found["bytes"].items()}
    return "\n".join((
        f"features   {found['features']:,} of {found['part']}, layers {', '.join(map(str, found['layers']))}",
        f"tokens     {found['tokens']:,} in {found['blocks']:,} blocks of {found['block_tokens']:,}, "
        f"{found['ways']} at a time",
        f"memory     weights {size['weights']}, each device {size['device']} more, counting {size['host']}",
        f"disk       {size['scratch']} while it runs, at most {size['written']} in the end",
        f"operations {found['operations']:.2e}",
    ))  # fmt: skip


def _feature(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,9})[/:,](\d{1,9})", text)
    if match is None:
        raise InputError(f"--feature {text!r}: expected LAYER/INDEX, as in 3/17")
    return int(match[1]), int(match[2])


def _export(found: Any, layout: str, out: str, name: str | None) -> None:
    """Write finished dashboards in another layout."""
    from jaxinterp.dashboards import circuit_tracer, neuronpedia, saedashboard

    made = found.manifest.get("provenance", {})
    model = _plain(made.get("model", {}).get("name") or "model")
    chosen = name or made.get("dictionary", {}).get("name") or "features"
    settings, length = made.get("settings", {}), made.get("text", {}).get("length", 0)
    if layout.startswith("circuit-tracer"):
        write = circuit_tracer.export_json if layout.endswith("json") else circuit_tracer.export_binary
        write(found.features(), out, scan=chosen)
        return
    for part in found.parts():
        records: Iterator[Any] = (record for record in found.features() if record["part"] == part)
        tagged = _plain(chosen if len(found.parts()) == 1 else f"{chosen}-{part}")
        if layout == "neuronpedia":
            facts = {"num_prompts": settings.get("sequences", 0), "num_tokens_in_prompt": length}
            neuronpedia.export(records, out, model=model, source_set=tagged, facts=facts)
        else:
            saedashboard.export(
                records, out, model=model, source_set=tagged, sequences=settings.get("sequences", 0), length=length,
                dataset=str(made.get("text", {}).get("source", "")),
            )  # fmt: skip


def _plain(name: str) -> str:
    """A name of letters, digits, ``_ . -`` alone."""
    return re.sub(r"[^a-zA-Z0-9_.-]+", "-", name).strip(".") or "features"


def _facts(found: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {"folder": str(found.folder)}
    for part in found.parts():
        layers = found.layers(part)
        active = sum(int((found.layer(layer, part).counts() > 0).sum()) for layer in layers)
        facts[part] = (
            f"layers {', '.join(map(str, layers))}: {sum(layers.values())} features, {active} of them active"
        )
    first = next(iter(found.layers(found.parts()[0])), None) if found.parts() else None
    if first is not None:
        facts["tokens"] = found.layer(first, found.parts()[0]).seen
    names = [one["file"] for one in found.manifest["layers"]]
    facts["bytes"] = sum((found.folder / name).stat().st_size for name in names)
    facts["labels"] = len(found.labels.all())
    return facts
