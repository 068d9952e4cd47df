"""Programs that XLA has compiled, kept on disk from one process to the next by JAX's own persistent cache."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from pathlib import Path

FOLDER = "JAX_COMPILATION_CACHE_DIR"
_QUICK = {
    "jax_persistent_cache_min_compile_time_secs": 0.0,  # programs that compile in no time are many
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


def keep_compiled(folder: str | os.PathLike[str] | None = None) -> Path | None:
    """Keep compiled programs in a folder, from now on in this process and in those that it starts.

    The command line does this; a program of your own may. Call it before the first computation. What the user has set
    for JAX stands: with ``JAX_COMPILATION_CACHE_DIR`` that folder is used (none where it is empty), and
    ``JAX_ENABLE_COMPILATION_CACHE=false`` turns the cache off.

    Args:
      folder: None for `cache_folder`.

    Returns:
      the folder, or None where nothing is kept: it was turned off, or the folder cannot be written.
    """
    if os.environ.get("JAX_ENABLE_COMPILATION_CACHE", "").lower() in ("0", "false", "no", "off"):
        return None
    if (given := os.environ.get(FOLDER)) is not None:
        return Path(given) if given else None
    place = cache_folder() if folder is None else Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(place, os.W_OK):
        return None
    os.environ[FOLDER] = str(place)
    unset = {name: value for name, value in _QUICK.items() if name.upper() not in os.environ}
    os.environ |= {name.upper(): str(value) for name, value in unset.items()}
    if "jax" in sys.modules:  # which has looked at the environment already
        import jax

        jax.config.update("jax_compilation_cache_dir", str(place))
        for name, value in unset.items():
            jax.config.update(name, value)
    return place


def cache_folder() -> Path:
    """Where this user's compiled programs go: below ``XDG_CACHE_HOME``, ``~/.cache``, or what the system has for that.

    One folder for each sort of processor, since home folders are shared by machines and programs are not.
    """
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        given = os.environ.get("XDG_CACHE_HOME", "")
        base = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
    return base / "jaxinterp" / f"compiled-{_processor()}"


def _processor() -> str:
    """A name for this machine's instruction set."""
    features = ""
    try:
        with open("/proc/cpuinfo") as lines:
            features = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    except OSError:
        pass
    digest = hashlib.sha256(" ".join(sorted(features.split())).encode()).hexdigest()
    return f"{platform.machine() or 'any'}-{digest[:8]}"
