"""Reports: what they say and that they fit."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from jaxinterp.graphs import FEATURE, report, summary
from jaxinterp.graphs.report import clean, columns
from tests.graphs.graph_examples import dense_matrix, dense_normalised, random_graph


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
@pytest.mark.parametrize("odd", [False, True])
def test_no_line_is_wider_than_the_terminal(width, odd):
    graph = random_graph(positions=6, per_place=5, left_out=True)
    if odd:
        labels = tuple("見出し\x1b[2J long label " * 9 for _ in graph.labels)
        texts = ("\x1b[31m" * 9, "日本語" * 20, "\n", '"', "e\u0301" * 30, "")
        graph = dataclasses.replace(graph, labels=labels, token_texts=texts)
    for version in (graph, graph.prune(0.8, 0.9)):
        text = report(version, width)
        assert max(columns(line) for line in text.split("\n")) <= width
        assert all(c.isprintable() for line in text.split("\n") for c in line)


def test_a_report_says_what_a_person_asks_first():
    graph = random_graph(left_out=True)
    labels = list(graph.labels)
    strong = summary(graph)["targets"][0]["features"][0]
    labels[strong["node"]] = "my own label"
    small = dataclasses.replace(graph, labels=tuple(labels)).prune(0.9, 0.95)
    text = report(small, 120)
    scores = graph.scores()
    expected = [
        *(f'{i}:" t{i}"' for i in range(4)),
        f"{graph.nodes['probability'][graph.targets[0]]:.3f}",
        f'"{graph.labels[graph.targets[0]]}"',
        f"replacement {scores.replacement:.3f}",
        f"completeness {scores.completeness:.3f}",
        "checks: exact",
        f"{small.pruned['hidden_edges']} edges",
        "pruned away",
        "my own label",
        "Strongest paths to",
        "->",
    ]
    for piece in expected:
        assert piece in text, piece


def test_the_summary_is_json_and_its_numbers_are_right():
    graph = random_graph(seed=8)
    facts = json.loads(json.dumps(summary(graph, features=5, paths=2), allow_nan=False))
    target = facts["targets"][0]
    hat = dense_normalised(dense_matrix(graph))
    start = np.zeros(len(graph))
    start[target["node"]] = 1
    influence = start @ (np.linalg.inv(np.eye(len(graph)) - hat) - np.eye(len(graph)))
    features = np.flatnonzero(graph.nodes["kind"] == FEATURE)
    assert [f["node"] for f in target["features"]] == features[np.argsort(-influence[features])][:5].tolist()
    for feature in target["features"]:
        assert feature["influence"] == pytest.approx(influence[feature["node"]])
        assert feature["weight"] == dense_matrix(graph)[target["node"], feature["node"]]
    assert len(target["paths"]) == 2 and facts["edges"] == len(graph.weights)
    assert facts["scores"]["replacement"] == graph.scores().replacement


def test_a_failed_check_is_loud():
    graph = dataclasses.replace(random_graph(), measured={"identity_1": 0.3})
    assert "CHECKS FAILED" in report(graph, 80)


def test_escapes():
    assert clean("a\x1b[2J\n") == "a\\x1b[2J\\n" and columns("日本") == 4


def test_graphs_need_no_jax():
    found = "[m for m in sys.modules if m.split('.')[0] in ('jax', 'jaxlib')]"
    code = f"import sys, jaxinterp.graphs; assert not {found}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
