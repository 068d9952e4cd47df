"""Floor 1: what every room needs and no room owns. Imports jax only inside functions."""
