"""What the viewer's server computes before a page can draw, in CPU seconds and memory.

    python -m tests.benchmarks.bench_viewer_server [FILE ...]

Each file in a process of its own; without files, synthetic graphs of 500 nodes and of 10,000 nodes with 1,000,000
links (native format). "peak" is that of the whole process, Python and libraries included.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def measured(name: str, work: Callable[[], Any]) -> Any:
    """The result, after a line with its seconds."""
    begin, wall = time.process_time(), time.perf_counter()
    found = work()
    spent, took = time.process_time() - begin, time.perf_counter() - wall
    print(f"  {name:<28} {spent:8.3f} s CPU {took:8.3f} s   peak {peak():6.0f} MB", flush=True)
    return found


def peak() -> float:
    """MB that this process has held at most. What getrusage says includes the program that started it."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def one(path: Path) -> None:
    """Everything that opening, looking and saving asks of the server."""
    begin = time.process_time()
    from jaxinterp.viewer.compare import compare
    from jaxinterp.viewer.library import Library
    from jaxinterp.viewer.view import empty

    print(f"{path.name} ({path.stat().st_size:,} bytes); imports {time.process_time() - begin:.3f} s CPU")
    library = Library([path])
    measured("list", library.listed)
    opened = measured("load", lambda: library.open(0))
    print(f"  {len(opened.graph):,} nodes, {len(opened.graph.weights):,} links")
    data = measured("bundle", opened.bundle)
    print(f"  {len(data):,} bytes")
    measured("bundle again", opened.bundle)
    measured("report", opened.report_now)
    view = {**empty(), "pinned": list(range(min(200, len(opened.graph))))}
    revision = opened.current().revision
    measured("autosave", lambda: opened.save(view, revision, into_file=False))
    measured("save", lambda: opened.save(view, revision + 1, into_file=True))
    measured("compare with itself", lambda: compare(opened.graph, opened.graph))


def main() -> None:
    """Measure copies of the files given, or synthetic ones."""
    if len(sys.argv) > 2 and sys.argv[1] == "--one":
        one(Path(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(name) for name in sys.argv[1:]]
        for file in files:
            (Path(folder) / file.name).write_bytes(file.read_bytes())
        if not files:
            from tests.viewer.synthetic import synthetic

            synthetic(500, 6000).save(Path(folder) / "nodes-500.jigraph")
            synthetic(10_000, 1_000_000, layers=26, tokens=40).save(Path(folder) / "nodes-10000.jigraph")
        for file in sorted(Path(folder).iterdir()):
            subprocess.run(
                [sys.executable, "-m", "tests.benchmarks.bench_viewer_server", "--one", str(file)], check=True
            )


if __name__ == "__main__":
    main()
