"""Attribution graphs: record, influence, pruning, scores, paths, reports, files. numpy and scipy only."""

from jaxinterp.graphs.build import Csr, EdgeBuilder
from jaxinterp.graphs.checks import Checks
from jaxinterp.graphs.error_share import ErrorShare
from jaxinterp.graphs.files import load_graph, save_graph
from jaxinterp.graphs.graph import Graph, assemble
from jaxinterp.graphs.influence import Flow, node_influence
from jaxinterp.graphs.kinds import (
    BIAS,
    BIAS_NAMES,
    EMBEDDING,
    ERROR,
    FEATURE,
    KIND_NAMES,
    NODE,
    PART_NAMES,
    TARGET,
    node_order,
    node_table,
)
from jaxinterp.graphs.paths import Path, strongest
from jaxinterp.graphs.propose import Preview, Proposal, propose
from jaxinterp.graphs.prune import Masks, prune_masks
from jaxinterp.graphs.report import report
from jaxinterp.graphs.scores import PrunedScores, Scores
from jaxinterp.graphs.summary import summary
from jaxinterp.graphs.supernodes import (
    Supernode,
    SupernodeGraph,
    grouped,
    supernodes_of,
    with_supernodes,
)

__all__ = [
    "BIAS",
    "BIAS_NAMES",
    "EMBEDDING",
    "ERROR",
    "FEATURE",
    "KIND_NAMES",
    "NODE",
    "PART_NAMES",
    "TARGET",
    "Checks",
    "Csr",
    "EdgeBuilder",
    "ErrorShare",
    "Flow",
    "Graph",
    "Masks",
    "Path",
    "Preview",
    "Proposal",
    "PrunedScores",
    "Scores",
    "Supernode",
    "SupernodeGraph",
    "assemble",
    "grouped",
    "load_graph",
    "node_influence",
    "node_order",
    "node_table",
    "propose",
    "prune_masks",
    "report",
    "save_graph",
    "strongest",
    "summary",
    "supernodes_of",
    "with_supernodes",
]
