"""The attribution graph: a node table, sparse rows of edges, and what is needed to read and make it again."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any

import numpy as np

from jaxinterp.core.display import html
from jaxinterp.core.errors import InputError
from jaxinterp.graphs.build import Csr, rows_of, select
from jaxinterp.graphs.checks import Checks, check
from jaxinterp.graphs.error_share import ErrorShare, error_share
from jaxinterp.graphs.influence import node_influence, running_share, target_weights
from jaxinterp.graphs.kinds import CONVENTIONS, KIND_NAMES, NODE, PART_NAMES, TARGET, node_order
from jaxinterp.graphs.prune import check_settings, prune_masks
from jaxinterp.graphs.scores import Scores, pruned_scores, scores

DENSE_LIMIT = 4 << 30  # bytes


@dataclass(frozen=True, eq=False)
class Graph:
    """An attribution graph. Make one with `assemble`, `load_graph` or by tracing.

    nodes (n,) of dtype NODE; edges in sparse rows, row = target, ascending sources. settings say how it was
    made (convention, max_feature_nodes, model, thresholds of pruning ...), provenance from what (digests,
    versions),
    measured what the tracer found (identity_1) and, on a pruned graph, the checks and scores of the unpruned
    one.
    labels has one text a node ("" for none; the token's text for a target); view is the state of a viewer
    (qParams of the JSON dialect); foreign is what an imported file holds beyond this record.
    """

    nodes: np.ndarray
    indptr: np.ndarray
    indices: np.ndarray
    weights: np.ndarray
    token_ids: tuple[int, ...]
    token_texts: tuple[str, ...]
    prompt: str
    n_layers: int
    labels: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    view: dict[str, Any] = field(default_factory=dict)
    foreign: dict[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.nodes)

    def __repr__(self) -> str:
        counts = ", ".join(f"{name} {n}" for name, n in self.counts().items() if n)
        return f"Graph({self.prompt!r}: {counts}; edges {len(self.weights)})"

    def _repr_html_(self) -> str:
        return html("graph", self)

    @property
    def csr(self) -> Csr:
        """The edges as sparse rows (indptr, indices, weights)."""
        return Csr(self.indptr, self.indices, self.weights)

    @property
    def convention(self) -> str:
        """ "paper" or "circuit-tracer"; imported graphs follow the latter."""
        return str(self.settings.get("convention", "circuit-tracer"))

    @property
    def targets(self) -> np.ndarray:
        """Indices of the target nodes, in the order given (descending probability for next tokens)."""
        return np.flatnonzero(self.nodes["kind"] == TARGET)

    @property
    def pruned(self) -> dict[str, Any] | None:
        """Thresholds and counts of the pruning that made this graph; None if it is whole."""
        return self.settings.get("pruned")

    def counts(self) -> dict[str, int]:
        """How many nodes of each kind."""
        found = np.bincount(self.nodes["kind"], minlength=len(KIND_NAMES))
        return {name: int(n) for name, n in zip(KIND_NAMES, found, strict=True)}

    def edges(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(target, source, weight), each (edges,), sorted by target, then source."""
        return rows_of(self.csr), np.asarray(self.indices), np.asarray(self.weights)

    def matrix(self) -> np.ndarray:
        """Dense adjacency (n, n) float32, row = target. Raises InputError above 4 GiB."""
        n = len(self.nodes)
        if 4 * n * n > DENSE_LIMIT:
            raise InputError(
                f"a dense matrix of {n} nodes needs {4 * n * n / 2**30:.1f} GiB: use edges() instead"
            )
        dense = np.zeros((n, n), np.float32)
        dense[rows_of(self.csr), self.indices] = self.weights
        return dense

    def scores(self) -> Scores:
        """Replacement and completeness scores and path lengths; of a pruned graph those of the whole one."""
        stored = self.measured.get("scores")
        if stored is not None:
            return Scores.from_dict(stored)
        return scores(self.csr, self.nodes, target_weights(self.nodes), self.convention)

    def checks(self) -> Checks:
        """How exactly the identities hold; of a pruned graph what held on the whole one."""
        stored = self.measured.get("checks")
        if stored is not None:
            return Checks.from_dict(stored)
        return check(self.csr, self.nodes, self.measured.get("identity_1"))

    def error_share(self) -> ErrorShare:
        """Share of influence that ends in error nodes, by layer and part, and by position.

        Of a pruned graph that of the errors that stayed, as they weighed in the whole one (the "paper"
        convention keeps all).
        """
        weights = target_weights(self.nodes)
        return error_share(self.nodes, weights, self.n_layers, len(self.token_ids))

    def prune(self, node_threshold: float = 0.8, edge_threshold: float = 0.98) -> Graph:
        """The strongest nodes and edges that carry these shares of the influence on the targets.

        The result keeps influence, share, checks and scores of this graph and says what was left out
        (``pruned``). Pruning a pruned graph prunes what is left.
        """
        check_settings(node_threshold, edge_threshold, self.convention)
        weights = target_weights(self.nodes)
        kinds = self.nodes["kind"]
        masks = prune_masks(self.csr, kinds, weights, node_threshold, edge_threshold, self.convention)
        kept = select(self.csr, masks.node_mask, masks.edge_mask)

        before = self.pruned
        hidden_edges = len(self.weights) - len(kept.weights) + (before["hidden_edges"] if before else 0)
        lost = np.bincount(kinds[~masks.node_mask], minlength=len(KIND_NAMES))
        old = before["hidden_nodes"] if before else {}
        hidden = {name: int(n) + old.get(name, 0) for name, n in zip(KIND_NAMES, lost, strict=True)}
        pruned = {
            "node_threshold": float(node_threshold),
            "edge_threshold": float(edge_threshold),
            "hidden_nodes": {name: n for name, n in hidden.items() if n},
            "hidden_edges": int(hidden_edges),
        }
        measured = {**self.measured, "checks": self.checks().to_dict()}
        if before is None:
            found = pruned_scores(self.csr, self.nodes, weights, masks.node_mask, self.convention)
            measured["scores"] = replace(self.scores(), pruned=found).to_dict()
        else:  # the whole graph is gone, so what this pruning cost cannot be told
            measured["scores"] = replace(self.scores(), pruned=None).to_dict()
        names = np.flatnonzero(masks.node_mask)
        return replace(
            self,
            nodes=self.nodes[masks.node_mask],
            indptr=kept.indptr,
            indices=kept.indices,
            weights=kept.weights,
            labels=tuple(self.labels[i] for i in names),
            settings={**self.settings, "pruned": pruned},
            measured=measured,
            foreign=_select_foreign(self.foreign, masks.node_mask, masks.edge_mask),
        )

    def plot(self, **options: Any) -> Any:
        """A matplotlib figure of a part of the graph, for papers: see `plot.plot_graph` for the options."""
        from jaxinterp.graphs.plot import plot_graph

        return plot_graph(self, **options)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the graph: a name ending in .json gives the Neuronpedia dialect, .jigraph the native format.

        Raises InputError on another ending, on an unwritable place, and on a graph too large for JSON.
        """
        from jaxinterp.graphs.files import save_graph

        save_graph(self, path)


def assemble(
    nodes: np.ndarray,
    csr: Csr,
    *,
    token_ids: tuple[int, ...],
    token_texts: tuple[str, ...],
    prompt: str,
    n_layers: int,
    labels: tuple[str, ...] | None = None,
    settings: dict[str, Any] | None = None,
    provenance: dict[str, Any] | None = None,
    measured: dict[str, Any] | None = None,
) -> Graph:
    """A graph from a node table and edges: checks that they fit and fills in influence and share.

    nodes (n,) of dtype NODE in the order of kinds.py. measured["identity_1"]: relative difference between the
    replacement model's logits and the model's. Raises InputError naming what does not fit.
    """
    settings = {"convention": "paper", **(settings or {})}
    if settings["convention"] not in CONVENTIONS:
        raise InputError(f"unknown convention {settings['convention']!r}: expected one of {CONVENTIONS}")
    n = len(nodes)
    if nodes.dtype != NODE:
        raise InputError("the node table has other fields than graphs.kinds.NODE: make it with node_table(n)")
    if n and nodes["part"].max() >= len(PART_NAMES):
        raise InputError(
            f"a node has part {nodes['part'].max()}: expected 0 (attention), 1 (mlp) or 2 (residual)"
        )
    if len(csr.indptr) != n + 1:
        raise InputError(f"edges are for {len(csr.indptr) - 1} nodes, the node table has {n}")
    if not np.array_equal(node_order(nodes), np.arange(n)):
        raise InputError("nodes are not in the order features | errors | biases | embeddings | targets")
    if not (nodes["kind"] == TARGET).any():
        raise InputError("a graph needs at least one target")
    if len(token_ids) != len(token_texts):
        raise InputError(f"{len(token_ids)} token ids, but {len(token_texts)} token texts")
    if ((nodes["position"] < 0) | (nodes["position"] >= len(token_ids))).any():
        raise InputError(f"a node is at a position outside the prompt's {len(token_ids)} tokens")
    if labels is not None and len(labels) != n:
        raise InputError(f"{len(labels)} labels for {n} nodes")
    nodes = with_influence(nodes, csr, settings["convention"])
    return Graph(
        nodes=nodes,
        indptr=csr.indptr,
        indices=csr.indices,
        weights=csr.weights,
        token_ids=tuple(int(i) for i in token_ids),
        token_texts=tuple(token_texts),
        prompt=prompt,
        n_layers=int(n_layers),
        labels=labels if labels is not None else ("",) * n,
        settings=settings,
        provenance=dict(provenance or {}),
        measured=dict(measured or {}),
    )


def with_influence(nodes: np.ndarray, csr: Csr, convention: str) -> np.ndarray:
    """The node table with influence q and running share (nan for targets) computed from the edges."""
    nodes = nodes.copy()
    influence = node_influence(csr, target_weights(nodes), convention)
    nodes["influence"] = influence
    nodes["share"] = np.where(nodes["kind"] == TARGET, np.nan, running_share(influence))
    return nodes


def _select_foreign(
    foreign: dict[str, Any] | None, nodes: np.ndarray, edges: np.ndarray
) -> dict[str, Any] | None:
    """What an imported file held about the nodes and edges that stay."""
    if foreign is None:
        return None
    node_at, edge_at = np.cumsum(nodes) - 1, np.cumsum(edges) - 1
    kept = dict(foreign)
    kept["nodes"] = {str(node_at[int(i)]): raw for i, raw in foreign["nodes"].items() if nodes[int(i)]}
    kept["links"] = {str(edge_at[int(i)]): raw for i, raw in foreign["links"].items() if edges[int(i)]}
    kept["node_order"] = [int(node_at[i]) for i in foreign["node_order"] if nodes[i]]
    kept["link_order"] = [int(edge_at[i]) for i in foreign["link_order"] if edges[i]]
    kept["loose_links"] = []
    return kept
