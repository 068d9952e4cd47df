"""How training keeps features sparse: one small file a way, chosen by name in the configuration."""

from jaxinterp.training.sparsity.base import Gate, make_gate

__all__ = ["Gate", "make_gate"]
