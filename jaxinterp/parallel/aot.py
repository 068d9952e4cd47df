"""Compiling ahead of time for TPU slices that are not there, and what a program needs of their memory.

Needs libtpu, the compiler that ``jax[tpu]`` installs: where it is not installed, ``TPU_LIBRARY_PATH`` says where its
``libtpu.so`` lies. What comes out is whether a program compiles and fits, never how fast it runs.
"""

from __future__ import annotations

import importlib.util
import math
import os
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxinterp.core.errors import InputError

if TYPE_CHECKING:
    import jax
    from jax.sharding import Mesh

GIB = 2**30


class Memory(NamedTuple):
    """Bytes of one chip's memory.

    Attributes:
      arguments, outputs, temporaries: of each sort; peak: the most that is in use at once.
      aliased: of the outputs, what takes the place of donated arguments.
    """

    arguments: int
    outputs: int
    temporaries: int
    peak: int
    aliased: int = 0


class TooLarge(NamedTuple):
    """A program that does not fit: bytes that it needs and that a chip has (0: not said), and the compiler's words."""

    needed: int
    available: int
    reason: str


class Report(NamedTuple):
    """What compiling found out.

    Attributes:
      memory: of one chip; None when the program does not fit.
      too_large: why not; None when it fits.
      collectives: how often each kind of collective operation stands in the program (a loop's body counts once).
      code: bytes of the program.
      gathered: bytes of the largest array that an all-gather or all-to-all gives a chip.
    """

    memory: Memory | None
    too_large: TooLarge | None
    collectives: dict[str, int]
    code: int = 0
    gathered: int = 0


COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


def available() -> str | None:
    """None where slices can be described, else the reason why not."""
    path = os.environ.get("TPU_LIBRARY_PATH")
    if path is not None:
        return None if os.path.isfile(path) else f"TPU_LIBRARY_PATH names {path}, which is no file"
    if importlib.util.find_spec("libtpu") is not None:
        return None
    return "libtpu is not installed and TPU_LIBRARY_PATH is not set"


def devices(topology: str) -> list[jax.Device]:
    """The chips of a slice such as ``"v5e:4x4"`` (v5e, v5p, v6e and others), to make a mesh of.

    Raises:
      InputError: no libtpu, or a slice that it does not know.
    """
    reason = available()
    if reason is not None:
        raise InputError(f"cannot compile for {topology}: {reason}")
    # Nothing here asks for a slice of one's own, so neither metadata nor the lock on one is needed.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology, **_host(topology))
    except Exception as error:  # jaxlib raises its own kinds
        raise InputError(
            f"no TPU slice {topology!r} (as in v5e:4x4, v5p:2x2x1): {_first_line(error)}"
        ) from error
    return list(found.devices)


def mesh_on(topology: str, mesh: str) -> Mesh:
    """The mesh that a text as in "data=2,model=8" describes, on all devices of a slice.

    Raises:
      InputError: see `devices`; a mesh that does not use all of it.
    """
    from jaxinterp.parallel.mesh import make, parse

    sizes, there = parse(mesh), devices(topology)
    if math.prod(sizes.values()) != len(there):
        raise InputError(
            f"the mesh {mesh!r} has {math.prod(sizes.values())} devices, the slice {topology} has {len(there)}"
        )
    return make(sizes.get("data", 1), sizes.get("model", 1), expert=sizes.get("expert", 1), devices=there)


def chips(topology: str) -> int:
    """How many chips a slice has by its name; some generations have two devices on a chip."""
    sizes = re.search(r":(\d+(?:x\d+)*)", topology)
    return math.prod(int(size) for size in sizes[1].split("x")) if sizes else 0


def _host(topology: str) -> dict[str, Any]:
    """How many chips a host has, said for slices smaller than the four that libtpu assumes."""
    sizes = re.search(r":(\d+(?:x\d+)*)$", topology)
    chips = [int(size) for size in sizes[1].split("x")] if sizes else []
    if not chips or math.prod(chips) >= 4:
        return {}
    return {"chips_per_host_bounds": (*chips, 1, 1)[:3]}


def compile_for(
    function: Callable[..., Any], arguments: Sequence[Any], *, out_shardings: Any = None,
    donate: tuple[int, ...] = (),
) -> Report:  # fmt: skip
    """Compile ``jax.jit(function)`` for the devices that its arguments' shardings name.

    Args:
      function: a function of arrays.
      arguments: pytrees of `jax.ShapeDtypeStruct` with shardings.
      out_shardings: as of `jax.jit`; None lets the compiler choose.
      donate: numbers of the arguments whose memory the outputs may take over.

    Raises:
      InputError: shardings that do not fit the function.
    """
    import jax

    keywords = {} if out_shardings is None else {"out_shardings": out_shardings}
    return compile_jitted(jax.jit(function, donate_argnums=donate, **keywords), arguments)


def compile_jitted(jitted: Any, arguments: Sequence[Any]) -> Report:
    """As `compile_for`, of what `jax.jit` made already."""
    try:
        compiled = jitted.lower(*arguments).compile()
    except Exception as error:  # CompileTimeHbmOom or XlaRuntimeError, by version of jaxlib
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Report(None, _too_large(str(error)), {})
    found: Any = compiled.memory_analysis()
    memory = Memory(
        found.argument_size_in_bytes,
        found.output_size_in_bytes,
        found.temp_size_in_bytes,
        found.peak_memory_in_bytes,
        found.alias_size_in_bytes,
    )
    program = compiled.as_text() or ""
    return Report(memory, None, collectives(program), found.generated_code_size_in_bytes, gathered(program))


def describe(report: Report) -> dict[str, Any]:
    """A report as JSON values, sizes in GiB."""
    if report.memory is not None:
        sizes = {f"{name}_gib": size / GIB for name, size in report.memory._asdict().items()}
        return {
            "fits": True,
            **sizes,
            "gathered_gib": report.gathered / GIB,
            "collectives": report.collectives,
        }
    assert report.too_large is not None
    return {
        "fits": False, "needed_gib": report.too_large.needed / GIB,
        "available_gib": report.too_large.available / GIB, "reason": report.too_large.reason,
    }  # fmt: skip


_SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "f64": 8}


def gathered(program: str) -> int:
    """Bytes of the largest result of an all-gather or all-to-all in the text of a compiled program, 0 where none is."""
    largest = 0
    for result in re.findall(r"= (.*?) (?:all-gather|all-to-all)(?:-start)?\(", program):
        for kind, dims in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", result):
            numbers = math.prod(int(size) for size in dims.split(",") if size)
            largest = max(largest, _SIZES.get(kind, 4) * numbers)
    return largest


def collectives(program: str) -> dict[str, int]:
    """How often each of `COLLECTIVES` stands in the text of a compiled program; started and done counts once."""
    counts = {kind: len(re.findall(rf"\b{kind}(?:-start)?\(", program)) for kind in COLLECTIVES}
    return {kind: count for kind, count in counts.items() if count}


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def _too_large(text: str) -> TooLarge:
    """The figures in ``... (21.04G) exceeds available HBM (15.75G)`` or ``Used 21.50G of 15.75G hbm``."""
    size = r"([\d.]+)([KMGT]?)"
    found = re.search(rf"\({size}\) exceeds available HBM \({size}\)", text)
    found = found or re.search(rf"Used {size} of {size} hbm", text)
    needed, free = (int(float(found[i]) * _UNITS[found[i + 1]]) for i in (1, 3)) if found else (0, 0)
    return TooLarge(needed, free, _first_line(text))


def _first_line(error: object) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
