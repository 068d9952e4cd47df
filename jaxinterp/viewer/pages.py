"""The viewer's answers: the page, its data, saving. ``viewer_app`` puts them behind the checks of routes.py."""

from __future__ import annotations

import hashlib
import html
import re
import secrets
import threading
from collections.abc import Mapping
from typing import Any

from jaxinterp.core.errors import InputError
from jaxinterp.core.provenance import version
from jaxinterp.graphs import propose
from jaxinterp.graphs.ids import safe_name
from jaxinterp.graphs.plain import plain
from jaxinterp.viewer import saving
from jaxinterp.viewer.bundle import node_rows
from jaxinterp.viewer.checking import checked, nodes
from jaxinterp.viewer.compare import compare
from jaxinterp.viewer.exporting import exported
from jaxinterp.viewer.features import Dashboards, record_of
from jaxinterp.viewer.files import file_answer
from jaxinterp.viewer.library import Library, Opened
from jaxinterp.viewer.messages import Answer, Refused, Request, json_answer
from jaxinterp.viewer.page_files import assets
from jaxinterp.viewer.reading import named_groups
from jaxinterp.viewer.routes import App

META = "<!--jaxinterp-meta-->"
MOST_COMPARED = 2000
MOST_AHEAD = 100_000  # edges of a graph that is sent before the page asks: it may want another
_NUMBER = re.compile(r"[0-9]{1,9}")
_FORMATS = {
    "json": "application/json",
    "jigraph": "application/octet-stream",
    "html": "text/html; charset=utf-8",
}
Names = Mapping[str, str]


def new_token() -> str:
    """What a page must send with every write."""
    return secrets.token_urlsafe(32)


def viewer_app(
    library: Library,
    dashboards: Dashboards | None = None,
    *,
    token: str,
    port: int,
    anyone: bool = False,
    live: bool = False,
) -> App:
    """The viewer's routes over these files. live: whether the caller adds the routes of live mode.

    Raises InputError where the built page is missing.
    """
    app = App(token=token, port=port, anyone=anyone)
    Viewer(library, dashboards or Dashboards(), live).add(app)
    return app


