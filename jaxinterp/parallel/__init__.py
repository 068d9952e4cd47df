"""Floor 2: meshes, logical axes and weights that are declared once."""

from jaxinterp.parallel.rules import DEFAULT_RULES, Rules
from jaxinterp.parallel.weights import Weight

__all__ = ["DEFAULT_RULES", "Rules", "Weight"]
