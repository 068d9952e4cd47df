"""Looking at graphs: what the page is fed with, saving, comparing, and a server on this machine. Imports no jax."""