class Viewer:
    """The handlers; see docs/viewer.md for what each takes and gives."""

    def __init__(self, library: Library, dashboards: Dashboards, live: bool = False) -> None:
        self.library, self.dashboards, self.live = library, dashboards, live

    def add(self, app: App) -> None:
        """Put the routes into ``app``."""
        page = assets()
        self._page = page.html.replace(
            META,
            f'<meta name="jaxinterp-token" content="{html.escape(app.token)}" />\n    '
            '<meta name="jaxinterp-mode" content="server" />',
        ).encode()
        app.add("GET", "/", self.page, navigates=True)
        app.add("GET", "/assets/page.js", _text("text/javascript; charset=utf-8", page.script))
        app.add("GET", "/assets/page.css", _text("text/css; charset=utf-8", page.style))
        app.add("GET", "/api/files", self.files)
        graph = "/api/graph/{id:int}"
        app.add("GET", f"{graph}/bundle", self.bundle)
        app.add("GET", f"{graph}/report", self.report)
        app.add("GET", f"{graph}/node/{{node:int}}", self.node)
        app.add("GET", f"{graph}/heads", self.heads)
        app.add("GET", f"{graph}/file", self.file)
        app.add("GET", f"{graph}/export", self.export)
        app.add("POST", f"{graph}/propose", self.propose)
        app.add("POST", f"{graph}/autosave", self.autosave)
        app.add("POST", f"{graph}/save", self.save)
        app.add("GET", "/api/compare", self.compare)
        app.add("GET", "/api/feature", self.feature)

    def warm(self) -> threading.Thread:
        """Load the first graph and make its arrays and report while the browser starts."""

        def work() -> None:
            opened = self.library.first()
            if opened is not None:
                opened.prepare()
                opened.report_now(self._label(opened))

        thread = threading.Thread(target=work, name="jaxinterp-warm", daemon=True)
        thread.start()
        return thread

    def page(self, request: Request, names: Names) -> Answer:
        """GET /

        With what the page asks for next, so that the browser asks before it has read the script.
        """
        ahead = ["</assets/page.js>; rel=modulepreload"]
        first = self.library.at_hand(MOST_AHEAD)
        for path in ("/api/files", *([] if first is None else [f"/api/graph/{first}/bundle"])):
            ahead.append(f"<{path}>; rel=preload; as=fetch; crossorigin=anonymous")
        return Answer(
            200,
            self._page,
            {
                "Content-Type": "text/html; charset=utf-8",
                "Cache-Control": "no-store",
                "Link": ", ".join(ahead),
            },
        )

    def files(self, request: Request, names: Names) -> Answer:
        """GET /api/files"""
        return json_answer({"files": self.library.listed(), "live": self.live, "version": version()})

    def bundle(self, request: Request, names: Names) -> Answer:
        """GET /api/graph/{id}/bundle"""
        opened = self._open(names)
        source = opened.features(self.dashboards)
        data = opened.bundle(
            None if source is None else source.labels(opened.graph),
            has_heads=bool(opened.heads()), has_features=source is not None, live=self.live,
        )  # fmt: skip
        return Answer(200, data, {"Content-Type": "application/octet-stream", "Cache-Control": "no-store"})

    def report(self, request: Request, names: Names) -> Answer:
        """GET /api/graph/{id}/report"""
        opened = self._open(names)
        found = opened.report_now(self._label(opened))
        said = [f"Saved view: {note}." for note in opened.current().notes]
        return json_answer({**found, "warnings": [*found["warnings"], *said]})

    def node(self, request: Request, names: Names) -> Answer:
        """GET /api/graph/{id}/node/{node}"""
        opened = self._open(names)
        return json_answer(node_rows(opened.graph, _known(opened, int(names["node"]))))

    def heads(self, request: Request, names: Names) -> Answer:
        """GET /api/graph/{id}/heads?target=&source="""
        opened = self._open(names)
        edge = _number(request, "target"), _number(request, "source")
        return json_answer(opened.heads().get(edge))

    def file(self, request: Request, names: Names) -> Answer:
        """GET /api/graph/{id}/file"""
        path = self._open(names).path
        return file_answer(path, request, {"Content-Disposition": _attachment(path.stem, path.suffix)})

    def export(self, request: Request, names: Names) -> Answer:
        """GET /api/graph/{id}/export?format="""
        opened, form = self._open(names), request.query.get("format", "json")
        if form not in _FORMATS:
            raise Refused(400, f"format: expected one of {', '.join(_FORMATS)}")
        try:
            data = exported([opened], form, self.dashboards)
        except InputError as error:
            raise Refused(400, saving.one_line(error, opened.path)) from error
        disposition = _attachment(opened.path.stem, f".{form}")
        return Answer(
            200,
            data,
            {"Content-Type": _FORMATS[form], "Content-Disposition": disposition, "Cache-Control": "no-store"},
        )

    def propose(self, request: Request, names: Names) -> Answer:
        """POST /api/graph/{id}/propose"""
        opened, body = self._open(names), request.json()
        _only(body, ("at_least", "most", "across_positions", "features"))
        at_least, most = body.get("at_least", 0.5), body.get("most", 300)
        across, features = body.get("across_positions", False), body.get("features")
        if isinstance(at_least, bool) or not isinstance(at_least, int | float) or not 0 <= at_least <= 1:
            raise Refused(400, "at_least: expected a number from 0 to 1")
        if type(most) is not int or not 1 <= most <= MOST_COMPARED:
            raise Refused(400, f"most: expected a whole number from 1 to {MOST_COMPARED}")
        if not isinstance(across, bool):
            raise Refused(400, "across_positions: expected true or false")
        if features is not None:
            features = nodes(features, len(opened.graph), "features")
            if len(features) > MOST_COMPARED:
                raise Refused(400, f"features: {len(features)} nodes, at most {MOST_COMPARED}")
        try:
            found = propose(
                opened.graph, at_least=float(at_least), most=most, across_positions=across, features=features
            )
        except InputError as error:
            raise Refused(400, saving.one_line(error, opened.path)) from error
        members = [list(p.supernode.members) for p in found.proposals]
        groups = [
            {**group, "cohesion": p.cohesion, "weakest": p.weakest, "influence": p.influence}
            for group, p in zip(
                named_groups(opened.graph, members, self._label(opened)), found.proposals, strict=True
            )
        ]
        return json_answer(
            plain(
                {"groups": groups, "single": list(found.single), "hidden_influence": found.hidden_influence}
            )
        )

    def autosave(self, request: Request, names: Names) -> Answer:
        """POST /api/graph/{id}/autosave"""
        return self._save(request, names, into_file=False)

    def save(self, request: Request, names: Names) -> Answer:
        """POST /api/graph/{id}/save"""
        return self._save(request, names, into_file=True)

    def compare(self, request: Request, names: Names) -> Answer:
        """GET /api/compare?a=&b="""
        one, two = (self.library.open(_number(request, name)) for name in ("a", "b"))
        return json_answer(plain(compare(one.graph, two.graph), "compare"))

    def feature(self, request: Request, names: Names) -> Answer:
        """GET /api/feature?graph=&node="""
        opened = self.library.open(_number(request, "graph"))
        node = _known(opened, _number(request, "node"))
        return json_answer(record_of(opened.features(self.dashboards), opened.graph, node))

    def _open(self, names: Names) -> Opened:
        return self.library.open(int(names["id"]))

    def _save(self, request: Request, names: Names, into_file: bool) -> Answer:
        opened, body = self._open(names), request.json()
        _only(body, ("revision", "view"))
        revision = body.get("revision")
        if type(revision) is not int or not 0 <= revision < 2**53:
            raise Refused(400, "revision: expected a whole number")
        view = checked(body.get("view"), len(opened.graph))
        now = opened.save(view, revision, into_file)
        return json_answer({"revision": now, "where": "file" if into_file else "sidecar"})

    def _label(self, opened: Opened) -> Any:
        source = opened.features(self.dashboards)
        return None if source is None else lambda node: source.label(opened.graph, node)


def _text(kind: str, text: str) -> Any:
    """A handler that gives one text, with an ETag so that a browser asks again but does not load again."""
    body = text.encode()
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"Content-Type": kind, "Cache-Control": "no-cache", "ETag": tag}

    def handler(request: Request, names: Names) -> Answer:
        if request.headers.get("if-none-match") == tag:
            return Answer(304, b"", headers)
        return Answer(200, body, headers)

    return handler


def _attachment(stem: str, suffix: str) -> str:
    return f'attachment; filename="{safe_name(stem, "graph")}{suffix}"'


def _number(request: Request, name: str) -> int:
    text = request.query.get(name, "")
    if not (text.isascii() and _NUMBER.fullmatch(text)):
        raise Refused(400, f"{name}: expected a whole number")
    return int(text)


def _known(opened: Opened, node: int) -> int:
    if node >= len(opened.graph):
        raise Refused(404, f"there is no node {node}: the graph has {len(opened.graph)}")
    return node


def _only(body: dict[str, Any], keys: tuple[str, ...]) -> None:
    unknown = [str(key)[:40] for key in body if key not in keys]
    if unknown:
        raise Refused(400, f"unknown key {unknown[0]!r}: expected {', '.join(keys)}")
