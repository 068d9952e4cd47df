"""The package as a whole: import time, public names, floors."""

from __future__ import annotations

import ast
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import jaxinterp

ROOT = Path(jaxinterp.__file__).parent
FLOORS = {
    "core": 1, "parallel": 2, "graphs": 2, "dashboards": 2, "models": 3, "checkpoints": 4, "dictionaries": 4,
    "activations": 5, "replacement": 5, "attribution": 6, "evaluation": 7, "training": 8, "interpret": 8, "biology": 9,
    "viewer": 9, "serve": 9, "cli": 10,
}  # fmt: skip


def cpu_seconds(arguments: list[str]) -> float:
    """User and system time of a fresh Python process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize(
    ("arguments", "limit"),
    [(["-c", "import jaxinterp"], 1.0), (["-m", "jaxinterp.cli.main", "--help"], 1.5)],
    ids=["import", "help"],
)
def test_start_is_fast(arguments: list[str], limit: float) -> None:
    """The best of three, because the machine may be busy with something else."""
    assert min(cpu_seconds(arguments) for _ in range(3)) < limit


def test_public_names_exist() -> None:
    for name in jaxinterp.__all__:
        assert getattr(jaxinterp, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'tracee'"):
        jaxinterp.tracee  # noqa: B018


def imports(path: Path) -> set[str]:
    """Rooms that a file imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {name.split(".")[1] for name in names if name.startswith("jaxinterp.")}
    return found


@pytest.mark.parametrize("room", sorted(FLOORS))
def test_imports_go_down(room: str) -> None:
    for path in (ROOT / room).rglob("*.py"):
        for other in imports(path) - {room}:
            assert other in FLOORS, f"{path.name} imports the unknown room {other}"
            assert FLOORS[other] <= FLOORS[room], f"{room}/{path.name} imports {other}, a room above it"


def test_every_room_has_a_floor() -> None:
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert rooms == set(FLOORS)
