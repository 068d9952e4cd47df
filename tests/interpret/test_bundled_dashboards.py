"""The dashboards in the package are of the dictionaries in the package, and are what the recipe gives."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxinterp.activations.documents import origin
from jaxinterp.biology.pocket import dashboards_recipe, mixture
from jaxinterp.checkpoints import load_model
from jaxinterp.dashboards import bundled, own
from jaxinterp.dictionaries import load_dictionary
from jaxinterp.interpret import make_dashboards
from jaxinterp.interpret.encoding import encoder
from jaxinterp.parallel.mesh import make

LENGTH = 64


@pytest.mark.parametrize("name", dashboards_recipe.NAMES)
def test_they_are_whole_and_of_the_bundled_dictionaries(name: str) -> None:
    found = bundled(name)
    assert found is not None
    found.verify()
    model, dictionary, config = load_model("pocket"), load_dictionary(name), dashboards_recipe.config()
    made = found.manifest["provenance"]
    assert made["model"] == {"name": "pocket", "digest": model.digest()}
    assert made["dictionary"] == {"name": name, "digest": dictionary.digest(), "kind": dictionary.config.kind}
    assert made["settings"] == {**config.settings(), "sequences": config.sequences}
    assert made["text"]["source"] == origin(config.text)
    assert found.layers() == dict.fromkeys(range(4), 1024)
    file = found.layer(0)
    assert file is not None and file.seen == config.sequences * LENGTH
    size = sum(path.stat().st_size for path in found.folder.iterdir())
    assert size < 2_000_000


def test_names() -> None:
    one, other = bundled("pocket"), bundled("pocket-clt")
    assert one is not None and other is not None and one.folder == other.folder
    assert bundled("another") is None


def test_examples_are_what_the_model_gives() -> None:
    """Examples are looked up in the text that the recipe reads, and their activations computed anew."""
    found = bundled("pocket")
    assert found is not None
    model, dictionary, seed = load_model("pocket"), load_dictionary("pocket"), dashboards_recipe.config().seed
    run = jax.jit(encoder(model, dictionary, (0, 1, 2, 3), (0, 1, 2, 3), "sparse"))
    wanted: dict[int, list[tuple[int, int, Any]]] = {}
    for layer, index in ((3, 17), (2, 100), (1, 200), (0, 30)):
        record = found.feature(layer, index)
        assert record is not None
        for group in record["examples"]:
            for one in group["examples"][:2]:
                sequence, token = map(int, re.findall(r"\d+", one["where"]))
                wanted.setdefault(sequence, []).append((layer, index, (one, token)))
    assert len(wanted) > 8
    for sequence, examples in wanted.items():
        text = mixture.batch(seed, sequence, 1, LENGTH)
        a = np.asarray(
            run(model.params, dictionary.params, text["tokens"], text["segments"], text["positions"])
        )
        for layer, index, (one, token) in examples:
            begin = token - one["at"]
            here = slice(begin, begin + len(one["tokens"]))
            assert [model.tokenizer.text(int(t)) for t in text["tokens"][0, here]] == one["tokens"]
            np.testing.assert_allclose(a[layer, here, index], one["values"], rtol=2e-3, atol=2e-3)


@pytest.mark.slow
def test_the_recipe_gives_them_again(tmp_path: Path) -> None:
    """All of it once more. Other versions of the libraries may differ in the last digit, and so in the bytes."""
    found = bundled("pocket")
    assert found is not None
    made = make_dashboards(
        load_model("pocket"), load_dictionary("pocket-clt"), dashboards_recipe.config(), tmp_path / "it"
    )
    if made.manifest["provenance"] == found.manifest["provenance"]:
        for path in sorted(made.folder.glob("mlp_*.jidash")):
            one, other = (folder.layer(int(path.stem[-2:])) for folder in (made, found))
            assert one is not None and other is not None
            assert (one.counts() == other.counts()).mean() > 0.99
    for layer in range(4):
        one, other = made.layer(layer), found.layer(layer)
        assert one is not None and other is not None
        np.testing.assert_allclose(
            one.counts().astype(float), other.counts().astype(float), rtol=1e-3, atol=3
        )
        np.testing.assert_allclose(one.largest(), other.largest(), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_pocket_on_one_and_eight_devices(tmp_path: Path) -> None:
    """Blocks as large as a real run has them; the last round of blocks does not fill all devices."""
    model, dictionary = load_model("pocket"), load_dictionary("pocket")
    config = dashboards_recipe.config(tokens=4096 * 11)
    made = [
        make_dashboards(model, dictionary, config, tmp_path / str(n), mesh=make(n, devices=jax.devices()[:n]))
        for n in (1, 8)
    ]
    assert own.digest(made[0].folder) == own.digest(made[1].folder)
