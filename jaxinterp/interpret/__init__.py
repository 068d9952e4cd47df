"""Floor 8: what features mean. Dashboards: one pass over text gives examples and statistics of every feature."""

from jaxinterp.interpret.config import DashboardConfig
from jaxinterp.interpret.making import Interrupted, make_dashboards
from jaxinterp.interpret.planning import estimate

__all__ = ["DashboardConfig", "Interrupted", "estimate", "make_dashboards"]
