"""CPU seconds of dashboards for a million tokens, beside the floor: forward pass and encoders over the same tokens.

  python tests/benchmarks/bench_dashboards.py --tokens 262144
  python tests/benchmarks/bench_dashboards.py --model FOLDER --dictionary FOLDER --text corpus.jsonl --only floor,whole

Everything is counted in CPU seconds of this process and given for a million tokens. "floor" is the compiled forward
pass with the encoders, tokens made beforehand; "text" makes the tokens; "pass" is the pass over them (text, floor,
counting); "whole" is a run, with compilation and files. "compact" is the pass with active pairs chosen on the device.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxinterp.activations.text import TextConfig, make_source, with_batch
from jaxinterp.checkpoints import load_model
from jaxinterp.core.progress import Progress
from jaxinterp.dictionaries import load_dictionary
from jaxinterp.interpret import DashboardConfig, estimate, make_dashboards
from jaxinterp.interpret.encoding import Encoding
from jaxinterp.interpret.making import Pass
from jaxinterp.interpret.planning import plan
from jaxinterp.interpret.reading import Reader
from jaxinterp.interpret.saved import Saved
from jaxinterp.interpret.tally import Tally
from jaxinterp.parallel.mesh import make
from jaxinterp.parallel.rules import DEFAULT_RULES

PARTS = ("text", "floor", "pass", "compact", "whole")


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of this process, and what came out."""
    began = time.process_time()
    result = run()
    return time.process_time() - began, result


def main() -> None:
    options = parse()
    model, dictionary = load_model(options.model), load_dictionary(options.dictionary)
    length = min(options.length, model.config.context)
    config = DashboardConfig(tokens=options.tokens, text=TextConfig(options.text, length=length))
    source = make_source(with_batch(config.text, config.block), model, 0)
    planned = plan(model, dictionary, config, source)
    memory = estimate(model, dictionary, config, source)["bytes"]
    million = planned.tokens / 1e6
    features = len(planned.groups) * planned.features
    print(f"{features} features, {planned.tokens} tokens, blocks of {config.block * length}")
    print({name: f"{size / 2**20:.1f} MiB" for name, size in memory.items()})
    only = options.only.split(",")
    reader = Reader(source, config, planned.sequences, model.config.vocab_size)

    def encoding(compact: bool | None = False) -> Encoding:
        return Encoding(
            model, dictionary, planned.groups, planned.model_layers, make(1), DEFAULT_RULES, block=config.block,
            length=length, compact=compact,
        )  # fmt: skip

    taken, blocks = seconds(lambda: [reader.block(n) for n in range(reader.blocks)])
    if "text" in only:
        print(f"text     {taken / million:8.1f} s")
    if "floor" in only:
        own = encoding()
        arguments = (own._params, own._dictionary)
        own._dense(*arguments, *blocks[0].batch[:3]).block_until_ready()
        taken, _ = seconds(lambda: [own._dense(*arguments, *b.batch[:3]).block_until_ready() for b in blocks])
        print(f"floor    {taken / million:8.1f} s")
    for name in ("pass", "compact"):
        if name in only:
            own = encoding(name == "compact")
            for _ in range(2 if name == "compact" else 1):
                own.start([blocks[0].batch])()
            with tempfile.TemporaryDirectory() as folder:
                tallies = [Tally(i, planned.features, config) for i in range(len(planned.groups))]
                saved = Saved(Path(folder), {})
                scratch = saved.scratch(reader.blocks, config.block * length)
                run = Pass(reader, own, tallies, saved, scratch, Progress("", quiet=True))
                taken, _ = seconds(lambda run=run: run.all(0, 60.0))
                print(f"{name:8} {taken / million:8.1f} s")
    if "whole" in only:
        folder = Path(tempfile.mkdtemp())
        wall = time.monotonic()
        taken, made = seconds(
            lambda: make_dashboards(model, dictionary, config, folder / "it", source=source)
        )
        size = sum(path.stat().st_size for path in made.folder.iterdir())
        print(
            f"whole    {taken / million:8.1f} s  ({taken:.1f} CPU, {time.monotonic() - wall:.1f} wall, {size} bytes)"
        )
        began = time.perf_counter()
        records = [made.feature(layer, 17, planned.part) for layer in planned.layers for _ in range(25)]
        print(f"reading  {(time.perf_counter() - began) / len(records) * 1e3:8.2f} ms a feature")
        shutil.rmtree(folder)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--dictionary", default="pocket")
    parser.add_argument("--text", default="jaxinterp.biology.pocket.mixture:batch")
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    return parser.parse_args()


if __name__ == "__main__":
    main()
