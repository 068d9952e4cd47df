"""Live mode of ``jaxinterp view``: a model behind the page. Needs the extra "serve"."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxinterp.core.errors import InputError

SECRET = "JAXINTERP_SECRET"  # what Neuronpedia's page sends as x-secret-key


def live(
    options: argparse.Namespace,
    library: Any,
    dashboards: Any,
    *,
    anyone: bool,
    announce: Callable[[argparse.Namespace, str, list[dict[str, Any]]], None],
    address: Callable[[str, int], str],
) -> int:
    """Serve the files and trace prompts until interrupted. Raises InputError where the extra is missing."""
    try:
        from jaxinterp.serve.jobs import Jobs
        from jaxinterp.serve.live import Live
        from jaxinterp.serve.neuronpedia import GraphServer, Settings
        from jaxinterp.serve.server import Server, listen, serve
        from jaxinterp.serve.tracer import Tracer
    except ModuleNotFoundError as error:
        missing = error.name or "an extra"
        raise InputError(
            f"live mode needs {missing}, which is not here: pip install 'jaxinterp[serve]'"
        ) from error
    from jaxinterp.cli import shared
    from jaxinterp.viewer.pages import Viewer, new_token
    from jaxinterp.viewer.routes import App
    from jaxinterp.viewer.server import free_port

    with tempfile.TemporaryDirectory(prefix="jaxinterp-live-") as temporary:
        folder = Path(options.keep or temporary)
        if not folder.is_dir():
            raise InputError(f"--keep {folder}: there is no such folder")
        port = free_port(options.host) if options.port is None else options.port
        listening = listen(options.host, port)  # before the model is loaded: a port in use is said at once
        port = listening.getsockname()[1]
        model, dictionary = shared.load(options)
        tracer = Tracer(model, dictionary)
        jobs = Jobs(background=tracer.warm)
        app = App(token=new_token(), port=port, anyone=anyone)
        viewer = Viewer(library, dashboards, live=True)
        viewer.add(app)
        name = ", ".join(options.dictionary)
        Live(tracer, jobs, folder, library.add, model=options.model, dictionary=name).add(app)
        names = tuple(dict.fromkeys([options.model, Path(options.model).name, model.name]))
        settings = Settings(names, scan=Path(options.model).name, secret=os.environ.get(SECRET) or None)
        GraphServer(tracer, jobs, settings).add(app)
        if library.entries:
            viewer.warm()
        announce(options, address(options.host, port), library.listed() if options.json else [])
        serve(Server(app, jobs), listening)
    return 0
