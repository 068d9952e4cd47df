"""The project's own files agree with each other."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import jaxinterp
from tests.support import ROOT

pytestmark = pytest.mark.skipif(not (ROOT / "constraints").is_dir(), reason="not a checkout")


def pins(name: str) -> dict[str, str]:
    """Package → version for this Python, in one constraints file."""
    found = {}
    for line in (ROOT / "constraints" / name).read_text().splitlines():
        match = re.fullmatch(r'(\S+)==([^;\s]+)(?:; python_version (<|>=) "3\.12")?', line)
        if match:
            package, version, side = match.groups()
            if side is None or (side == ">=") == (sys.version_info >= (3, 12)):
                assert package not in found
                found[package] = version
        else:
            assert line.startswith("#"), line
    return found


def test_constraints_agree() -> None:
    own = f"python3.{'12' if sys.version_info >= (3, 12) else '11'}.txt"
    assert pins("any.txt") == pins(own)


def test_versions_agree() -> None:
    assert f"version: {jaxinterp.__version__}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {jaxinterp.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_readme_names_every_verb_and_links_exist() -> None:
    from jaxinterp.cli.main import VERBS

    text = (ROOT / "README.md").read_text()
    for verb in VERBS:
        assert f"jaxinterp {verb}" in text
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / link).exists(), link


def test_shell_scripts_parse() -> None:
    for script in (".ci/run", "tpu/run_on_slice.sh"):
        subprocess.run(["bash", "-n", str(ROOT / script)], check=True)


def test_test_files_have_names_of_their_own() -> None:
    """Without packages, pytest cannot tell two test files of one name apart."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
