"""Floor 7: how good a dictionary is, on held-out text, and how dictionaries compare."""

from jaxinterp.evaluation.dictionary import evaluate
from jaxinterp.evaluation.language import LanguageConfig, language
from jaxinterp.evaluation.reconstruction import reconstruction

__all__ = ["LanguageConfig", "evaluate", "language", "reconstruction"]
