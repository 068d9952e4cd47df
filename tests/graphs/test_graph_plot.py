"""Static figures: nothing on top of anything, everything left out counted, the same bytes every time."""

from __future__ import annotations

import builtins
import dataclasses
import itertools
import re
import xml.etree.ElementTree as Xml

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxinterp.cli.main import main
from jaxinterp.core.errors import InputError
from jaxinterp.graphs import (
    EMBEDDING,
    ERROR,
    FEATURE,
    TARGET,
    Supernode,
    SupernodeGraph,
    grouped,
    load_graph,
    with_supernodes,
)
from jaxinterp.graphs import plot as figures
from jaxinterp.graphs.choose import EDGE, automatic, saved
from jaxinterp.graphs.plot_layout import lay_out, wrap
from jaxinterp.graphs.plot_records import ELLIPSIS, Item
from tests.graphs.graph_examples import random_graph
from tests.graphs.test_graph_dialects import CRM
from tests.support import shared

REAL = ("mit-dallas_ea", "mit-gemma2-2b-clthp-night", "mit-war_ea")


def measure(text, size):
    """A typewriter."""
    return 0.6 * len(text) * size / 72


def boxes(layout):
    return [place.box() for place in layout.placed if any(place.lines)]


def clash(a, b):
    return min(a[2], b[2]) - max(a[0], b[0]) > 1e-4 and min(a[3], b[3]) - max(a[1], b[1]) > 1e-4


def words(figure):
    """All texts of a figure."""
    return [text.get_text() for text in figure.axes[0].texts]


def caption(figure):
    found = " ".join(words(figure))
    return found[found.rfind("Not drawn") :]


ITEMS = st.lists(
    st.tuples(
        st.text("abc de", max_size=40),
        st.sampled_from(["feature", "group", "error", "bias"]),
        st.integers(0, 4),
        st.integers(0, 6),
    ),
    max_size=14,
)


@settings(max_examples=40, deadline=None)
@given(ITEMS, st.sampled_from([1.0, 2.5, 6.5]), st.booleans(), st.data())
def test_no_two_things_overlap(drawn, width, with_tokens, data):
    items = [
        Item(text, mark, float(row), column, 1.0 / (i + 1))
        for i, (text, mark, row, column) in enumerate(drawn)
    ]
    items += [Item(f"token{at}", "token", -1.0, at) for at in data.draw(st.sets(st.integers(0, 6)))]
    items.append(Item("out  99 %", "target", 1e6, 6))
    pairs = st.tuples(st.integers(0, len(items) - 1), st.integers(0, len(items) - 1), st.floats(-1, 1))
    edges = data.draw(st.lists(pairs, max_size=8))
    tokens = [f"token{i}" for i in range(7)] if with_tokens else None
    layout = lay_out(items, edges, tokens, width, measure)
    for a, b in itertools.combinations(boxes(layout), 2):
        assert not clash(a, b)
    for place in layout.placed:
        left, low, right, high = place.box()
        assert low > -1e-6 and high < layout.height + 1e-6
        if layout.width <= width + 1e-6 and any(place.lines):
            assert left > -0.02 and right < width + 0.02
    # Rows are in their order, and every item is in its own.
    heights = [layout.rows[row] for row in sorted(layout.rows)]
    assert heights == sorted(heights)
    assert (
        sum(not any(p.lines) and bool(i.text) for p, i in zip(layout.placed, items, strict=True))
        == layout.lost
    )
    again = lay_out(items, edges, tokens, width, measure)
    assert again == layout


