"""What made a file: versions of the code and its libraries. Never a time, host, path or device count."""

from __future__ import annotations

from importlib import metadata

LIBRARIES = ("jax", "jaxlib", "numpy")


def version() -> str:
    """This package's own version; "unknown" when it runs from a folder that was never installed."""
    import jaxinterp

    return jaxinterp.__version__


def versions() -> dict[str, str]:
    """Versions of this package and of the libraries whose arithmetic goes into a result."""
    found = {"jaxinterp": version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
