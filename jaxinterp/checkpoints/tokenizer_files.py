"""What stands beside a tokenizer's own file: names of special tokens, chat templates, where generation stops."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import read_bytes, read_json, write_json, write_text

SETTINGS = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
TEMPLATES = "additional_chat_templates"
GENERATION = "generation_config.json"
DEFAULT = "default"
# What Hugging Face calls single special tokens; "additional_special_tokens" holds a list of further ones.
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
FURTHER = "additional_special_tokens"


@dataclass(frozen=True)
class Beside:
    """The files beside a tokenizer.

    Attributes:
      settings: ``tokenizer_config.json``, with what older folders keep in ``special_tokens_map.json`` and
        ``added_tokens.json`` filled in where it says nothing.
      templates: chat templates from files of their own (``chat_template.jinja`` is "default").
      stops: token ids at which generation ends, of ``generation_config.json``, or else of ``config.json``.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    templates: dict[str, str] = field(default_factory=dict)
    stops: tuple[int, ...] = ()


class Added(NamedTuple):
    """A token that is found in a text before the tokenizer's own model sees it.

    ``left`` and ``right``: it takes the blanks on that side with it. ``word``: it is found as a whole word only.
    ``special``: it stands for no text.
    """

    name: str
    left: bool = False
    right: bool = False
    word: bool = False
    normalized: bool = False
    special: bool = True


def read_beside(folder: str | os.PathLike[str]) -> Beside:
    """Read what is beside a tokenizer in ``folder``; whatever is not there is empty.

    Raises:
      InputError: a file that is not what its name says.
    """
    folder = Path(folder)
    settings = _object(folder / SETTINGS, "a tokenizer's settings")
    if "added_tokens_decoder" not in settings:
        _fill_in(settings, folder)
    templates: dict[str, str] = {}
    files = {DEFAULT: folder / TEMPLATE}
    files |= {file.stem: file for file in sorted((folder / TEMPLATES).glob("*.jinja"))}
    for name, file in files.items():
        if file.is_file():
            try:
                templates[name] = read_bytes(file).decode()
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{file} is not a chat template: not UTF-8 text at byte {error.start}"
                ) from error
    return Beside(settings, templates, _stops(folder))


def _object(file: Path, what: str) -> dict[str, Any]:
    content = read_json(file) if file.is_file() else {}
    if not isinstance(content, dict):
        raise InputError(f"{file} is not {what}: not a JSON object")
    return content


def _fill_in(settings: dict[str, Any], folder: Path) -> None:
    for key, value in _object(folder / "special_tokens_map.json", "a table of special tokens").items():
        if key in NAMED or key == FURTHER:
            settings.setdefault(key, value)
    added = _object(folder / "added_tokens.json", "a table of tokens")
    if added:
        special = set(flatten(settings).values()) | set(further(settings))
        decoder = {}
        for name, token in added.items():
            if isinstance(token, bool) or not isinstance(token, int) or token < 0:
                raise InputError(f"{folder / 'added_tokens.json'}: the id of {name!r} is {token!r}")
            decoder[str(token)] = {"content": name, "special": name in special}
        settings["added_tokens_decoder"] = decoder


def _stops(folder: Path) -> tuple[int, ...]:
    for name in (GENERATION, "config.json"):
        file = folder / name
        content = _object(file, "a model's settings")
        if "eos_token_id" in content:
            given = content["eos_token_id"]
            ids = given if isinstance(given, list) else [] if given is None else [given]
            if any(isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < 2**31 for i in ids):
                raise InputError(f"{file}: eos_token_id is {given!r}, expected a token id or a list of them")
            return tuple(ids)
    return ()


def write_beside(
    folder: str | os.PathLike[str],
    settings: Mapping[str, Any],
    files: Mapping[str, str],
    stops: tuple[int, ...],
    eos: int | None,
) -> None:
    """Write what `read_beside` reads: settings, templates of their own files, and stops that are not just ``eos``."""
    folder = Path(folder)
    if settings:
        write_json(folder / SETTINGS, dict(settings))
    for name, template in files.items():
        if name == DEFAULT:
            write_text(folder / TEMPLATE, template)
        else:
            (folder / TEMPLATES).mkdir(exist_ok=True)
            write_text(folder / TEMPLATES / f"{name}.jinja", template)
    if extra_stops(stops, eos):
        write_json(folder / GENERATION, {"eos_token_id": list(stops)})


