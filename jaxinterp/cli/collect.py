"""Run a model over text and store the activations of any of its sites.

  jaxinterp collect model=pocket batches=64 sites='[mlp_in, "resid_post@3,7"]' dtype=int8 --out stores/pocket
  jaxinterp collect collect.yaml text.source=stories.jsonl --mesh 4,2 --out stores/stories

Settings come from a YAML file, if one is named first, and from key=value arguments: model, sites, dictionaries (their
sites are collected too), batches (of text.batch sequences of text.length tokens), text.source (sampled, .txt, .jsonl,
.parquet, .npy, a folder of token ids, or module:function), dtype (float32, bfloat16, int8), weights, microbatch,
shard_batches, seed. Run again with the same --out, an interrupted collection goes on; the result has the same bytes.
Several processes see the same --out and write one store (--multihost).
"""

from __future__ import annotations

import argparse


def options(sub: argparse.ArgumentParser) -> None:
    """The verb's options."""
    sub.add_argument(
        "settings", nargs="*", metavar="CONFIG or key=value", help="a YAML file, and changes to it"
    )
    sub.add_argument("--out", required=True, help="folder of the store")
    sub.add_argument(
        "--mesh", metavar="DATA,MODEL",
        help="devices along the batch and along the model's width, as in 4,2 (default: one device)",
    )  # fmt: skip
    sub.add_argument("--multihost", action="store_true", help="join the other processes first")
    sub.add_argument("--repair", action="store_true", help="check every byte and collect damaged shards anew")
    sub.add_argument(
        "--verify", action="store_true", help="collect nothing: check every byte of a finished store"
    )
    sub.add_argument("--json", action="store_true", help="print what the store is as JSON")
    sub.add_argument("--quiet", action="store_true", help="no progress")


def run(options: argparse.Namespace) -> int:
    """Collect, and say what the store is."""
    from jaxinterp.activations.collect_run import CollectRun, collect_from
    from jaxinterp.activations.store_reader import Store
    from jaxinterp.cli import shared
    from jaxinterp.cli.train import _mesh
    from jaxinterp.training import configs

    if options.verify:
        store = Store(options.out)
        store.verify()
    else:
        if options.multihost:
            from jaxinterp.parallel.hosts import start

            start()
        path, changes = None, options.settings
        if changes and "=" not in changes[0]:
            path, *changes = changes
        settings = configs.parse(CollectRun, configs.read(path, changes), path or "collect")
        store = collect_from(
            settings, options.out, mesh=_mesh(options.mesh), repair=options.repair, quiet=options.quiet
        )
    if options.json:
        shared.print_json(store.facts())
    else:
        print("\n".join(f"{name:<9} {value}" for name, value in store.facts().items()))
    return 0
