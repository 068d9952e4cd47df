"""Agreement with circuit-tracer's stored answers under its own convention (optional test material)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.attribution import trace
from jaxinterp.attribution.setup import fit, set_up
from jaxinterp.checkpoints import load_model
from jaxinterp.dictionaries import load_dictionary
from jaxinterp.graphs import Graph
from jaxinterp.graphs.kinds import ERROR, FEATURE
from jaxinterp.models import forward
from jaxinterp.parallel.mesh import make
from tests.support import shared

CASES = ("gemma2_plt_jumprelu", "llama_plt_relu_skip", "llama_clt_relu")


class Case:
    """One stored case with our graphs of it."""

    def __init__(self, name: str) -> None:
        folder: Path = shared(f"cases/{name}")
        self.model = load_model(folder)
        self.dictionary = load_dictionary(folder / "transcoders")
        self.reference = np.load(folder / "reference.npz")
        self.tokens = [int(t) for t in self.reference["tokens"]]
        self.graph = trace(self.model, self.dictionary, self.tokens, convention="circuit-tracer")
        limit, batch, interval = (int(x) for x in self.reference["lim_params"])
        self.limited = trace(
            self.model, self.dictionary, self.tokens, convention="circuit-tracer", max_feature_nodes=limit,
            rank_every=batch * interval,
        )  # fmt: skip


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def features(graph: Graph) -> np.ndarray:
    """(layer, position, feature) of a graph's features."""
    nodes = graph.nodes[graph.nodes["kind"] == FEATURE]
    return np.stack([nodes["layer"], nodes["position"], nodes["index"]], axis=1)


def test_logits_and_sites(case: Case) -> None:
    sites = ("resid_pre", "resid_mid", "mlp_out", "pattern")
    logits, found = forward(case.model.params, case.model.config, jnp.asarray(case.tokens)[None], sites=sites)
    assert np.abs(logits[0] - case.reference["logits"]).max() < 1e-4
    for site, name in (("resid_pre", "resid_pre"), ("resid_mid", "resid_mid"), ("pattern", "attn_pattern")):
        assert np.abs(getattr(found, site)[:, 0] - case.reference[name]).max() < 1e-4


def test_reconstruction_and_errors(case: Case) -> None:
    found = set_up(
        case.model, fit(case.model, case.dictionary), np.asarray(case.tokens), mesh=make(devices=jax.devices()[:1]),
        skip_first=True,
    )  # fmt: skip
    t, n_layers = len(case.tokens), case.model.config.n_layers
    assert np.abs(found.run.read[0][:, 0, :t] - case.reference["feature_in"]).max() < 1e-5
    errors = np.stack([found.writes.errors[0, layer] for layer in range(n_layers)])[:, :t]
    rebuilt = np.asarray(found.run.write[0][:, 0, :t]) - errors
    assert np.abs(rebuilt - case.reference["reconstruction"])[:, 1:].max() < 1e-5
    assert np.abs(errors - case.reference["error_vectors"]).max() < 1e-5


def test_same_active_features(case: Case) -> None:
    assert np.array_equal(features(case.graph), case.reference["active_features"])
    activations = case.graph.nodes["activation"][case.graph.nodes["kind"] == FEATURE]
    assert np.abs(activations - case.reference["activation_values"]).max() < 1e-5


def test_same_targets(case: Case) -> None:
    targets = case.graph.nodes[case.graph.targets]
    assert np.array_equal(targets["index"], case.reference["logit_tokens"])
    assert np.abs(targets["probability"] - case.reference["logit_probs"]).max() < 1e-5


@pytest.mark.parametrize("which", ["", "lim_"])
def test_adjacency_influence_and_scores(case: Case, which: str) -> None:
    graph = case.limited if which else case.graph
    reference: Any = case.reference
    assert np.abs(graph.matrix() - reference[f"{which}adjacency"]).max() < 1e-5
    assert np.abs(graph.nodes["influence"] - reference[f"{which}node_influence"]).max() < 1e-5
    scores = graph.scores()
    assert (
        np.abs(np.array([scores.replacement, scores.completeness]) - reference[f"{which}scores"]).max() < 1e-4
    )


@pytest.mark.parametrize("which", ["", "lim_"])
def test_pruning_of_our_graph(case: Case, which: str) -> None:
    """Given our own adjacency, both masks overlap with the reference's to a Jaccard index of 0.99."""
    from jaxinterp.graphs.influence import target_weights
    from jaxinterp.graphs.prune import prune_masks

    graph = case.limited if which else case.graph
    masks = prune_masks(
        graph.csr, graph.nodes["kind"], target_weights(graph.nodes), 0.8, 0.98, "circuit-tracer"
    )
    node_mask = case.reference[f"{which}node_mask"]
    size = len(node_mask)
    edge_mask = np.unpackbits(case.reference[f"{which}edge_mask"], axis=1)[:, :size].astype(bool)
    ours = np.zeros((size, size), bool)
    targets, sources, _ = graph.edges()
    ours[targets[masks.edge_mask], sources[masks.edge_mask]] = True
    for mine, theirs in (
        (masks.node_mask, node_mask),
        (ours, edge_mask & (case.reference[f"{which}adjacency"] != 0)),
    ):
        assert (mine & theirs).sum() / (mine | theirs).sum() >= 0.99


def test_selected_features(case: Case) -> None:
    expected = case.reference["active_features"][case.reference["lim_selected_features"]]
    assert np.array_equal(features(case.limited), expected)


def test_checks_count_what_the_convention_leaves_out(case: Case) -> None:
    """Without bias nodes edges do not sum to the target, but what is left out is known exactly."""
    for graph in (case.graph, case.limited):
        assert graph.checks().ok
    nodes = case.graph.nodes
    first_errors = (nodes["kind"] == ERROR) & (nodes["position"] == 0)
    assert not case.graph.matrix()[:, first_errors].any()
    assert np.abs(nodes["left_out"]).max() > 1e-3


def test_direct_interventions_are_the_edges(case: Case) -> None:
    """The peer's own constrained interventions (everything frozen), alone and together, are what edges predict."""
    reference, graph, cap = case.reference, case.graph, case.model.config.final_softcap
    names = {tuple(row): i for i, row in enumerate(features(graph).tolist())}
    clean = reference["pre_activations"][tuple(features(graph).T)]
    changes = np.zeros((5, len(graph)))
    for row, (layer, position, feature, value) in enumerate(reference["iv_specs"]):
        node = names[int(layer), int(position), int(feature)]
        changes[row, node] = value / graph.nodes["activation"][node] - 1
    changes[4] = changes.sum(axis=0)
    predicted = changes @ graph.matrix().T
    moved = reference["iv_direct_preacts_at_active"] - clean
    assert np.abs(moved).max() > 0.05
    assert np.abs(moved - predicted[:, : len(names)]).max() < 1e-5

    def uncapped(logits: np.ndarray) -> np.ndarray:
        logits = logits.astype(np.float64)
        return cap * np.arctanh(logits / cap) if cap else logits

    logits = uncapped(reference["iv_direct_logits"][:, -1]) - uncapped(reference["logits"][-1])
    logits -= logits.mean(axis=1, keepdims=True)
    targets = graph.targets
    assert np.abs(logits[:, graph.nodes["index"][targets]] - predicted[:, targets]).max() < 1e-5
