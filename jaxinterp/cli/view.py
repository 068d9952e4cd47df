"""Look at attribution graphs in the browser: ours, circuit-tracer's, Neuronpedia's, Anthropic's.

  jaxinterp view graph.json
  jaxinterp view graphs/ other.jigraph --features dashboards/
  jaxinterp view graph.jigraph --export graph.html
  jaxinterp view graph.json --model pocket --dictionary pocket

Nothing leaves this machine: the server answers on 127.0.0.1 alone. What is pinned, grouped and named is kept beside the
graph (FILE.view.json) as it changes, and in the graph's own file by Save. With --model and --dictionary the page can
trace new prompts (needs the extra "serve"). Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
import webbrowser
from pathlib import Path
from typing import Any

from jaxinterp.cli.view_live import live, live_options
from jaxinterp.core.errors import InputError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def options(sub: argparse.ArgumentParser) -> None:
    """The verb's options."""
    sub.add_argument(
        "paths", nargs="*", metavar="FILE|FOLDER", help=".json or .jigraph files, or folders of them"
    )
    sub.add_argument("--port", type=int, help="port to listen on (default: 8765, or the next free one)")
    sub.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1)")
    sub.add_argument(
        "--anyone", action="store_true", help="with --host: let other machines look and change, unencrypted"
    )
    sub.add_argument(
        "--features", metavar="PATH", help="dashboards of the features: ours, circuit-tracer's, Neuronpedia's"
    )
    sub.add_argument("--no-browser", action="store_true", help="print the address and open nothing")
    sub.add_argument(
        "--export",
        metavar="OUT",
        help="write .html (one file that needs nothing), .json or .jigraph, and end",
    )
    sub.add_argument("--json", action="store_true", help="print address and files as one line of JSON")
    live_options(sub)


def run(options: argparse.Namespace) -> int:
    """Serve until interrupted, or export."""
    if (options.model is None) != (options.dictionary is None):
        raise InputError("live mode needs both --model and --dictionary")
    if not options.paths and options.model is None:
        raise InputError("which graph? give a .json or .jigraph file, or a folder of them")
    from jaxinterp.viewer.features import Dashboards
    from jaxinterp.viewer.library import LARGE, Library

    library, dashboards = Library(options.paths), Dashboards(options.features)
    if options.export:
        return _export(options, library, dashboards)
    if options.paths and not library.entries:
        raise InputError(f"{' '.join(options.paths)}: no .json or .jigraph file is there")
    anyone = _anyone(options)
    if options.model is not None:
        return live(options, library, dashboards, anyone=anyone, announce=announce, address=address)
    if len(library.entries) == 1 and library.entries[0].path.stat().st_size <= LARGE:
        error = library.listed()[0]["error"]
        if error:
            raise InputError(error)
    return _serve(options, library, dashboards, anyone)


def _anyone(options: argparse.Namespace) -> bool:
    """Whether other machines may ask, which has to be said twice."""
    if options.host in LOOPBACK:
        return False
    if not options.anyone:
        raise InputError(
            f"--host {options.host} would let other machines see and change these graphs, without a password and "
            "unencrypted: add --anyone if that is meant"
        )
    print(
        f"WARNING: anyone who can reach {options.host} can see and change these graphs, unencrypted.",
        file=sys.stderr,
    )
    return True


def _serve(options: argparse.Namespace, library: Any, dashboards: Any, anyone: bool) -> int:
    from jaxinterp.viewer.pages import Viewer, new_token
    from jaxinterp.viewer.routes import App
    from jaxinterp.viewer.server import listen

    server = listen(options.host, options.port)
    try:
        server.app = App(token=new_token(), port=server.port, anyone=anyone)
        viewer = Viewer(library, dashboards)
        viewer.add(server.app)
        viewer.warm()
        announce(options, address(options.host, server.port), library.listed() if options.json else [])
        _until_told(server)
    finally:
        server.close()
    return 0


def _until_told(server: Any) -> None:
    """Serve until SIGINT or SIGTERM."""

    def told(number: int, frame: Any) -> None:
        # shutdown waits for the loop, which runs in the thread that got the signal.
        threading.Thread(target=server.shutdown, daemon=True).start()

    before = {number: signal.signal(number, told) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.serve_forever(poll_interval=0.2)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _export(options: argparse.Namespace, library: Any, dashboards: Any) -> int:
    from jaxinterp.cli import shared
    from jaxinterp.core.files import write_bytes
    from jaxinterp.viewer.exporting import exported
    from jaxinterp.viewer.messages import Refused

    shared.check_out(options.export, (".html", ".json", ".jigraph"))
    if not library.entries:
        raise InputError("which graph? give a .json or .jigraph file, or a folder of them")
    try:
        opened = [library.open(entry.id) for entry in library.entries]
    except Refused as refused:
        raise InputError(refused.text) from refused
    data = exported(opened, Path(options.export).suffix.lower()[1:], dashboards)
    write_bytes(options.export, data)
    if options.json:
        shared.print_json({"out": options.export, "bytes": len(data), "graphs": len(opened)})
    else:
        print(f"{options.export}: {len(opened)} graph{'s' * (len(opened) > 1)}, {len(data):,} bytes")
    return 0


def address(host: str, port: int) -> str:
    """What to open."""
    name = {"localhost": "127.0.0.1", "0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(
        host, host
    )
    return f"http://[{name}]:{port}/" if ":" in name else f"http://{name}:{port}/"


def announce(options: argparse.Namespace, url: str, files: list[dict[str, Any]]) -> None:
    """Print the address, and open the browser where there is one to open."""
    import json

    print(json.dumps({"url": url, "files": files}, ensure_ascii=False) if options.json else url, flush=True)
    if options.no_browser or not _has_display():
        return
    threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()


def _has_display() -> bool:
    return sys.platform in ("win32", "darwin") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
