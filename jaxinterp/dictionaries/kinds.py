"""The kinds of dictionary there are. A new kind is a new file and one entry here."""

from __future__ import annotations

from jaxinterp.dictionaries import crosscoder, crosslayer, lorsa, molt, transcoder
from jaxinterp.dictionaries.base import Kind

KINDS: dict[str, Kind] = {
    "plt": transcoder.KIND,
    "clt": crosslayer.KIND,
    "crosscoder": crosscoder.KIND,
    "molt": molt.KIND,
    "lorsa": lorsa.KIND,
}