def extra_stops(stops: tuple[int, ...], eos: int | None) -> bool:
    """Whether generation stops elsewhere than at ``eos``."""
    return set(stops) != ({eos} if eos is not None else set())


def all_stops(eos: int | None, stops: tuple[int, ...]) -> tuple[int, ...]:
    """``eos`` first, then the others in their order, each once."""
    return tuple(dict.fromkeys([*([] if eos is None else [eos]), *stops]))


def content(token: Any) -> str | None:
    """The text of a token that settings give as a string or as an object with a field ``content``."""
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None


def check_names(settings: Mapping[str, Any], where: str) -> None:
    """Special tokens are texts, or objects with a text ``content``.

    Raises:
      InputError: naming the field that holds something else.
    """
    for key in (*NAMED, FURTHER):
        given = settings.get(key)
        each = given if key == FURTHER and isinstance(given, list) else [given]
        wrong = (key == FURTHER) != isinstance(given, list) or any(content(token) is None for token in each)
        if given is not None and wrong:
            raise InputError(f"{where}: the field {key} is {given!r:.60}, expected the text of a token")


def flatten(settings: Mapping[str, Any]) -> dict[str, str]:
    """ "bos_token" → its text, for every single special token that the settings name."""
    return {key: name for key in NAMED if (name := content(settings.get(key)))}


def further(settings: Mapping[str, Any]) -> list[str]:
    """The texts of ``additional_special_tokens``."""
    given = settings.get(FURTHER)
    return [name for item in given if (name := content(item))] if isinstance(given, list) else []


def template_names(settings: Mapping[str, Any], defaults: Mapping[str, str]) -> dict[str, Any]:
    """What chat templates may call special tokens: ``bos_token`` and the like, each the token's text.

    Args:
      settings: of the tokenizer.
      defaults: for those that the settings do not mention.
    """
    found: dict[str, Any] = {key: name for key, name in defaults.items() if key not in settings}
    found |= flatten(settings)
    if further(settings):
        found[FURTHER] = further(settings)
    extra = settings.get("extra_special_tokens")
    if isinstance(extra, dict):
        found |= {key: name for key, each in extra.items() if (name := content(each))}
    return found


def added_tokens(settings: Mapping[str, Any], where: str) -> dict[int, Added]:
    """The tokens of ``added_tokens_decoder`` by id.

    Raises:
      InputError: an entry that is no token.
    """
    table = settings.get("added_tokens_decoder")
    if table is None:
        return {}
    if not isinstance(table, dict):
        raise InputError(f"{where}: added_tokens_decoder is {type(table).__name__}, expected an object")
    found = {}
    for key, entry in sorted(table.items()):
        if not str(key).isdecimal() or not isinstance(entry, dict) or not content(entry):
            raise InputError(f"{where}: the entry {key!r} of added_tokens_decoder is not a token with an id")
        found[int(key)] = Added(
            entry["content"],
            left=bool(entry.get("lstrip")),
            right=bool(entry.get("rstrip")),
            word=bool(entry.get("single_word")),
            normalized=bool(entry.get("normalized", not entry.get("special"))),
            special=bool(entry.get("special")),
        )
    return dict(sorted(found.items()))


def chat_templates(settings: Mapping[str, Any], files: Mapping[str, str], where: str) -> dict[str, str]:
    """Name → chat template. Templates in files of their own replace those in the settings, as in transformers.

    Raises:
      InputError: a ``chat_template`` that is neither text nor a list of named texts.
    """
    if files:
        return dict(files)
    given = settings.get("chat_template")
    if given is None:
        return {}
    if isinstance(given, str):
        return {DEFAULT: given}
    pairs = given if isinstance(given, list) else [None]
    found = {}
    for pair in pairs:
        name, template = (pair.get("name"), pair.get("template")) if isinstance(pair, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(template, str):
            raise InputError(
                f"{where}: chat_template is neither a text nor a list of objects with the texts name and template"
            )
        found[name] = template
    return found
