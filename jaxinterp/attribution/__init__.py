"""Floor 6: everything that makes a graph: targets, direct effects, selection; and compares graphs."""

from jaxinterp.attribution.coactivation import Coactivation
from jaxinterp.attribution.coactivation_files import load_coactivation, save_coactivation
from jaxinterp.attribution.contrast import Contrast, contrast, load_contrast
from jaxinterp.attribution.estimate import Estimate, estimate
from jaxinterp.attribution.expected_weights import expected
from jaxinterp.attribution.global_weights import GlobalWeights, virtual_weights
from jaxinterp.attribution.heads import head_loadings
from jaxinterp.attribution.heads_record import HeadLoadings
from jaxinterp.attribution.operands import OperandPlots, operand_plots
from jaxinterp.attribution.qk import qk_attribution
from jaxinterp.attribution.qk_record import QkAttribution, QkScore
from jaxinterp.attribution.replaced import replace
from jaxinterp.attribution.reproduce import Comparison, reproduce
from jaxinterp.attribution.search import active_only, activity, as_target, overlap
from jaxinterp.attribution.tracing import trace
from jaxinterp.attribution.wanted import (
    Completion,
    Difference,
    Direction,
    Feature,
    Salient,
    Supernode,
    Token,
)

__all__ = [
    "Coactivation",
    "Comparison",
    "Completion",
    "Contrast",
    "Difference",
    "Direction",
    "Estimate",
    "Feature",
    "GlobalWeights",
    "HeadLoadings",
    "OperandPlots",
    "QkAttribution",
    "QkScore",
    "Salient",
    "Supernode",
    "Token",
    "active_only",
    "activity",
    "as_target",
    "contrast",
    "estimate",
    "expected",
    "head_loadings",
    "load_coactivation",
    "load_contrast",
    "operand_plots",
    "overlap",
    "qk_attribution",
    "replace",
    "reproduce",
    "save_coactivation",
    "trace",
    "virtual_weights",
]
