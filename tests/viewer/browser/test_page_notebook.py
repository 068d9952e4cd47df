"""A graph in a notebook: the page in a sandboxed frame of a page that knows nothing of us, without any server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jaxinterp.graphs import FEATURE
from tests.viewer.browser.chromium import Page
from tests.viewer.browser.flows import GRAPH, READY, SESSION
from tests.viewer.synthetic import synthetic

HTML = '</script></iframe>"><script>parent.__evil = 1</script>'


def test_a_sandboxed_frame_draws_and_answers_clicks(window: Callable[..., Page], tmp_path: Path) -> None:
    example = synthetic(90, 500, layers=5, tokens=7, targets=3, labels={0: HTML}, prompt=HTML)
    file = tmp_path / "notebook.html"
    text = f"<!doctype html><meta charset='utf-8'><h1>A notebook</h1>{example._repr_html_()}<p id='after'>after</p>"
    file.write_text(text, encoding="utf-8")
    page = window(offline=True)
    page.open_file(file)
    page.wait(READY, frame=1)
    assert page.count("iframe") == 1 and page.text("#after") == "after"
    assert page.js(f"{GRAPH}.n", frame=1) == len(example)
    assert page.js(f"{SESSION}.label(0)", frame=1) == HTML
    box = page.js(
        "(() => { const r = document.querySelector('iframe').getBoundingClientRect(); return [r.x, r.y]; })()"
    )
    # The first feature that is drawn away from everything else.
    code = (
        f"(() => {{ const g = {GRAPH}; const at = [...Array(g.n).keys()].map((i) => window.jaxinterp.places.graph(i));"
        " for (let i = 0; i < g.n; i++) if (g.kind[i] === %d && at[i] && at.every((o, j) => j === i || !o ||"
        " Math.hypot(o[0] - at[i][0], o[1] - at[i][1]) > 9)) return [i, ...at[i]]; return null; })()"
        % FEATURE
    )
    node, x, y = page.js(code, frame=1)
    page.mouse((box[0] + x, box[1] + y))
    page.wait(f"{SESSION}.clicked.value === {node}", frame=1)
    page.press("p")
    page.wait(f"{SESSION}.undoName.value !== null", frame=1)
    assert page.js("window.__evil === undefined")