def test_a_long_prompt_is_shortened_where_nothing_is_shown():
    tokens = [f"word{i}" for i in range(300)]
    items = [
        Item("a", "feature", 0.0, 5),
        Item("b", "feature", 1.0, 250),
        Item("word250", "token", -1.0, 250),
    ]
    layout = lay_out(items, [], tokens, 3.0, measure)
    shown = [text for _, text in layout.tokens]
    assert shown == [ELLIPSIS, "word5", ELLIPSIS, ELLIPSIS]
    assert not layout.lost and layout.width == pytest.approx(3.0) and layout.skipped == 298
    many = [Item(f"word{i}", "token", -1.0, i) for i in range(0, 300, 20)]
    layout = lay_out(many, [], tokens, 2.7, measure)
    assert layout.turned and not layout.lost and not layout.tokens and layout.skipped == 285


def test_texts_in_lines():
    assert wrap("short", 10, 2) == ("short",)
    assert wrap("a longer label", 8, 2) == ("a longer", "label")
    assert wrap("a much longer label here", 8, 2) == ("a much", "longer…")
    assert wrap("unbreakable-word", 8, 2) == ("unbreak…",)
    assert wrap("token", 3, 1) == ("to…",) and wrap("", 3, 2) == ("",)


@pytest.mark.parametrize("name", REAL)
def test_every_node_of_a_real_graph_is_accounted_for(name):
    graph = load_graph(shared(f"cases/graphs/{name}.json"))
    choice = automatic(graph)
    shown = grouped(graph, choice.supernodes, choice.singles)
    text = caption(graph.plot())
    for kind, n in shown.hidden.items():
        found = re.search(rf"(\d+) {kind}", text)
        assert found and int(found[1]) == n
    members = sum(len(group.members) for group in shown.groups)
    assert members + sum(shown.hidden.values()) == len(graph)
    # It hangs together: the target, some tokens, features, and errors that lead somewhere.
    kinds = graph.nodes["kind"][[i for group in shown.groups for i in group.members]].tolist()
    assert kinds.count(TARGET) == 1 and kinds.count(EMBEDDING) >= 1 and 2 <= kinds.count(FEATURE) <= 12
    for i, group in enumerate(shown.groups):
        if graph.nodes["kind"][group.members[0]] == ERROR:
            assert np.abs(shown.weights[:, i]).max() >= 0.9 * EDGE
    target = next(
        i for i, group in enumerate(shown.groups) if graph.nodes["kind"][group.members[0]] == TARGET
    )
    assert np.abs(shown.weights[target]).max() > 0.02


def test_the_same_bytes_every_time(tmp_path):
    graph = random_graph(layers=4)
    for ending in ("svg", "pdf", "png"):
        for k in (1, 2):
            graph.plot(title="x").save(tmp_path / f"{k}.{ending}")
        assert (tmp_path / f"1.{ending}").read_bytes() == (tmp_path / f"2.{ending}").read_bytes()
    text = (tmp_path / "1.svg").read_text()
    Xml.fromstring(text)
    assert not re.search(r"20\d\d-\d\d", text) and "<dc:date>" not in text
    assert b"CreationDate" not in (tmp_path / "1.pdf").read_bytes()
    assert not list(tmp_path.glob(".*"))


def strokes(figure):
    from matplotlib.patches import PathPatch

    return [patch for patch in figure.axes[0].patches if isinstance(patch, PathPatch)]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_signs_can_be_told_without_colour(theme):
    figure = random_graph().plot(theme=theme, legend=False)
    styles = {patch.get_edgecolor()[:3]: set() for patch in strokes(figure)}
    for patch in strokes(figure):
        styles[patch.get_edgecolor()[:3]].add(patch.get_linestyle())
    assert sorted(len(found) for found in styles.values()) == [1, 1]
    assert len({style for found in styles.values() for style in found}) == 2
    grey = [np.dot(colour, (0.2126, 0.7152, 0.0722)) for colour in styles]
    assert abs(grey[0] - grey[1]) > 0.12


