"""Configurations: strict keys, near matches, overrides, the resolved file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from jaxinterp.core.errors import InputError
from jaxinterp.training import api, configs
from jaxinterp.training.dictionary import DictionaryRun

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    name: str | None = None


@dataclass(frozen=True)
class Outer:
    steps: int
    flag: bool = False
    sizes: tuple[int, ...] = ()
    inner: Inner = field(default_factory=Inner)


def parse(text: str, *overrides: str, path: Path) -> Outer:
    path.write_text(text)
    return configs.parse(Outer, configs.read(path, overrides), "c")


def test_values_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    found = parse("steps: 3\ninner: {rate: 1e-3}", "inner.name=x", "sizes=[1, 2]", "flag=true", path=path)
    assert found == Outer(3, True, (1, 2), Inner(1e-3, "x"))
    assert parse("steps: 3", "inner.rate=2", path=path).inner.rate == 2.0
    assert parse("steps: 3\ninner: {name: x}", "inner.name=null", path=path).inner.name is None


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("step: 3", (), "unknown field 'step' .did you mean steps"),
        ("flag: true", (), "the field 'steps' is missing"),
        ("steps: three", (), "steps is 'three', expected a whole number"),
        ("steps: 3.5", (), "expected a whole number"),
        ("steps: true", (), "expected a whole number"),
        ("steps: 3\nflag: 1", (), "expected true or false"),
        ("steps: 3\ninner: {rte: 1}", (), "c: inner: unknown field 'rte' .did you mean rate"),
        ("steps: 3\ninner: 4", (), "inner: expected fields"),
        ("steps: 3\nsizes: [1, x]", (), r"sizes\[1\] is 'x'"),
        ("steps: 3\nsizes: 4", (), "expected a list"),
        ("steps: 3", ("inner.rate",), "expected key=value"),
        ("steps: 3", ("steps.x=1",), "steps is a value and has no fields"),
        ("steps: [", (), "is not YAML"),
        ("- 1", (), "found list"),
    ],
)
def test_everything_else_is_refused(
    tmp_path: Path, text: str, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse(text, *overrides, path=tmp_path / "c.yaml")
    assert "\n" not in str(caught.value)


def test_no_such_file_and_no_such_task(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        api.load(tmp_path / "none.yaml")
    (tmp_path / "c.yaml").write_text("task: dictionry\nsteps: 1")
    with pytest.raises(InputError, match="did you mean dictionary"):
        api.load(tmp_path / "c.yaml")


def test_a_resolved_config_reads_back_as_itself(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("task: dictionary\nmodel: x\nsteps: 7\ntext: {length: 9}")
    name, config, loop = api.load(tmp_path / "c.yaml", ["sparsity.l0=3"])
    assert isinstance(config, DictionaryRun) and config.text.length == 9 and config.sparsity.l0 == 3.0
    (tmp_path / "d.yaml").write_text(yaml.safe_dump(api.resolved(name, config, loop)))
    assert api.load(tmp_path / "d.yaml") == (name, config, loop)


def test_the_first_difference_is_named() -> None:
    one = configs.to_dict(Outer(3))
    two = configs.to_dict(dataclasses.replace(Outer(3), inner=Inner(0.25)))
    assert configs.first_difference(one, one) is None
    assert configs.first_difference(one, two) == "inner.rate: 0.5 there, 0.25 here"


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda p: str(p.relative_to(CONFIGS)))
def test_every_shipped_config_is_understood(path: Path) -> None:
    name, config, _ = api.load(path)
    assert name in api.TASKS
    assert config.steps > 0
