"""``jaxinterp view --model``: load, listen, put the routes together, serve."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxinterp.core.errors import InputError
from jaxinterp.serve.jobs import Jobs
from jaxinterp.serve.live import Live
from jaxinterp.serve.neuronpedia import GraphServer, Settings
from jaxinterp.serve.server import Server, serve
from jaxinterp.serve.tracer import Tracer
from jaxinterp.viewer.features import Dashboards
from jaxinterp.viewer.library import Library
from jaxinterp.viewer.pages import Viewer, new_token
from jaxinterp.viewer.routes import App
from jaxinterp.viewer.server import listen

SECRET = "JAXINTERP_SECRET"


def serve_live(
    options: argparse.Namespace, library: Library, dashboards: Dashboards, *, anyone: bool,
    load: Callable[[argparse.Namespace], tuple[Any, Any]], announce: Callable[[int], None],
) -> int:  # fmt: skip
    """Serve the page with a model behind it, until SIGINT or SIGTERM.

    Args:
      options: of ``jaxinterp view``.
      library, dashboards: what the page shows.
      anyone: whether other machines may ask; Neuronpedia's routes are then there with a secret only.
      load: the options → model and dictionary.
      announce: called with the port when all is ready.

    Raises:
      InputError: a port in use, a folder that cannot be written, a model or dictionary that cannot be read or do not
        fit.
    """
    folder = None if options.out is None else _made(options.out)
    targets = None if options.target_files is None else _existing(options.target_files)
    listening = listen(options.host, options.port)  # before the model is loaded, which may take long
    try:
        model, dictionary = load(options)
        folder = folder or Path(tempfile.mkdtemp(prefix="jaxinterp-graphs-"))  # which stays
        tracer = Tracer(model, dictionary, convention=options.convention, target_files=targets)
        jobs = Jobs(background=None if options.no_warm_up else tracer.warm)
        app = App(token=new_token(), port=listening.port, anyone=anyone)
        viewer = Viewer(library, dashboards, live=True)
        viewer.add(app)
        name = Path(options.model).name or options.model
        names = ", ".join(Path(one).name or one for one in options.dictionary)
        Live(tracer, jobs, folder, library.add, model=name, dictionary=names).add(app)
        secret = options.secret or os.environ.get(SECRET) or None
        if secret is not None or not anyone:
            ids = dict.fromkeys((*(options.model_id or ()), options.model, model.name))
            settings = Settings(
                tuple(one for one in ids if one), scan=options.scan or "", source_set=options.source_set or "",
                secret=secret, uploads=tuple(options.allow_upload or ()),
            )  # fmt: skip
            GraphServer(tracer, jobs, settings).add(app)
        viewer.warm()
        server = Server(app, jobs, log=options.log)
        print(f"graphs traced from the page are kept in {folder}", file=sys.stderr, flush=True)
        announce(listening.port)
        serve(server, listening.socket)
    finally:
        listening.server_close()
    return 0


def _made(name: str) -> Path:
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {name}: {error.strerror or error}") from error
    if not os.access(folder, os.W_OK):
        raise InputError(f"--out {name}: the folder cannot be written")
    return folder


def _existing(name: str) -> Path:
    if not Path(name).is_dir():
        raise InputError(f"--target-files {name}: there is no such folder")
    return Path(name)