def test_widths_follow_shares_and_weak_edges_are_counted():
    graph = random_graph()
    nodes = list(range(len(graph)))
    figure = graph.plot(nodes=nodes, least=0.1, most_edges=20, legend=False)
    shares = grouped(graph, [], nodes).edges()
    strong = [abs(w) for _, _, w in shares if abs(w) >= 0.1]
    widths = sorted((patch.get_linewidth() for patch in strokes(figure)), reverse=True)
    assert len(widths) == 20 < len(strong)
    np.testing.assert_allclose(widths, [0.4 + 3.6 * min(w, 1) for w in sorted(strong, reverse=True)[:20]])
    text = caption(figure)
    assert (
        f"{len(shares) - len(strong)} edges under 10 %" in text and f"{len(strong) - 20} edges more" in text
    )


def test_saved_supernodes_pins_and_labels_are_what_is_drawn(tmp_path):
    graph = random_graph()
    ids = [graph.labels[int(t)] for t in graph.targets]
    marked = with_supernodes(graph, [Supernode("my <b>group</b>", (0, 1))])
    target = int(graph.targets[0])
    from jaxinterp.graphs.ids import graph_ids

    names = graph_ids(graph)
    pins = [*marked.view["pinnedIds"], names[target], names[5], "nobody"]
    clerps = [[names[5], "renamed"], ["nobody", "x"], [3]]
    marked = dataclasses.replace(marked, view={**marked.view, "pinnedIds": pins, "clerps": clerps})
    marked.save(tmp_path / "g.json")
    back = load_graph(tmp_path / "g.json")
    choice = saved(back)
    assert choice.singles == (target, 5) and choice.labels == {5: "renamed"}
    shown = words(back.plot())
    assert "my <b>group</b> ×2" in shown and "renamed" in shown
    assert any(ids[0].strip() in text for text in shown)
    assert words(back.plot(nodes="automatic")) != shown
    assert saved(graph) is None
    with pytest.raises(InputError, match="holds no supernodes and no pinned nodes"):
        graph.plot(nodes="saved")


def test_texts_that_could_be_taken_for_something_else(tmp_path):
    graph = random_graph(positions=4)
    labels = ["$x^2$ \\frac", *graph.labels[1:]]
    labels[int(graph.targets[0])] = '"\n'
    odd = (" ", "\n", "$", "\u65e5\u672c")
    graph = dataclasses.replace(graph, labels=tuple(labels), token_texts=odd, prompt="")
    figure = graph.plot(nodes=range(len(graph)), width=20)
    shown = words(figure)
    assert "$x^2$ \\frac" in shown and "␣" in shown and "$" in shown and "\\n" in shown
    figure.save(tmp_path / "f.svg")
    Xml.parse(tmp_path / "f.svg")


@pytest.mark.parametrize(
    "graph",
    [
        random_graph(layers=80, positions=2, per_place=1, density=0.05),
        random_graph(layers=1, positions=1, per_place=1, targets=1),
        random_graph(density=0.0),
        random_graph(parts=(0, 1, 2)),
        random_graph(layers=1, positions=3, per_place=0),
    ],
    ids=["80 layers", "one token and layer", "no edges", "three parts", "no features"],
)
@pytest.mark.parametrize("width", ["single", 12.5])
def test_graphs_at_the_edge(graph, width):
    figure = graph.plot(width=width)
    wide, high = figure.get_size_inches()
    assert wide == {"single": 3.35}.get(width, width) and 0.5 < high < 40
    assert "Not drawn" in caption(figure)


def test_a_graph_with_a_cycle_is_drawn(tmp_path):
    import json

    data = json.loads(json.dumps(CRM))
    for target, source in (("0_cro_5_1", "0_lor_6_1"), ("0_lor_6_1", "0_cro_5_1")):
        data["links"].append({"source": source, "target": target, "weight": 1e9})
    (tmp_path / "g.json").write_text(json.dumps(data))
    figure = load_graph(tmp_path / "g.json").plot()
    assert len(strokes(figure)) >= 1


