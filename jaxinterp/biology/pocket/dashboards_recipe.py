"""The dashboards that come with the package: one million tokens of pocket's own text.

`python -m jaxinterp.biology.pocket.dashboards_recipe` makes them anew and writes them into the package. They are kept
small: fewer and shorter examples than usual, numbers with three digits.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from jaxinterp.activations.text import TextConfig
from jaxinterp.checkpoints import load_model
from jaxinterp.core.errors import InputError
from jaxinterp.core.files import atomic_folder
from jaxinterp.dashboards.labels import FILE
from jaxinterp.dashboards.opening import BUNDLED
from jaxinterp.dictionaries import load_dictionary
from jaxinterp.interpret import DashboardConfig, make_dashboards

NAMES = ("pocket-clt", "pocket-plt")


def config(tokens: int = 1_000_000) -> DashboardConfig:
    """The settings of the bundled dashboards; the text is of another seed than any that something was trained on."""
    return DashboardConfig(
        tokens=tokens, text=TextConfig("jaxinterp.biology.pocket.mixture:batch", length=64), seed=2_000_003,
        top=8, quantiles=3, in_quantile=2, before=16, after=5, logits=5, neighbours=4, coactive=4, real="float16",
    )  # fmt: skip


def main(arguments: Sequence[str]) -> None:
    """Make those that are named, or both, and put them in their place; labels stay."""
    for name in arguments or NAMES:
        if name not in NAMES:
            raise InputError(f"nothing bundled is called {name!r}: there are {', '.join(NAMES)}")
        model, dictionary = load_model("pocket"), load_dictionary(name)
        with tempfile.TemporaryDirectory() as scratch:
            made = make_dashboards(model, dictionary, config(), Path(scratch) / name, quiet=False)
            with atomic_folder(BUNDLED[name]) as folder:
                shutil.copytree(made.folder, folder, dirs_exist_ok=True)
                if (BUNDLED[name] / FILE).is_file():
                    shutil.copy(BUNDLED[name] / FILE, folder / FILE)


if __name__ == "__main__":
    main(sys.argv[1:])
