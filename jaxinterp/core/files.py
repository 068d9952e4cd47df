"""Files that are whole or absent: written under a temporary name, synced, renamed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxinterp.core.errors import InputError


@contextlib.contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on a clean exit sync it and rename it over ``path``.

    The body writes one file at the temporary path. Whatever goes wrong, ``path`` keeps its old content
    and the temporary file is removed.

    Raises:
      InputError: the folder does not exist, is not writable, or the disk is full.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder, a file name is needed")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        # mkstemp makes files private; a result is as readable as any new file of this user.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; on a clean exit it takes the place of ``path``.

    Raises:
      InputError: ``path`` is a file, or its parent is missing or not writable, or the disk is full.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"cannot write the folder {path}: a file of that name is in the way")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    except OSError as error:
        raise InputError(f"cannot write the folder {path}: {error.strerror or error}") from error
    old = path.with_name(f".{path.name}.old")
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o777 & ~mask)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
            path.replace(old)
        temporary.replace(path)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise InputError(f"cannot write the folder {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8 to ``path``, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: str | os.PathLike[str], value: Any, indent: int | None = 2) -> None:
    """Write ``value`` as JSON to ``path``; NaN and infinity are refused because JSON has none."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of ``path``, or an `InputError` that says why they cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """The JSON value in ``path``, or an `InputError` that names the file and the line."""
    try:
        return json.loads(read_bytes(path).decode())
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not JSON: not UTF-8 text at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path} is not JSON: {error.msg.removesuffix(' at')} at line {error.lineno}"
        ) from error
    except RecursionError as error:
        raise InputError(f"{path} is not usable JSON: nested too deeply") from error


def digest_file(path: str | os.PathLike[str]) -> str:
    """The sha256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