def test_a_graph_of_supernodes_with_and_without_places():
    graph = random_graph()
    nodes = [int(i) for i in np.flatnonzero(np.isin(graph.nodes["kind"], (EMBEDDING, TARGET)))]
    shown = grouped(graph, [Supernode("one", (0, 1, 2)), Supernode("two", (20, 21))], nodes)
    assert [place.kind for place in shown.places[:2]] == [
        FEATURE,
        None if len(set(graph.nodes["kind"][20:22])) > 1 else 0,
    ]
    drawn = words(shown.plot(width="single"))
    assert (
        "one ×3" in drawn
        and "two ×2" in drawn
        and {"t0", "t3", "word"} <= {w.rstrip("0123456789") or w for w in drawn} | set(drawn)
    )
    bare = SupernodeGraph(shown.groups, shown.weights, shown.activation, shown.influence, {}, 0)
    figure = bare.plot()
    assert "one ×3" in words(figure) and caption(figure).startswith("Not drawn: 3 edges under 2 %.")
    circle = np.array([[0.0, 1.0], [1.0, 0.0]])
    two = SupernodeGraph(shown.groups[:2], circle, shown.activation[:2], shown.influence[:2], {}, 0)
    assert len(strokes(two.plot(legend=False))) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nodes": "best"}, "nodes 'best': expected 'saved', 'automatic'"),
        ({"nodes": [1.5]}, "expected node numbers and supernodes"),
        ({"nodes": [10**6]}, "names node 1000000"),
        ({"nodes": []}, "nothing to draw"),
        ({"nodes": [0, Supernode("a", (0, 1))]}, "node 0 is in"),
        ({"width": "triple"}, "width 'triple'"),
        ({"width": 0.1}, "width 0.1"),
        ({"theme": "pink"}, "theme 'pink'"),
        ({"least": 2}, "least 2"),
        ({"size": 1}, "size 1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        random_graph().plot(**options)


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest, **more):
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(InputError, match=r"pip install 'jaxinterp\[plot\]'"):
        random_graph().plot()


def test_a_style_of_the_user_changes_nothing():
    import matplotlib

    plain = random_graph().plot()._repr_svg_()
    with matplotlib.rc_context(
        {"lines.dashed_pattern": (9, 9), "font.size": 30, "axes.linewidth": 9, "svg.fonttype": "none"}
    ):
        assert random_graph().plot()._repr_svg_() == plain
        assert matplotlib.rcParams["font.size"] == 30


def test_notebooks_show_it_and_odd_endings_are_refused(tmp_path):
    figure = random_graph().plot()
    assert figure._repr_svg_().lstrip().startswith("<?xml")
    with pytest.raises(InputError, match=r"a name ending in \.svg, \.pdf, \.png"):
        figure.save(tmp_path / "f.txt")
    figures.save_figure(figure, tmp_path / "f.png", dpi=50)
    assert (tmp_path / "f.png").read_bytes()[1:4] == b"PNG"


def test_the_verb(tmp_path, capsys):
    graph = random_graph()
    graph.save(tmp_path / "g.jigraph")
    place = [str(tmp_path / "g.jigraph"), str(tmp_path / "f.svg")]
    assert main(["plot", *place]) == 0
    assert "saved" in capsys.readouterr().out and (tmp_path / "f.svg").stat().st_size > 1000
    first = (tmp_path / "f.svg").read_bytes()
    assert main(["plot", *place]) == 0 and (tmp_path / "f.svg").read_bytes() == first
    more = [
        "--nodes",
        "0,1,5",
        "--width",
        "4.5",
        "--theme",
        "dark",
        "--no-legend",
        "--title",
        "t",
        "--font",
        "DejaVu Serif",
    ]
    assert main(["plot", *place, *more]) == 0 and (tmp_path / "f.svg").read_bytes() != first
    for bad in (["--nodes", "1,x"], ["--dpi", "1"], ["--width", "1.2.3"], ["--nodes", "saved"]):
        capsys.readouterr()
        assert main(["plot", *place, *bad]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert main(["plot", place[0], str(tmp_path / "f.gif")]) == 2
