"""A graph put where the asker says: to hosts that were allowed, and never where those send it on."""

from __future__ import annotations

import gzip
import http.client
import ipaddress
import logging
import ssl
from collections.abc import Collection
from urllib.parse import urlsplit

from jaxinterp.core.errors import InputError

SECONDS = 60.0
LEVEL = 3
_LONGEST = 8000

log = logging.getLogger("jaxinterp.serve")


def check(url: str, allowed: Collection[str] = ()) -> tuple[str, str, int, str]:
    """Scheme, host, port and what to ask for of an address that may be written to.

    Args:
      url: http or https.
      allowed: hosts beside this machine, by name; ``*.name`` stands for all below it.

    Raises:
      InputError: any other host or form.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise InputError("signed_url is not an address") from None
    plain = url.isascii() and url.isprintable() and " " not in url and len(url) <= _LONGEST
    if not plain or parts.scheme not in ("http", "https") or not host:
        raise InputError("signed_url is not an http or https address")
    if parts.username is not None or parts.password is not None:
        raise InputError("signed_url has a user name in it, which is not allowed")
    if not _loopback(host) and not any(_same(host, name) for name in allowed):
        raise InputError(
            f"signed_url names the host {host:.100}: start with --allow-upload {host:.100} to allow it"
        )
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return parts.scheme, host, port or (443 if parts.scheme == "https" else 80), target


def put(url: str, document: bytes, *, compress: bool, allowed: Collection[str] = ()) -> None:
    """PUT a JSON document; nothing is followed and no proxy is asked.

    Raises:
      InputError: see `check`; no connection, or an answer other than success.
    """
    scheme, host, port, target = check(url, allowed)
    headers = {"Content-Type": "application/json"}
    if compress:
        document = gzip.compress(document, LEVEL, mtime=0)
        headers["Content-Encoding"] = "gzip"
    connection: http.client.HTTPConnection
    if scheme == "https":
        connection = http.client.HTTPSConnection(
            host, port, timeout=SECONDS, context=ssl.create_default_context()
        )
    else:
        connection = http.client.HTTPConnection(host, port, timeout=SECONDS)
    try:
        connection.request("PUT", target, document, headers)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        log.warning("upload to %s failed: %s", host, error)
        raise InputError(f"the graph could not be uploaded: no answer from {host:.100}") from None
    finally:
        connection.close()
    if not 200 <= status < 300:
        raise InputError(f"the graph could not be uploaded: {host:.100} answered {status}")


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _same(host: str, name: str) -> bool:
    name = name.lower()
    return host.endswith(name[1:]) if name.startswith("*.") else host == name
