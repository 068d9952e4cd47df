"""Floor 7: how good a dictionary is, on held-out text."""

from jaxinterp.evaluation.dictionary import evaluate
from jaxinterp.evaluation.language import language
from jaxinterp.evaluation.reconstruction import reconstruction

__all__ = ["evaluate", "language", "reconstruction"]
