"""Targets as a person types them.

Paris                  a next token at the last position; a whole number is a token id
"42"                   in double quotes, as JSON writes texts: always a text
Paris@-3   Paris@2,5   at other positions; negative ones count from the end
Paris - London         a logit difference;  Paris + Rome - London  of the mean of a group
feature:12/345@7       a feature, active or not;  feature:attention/12/345@7  of a named part
supernode:capital=12/345@7,13/9@7*0.5
                       a weighted sum of features
direction:probe.npy@3  a vector from a file, read after the final norm; direction:4/probe.npy  at layer 4,
                       direction:mlp/4/probe.npy  at a part of it
salient:@3             the most probable next tokens there
targets.json           a file of targets (`wanted_plain.read_targets`)
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from jaxinterp.attribution.readings import PARTS
from jaxinterp.attribution.wanted import Difference, Direction, Feature, Salient, Supernode, Token
from jaxinterp.attribution.wanted_plain import read_targets, read_vector
from jaxinterp.core.errors import InputError, near

_PLACE = re.compile(r"(?P<what>.*?)@(?P<positions>-?\d+(,-?\d+)*)\s*", re.DOTALL)
_FEATURE = re.compile(r"(?:(?P<part>[a-z]+)/)?(?P<layer>\d+)/(?P<index>\d+)")
_DIRECTION = re.compile(r"(?:(?P<site>[a-z_]+)/)?(?P<layer>\d+)/(?P<file>.+)")
_SIGN = re.compile(r"\s+([-+])\s+")
_QUOTED = re.compile(r'\s*"(?:[^"\\]|\\.)*"(?=\s+[-+]\s|\s*$)', re.DOTALL)
PREFIXES = ("feature", "supernode", "direction", "salient")
_MOST = 18  # digits of a number


def parse_targets(texts: Iterable[str], file: Callable[[str], Path] = Path) -> list[Any]:
    """The targets that texts ask for, in order; a file gives as many as it holds.

    Args:
      texts: see the head of this module.
      file: the name of a file → where it is; may refuse.

    Raises:
      InputError: a text that starts like a sort of target and does not go on like one, or a file that cannot be read.
    """
    found: list[Any] = []
    for text in texts:
        if text.strip().lower().endswith(".json") and not text.strip().startswith('"'):
            found += read_targets(file(text.strip()))
        else:
            found.append(parse_target(text, file))
    return found


def parse_target(text: str, file: Callable[[str], Path] = Path) -> Any:
    """The target that one text asks for (no file of targets); see the head of this module.

    Raises:
      InputError: naming the text and the form that was expected.
    """
    if not text.strip():
        raise InputError("a target is empty, give a token's text or id")
    prefix, colon, rest = text.strip().partition(":")
    if colon and prefix in PREFIXES:
        return _prefixed(prefix, rest, text, file)
    what, positions = _placed(text)
    if not what.strip():  # a token that looks like a position
        what, positions = text, -1
    operands = _operands(what)
    if len(operands) == 1:
        return Token(_token(what), positions) if positions != -1 else _token(what)
    sides: dict[str, list[Any]] = {"+": [], "-": []}
    for sign, piece in operands:
        if not piece.strip():
            raise InputError(
                f"the target {text!r} has no token before or after a sign: put it in double quotes"
            )
        sides[sign].append(_token(piece.strip()))
    return Difference(tuple(sides["+"]), tuple(sides["-"]), positions)


def _operands(text: str) -> list[tuple[str, str]]:
    """(sign, text) of what signs between blanks separate; signs in double quotes are part of a token."""
    found, sign, at = [], "+", 0
    while True:
        quoted = _QUOTED.match(text, at)
        following = _SIGN.search(text, quoted.end() if quoted else at)
        found.append((sign, text[at : following.start() if following else len(text)]))
        if following is None:
            return found
        sign, at = following[1], following.end()


def _prefixed(prefix: str, rest: str, text: str, file: Callable[[str], Path]) -> Any:
    if prefix == "supernode":
        return _supernode(rest, text)
    what, positions = _placed(rest)
    what = what.strip()
    if prefix == "salient":
        if what:
            raise InputError(f"the target {text!r}: expected salient: or salient:@POSITION")
        return Salient(positions)
    if prefix == "feature":
        return _feature(what, positions, text)
    layer, site, name = None, None, what
    if found := _DIRECTION.fullmatch(what):
        layer, site, name = _number(found["layer"], text), found["site"], found["file"]
    if not name:
        raise InputError(
            f"the target {text!r}: expected direction:FILE.npy or direction:[SITE/]LAYER/FILE.npy"
        )
    return Direction(read_vector(file(name)), Path(name).stem, positions, layer, site)


def _feature(what: str, positions: Any, text: str) -> Feature:
    found = _FEATURE.fullmatch(what)
    if not found:
        raise InputError(f"the target {text!r}: expected feature:LAYER/FEATURE@POSITION, as feature:12/345@7")
    part = found["part"]
    if part is not None and part not in PARTS:
        raise InputError(f"the target {text!r}: {part!r} is no part{near(part, PARTS)}: {', '.join(PARTS)}")
    return Feature(_number(found["layer"], text), _number(found["index"], text), positions, part)


def _supernode(rest: str, text: str) -> Supernode:
    name, equals, members = rest.partition("=")
    if not equals or not name.strip() or not members.strip():
        raise InputError(f"the target {text!r}: expected supernode:NAME=LAYER/FEATURE@POSITION,...")
    features, weights = [], []
    for member in members.split(","):
        what, _, weight = member.partition("*")
        what, position = _placed(what)
        features.append(_feature(what.strip(), position, text))
        try:
            weights.append(float(weight) if weight else 1.0)
        except ValueError:
            raise InputError(f"the target {text!r}: {weight!r} is no weight") from None
    given = None if set(weights) == {1.0} else tuple(weights)
    return Supernode(name.strip(), tuple(features), given)


def _placed(text: str) -> tuple[str, Any]:
    """What stands before "@", and the positions after it; -1 where there are none."""
    found = _PLACE.fullmatch(text)
    if not found:
        return text, -1
    positions = tuple(_number(one, text) for one in found["positions"].split(","))
    return found["what"], positions[0] if len(positions) == 1 else positions


def _token(text: str) -> Any:
    bare = text.strip()
    if bare.isdecimal() and bare.isascii():
        return _number(bare, text)
    if len(bare) >= 2 and bare[0] == bare[-1] == '"':
        try:
            return json.loads(bare)
        except json.JSONDecodeError as error:
            raise InputError(f"the target {text!r}: {error.msg} in a text in double quotes") from error
    return text


def _number(text: str, where: str) -> int:
    if len(text) > _MOST:
        raise InputError(f"the target {where!r:.60}: a number of {len(text)} digits")
    return int(text)
