"""Pocket's vocabulary: a token a word, a digit and a mark; and its tokenizer.json.

The tokenizer is of the `WordLevel` kind, written through the `tokenizers` library: text is lower-cased,
accents are dropped, words are split from marks and digits stand alone. A word outside the vocabulary becomes
`<unk>`, which readers refuse.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from jaxinterp.biology.pocket import words
from jaxinterp.checkpoints.tokenizers import JsonTokenizer
from jaxinterp.core.errors import InputError, near

PAD, UNKNOWN, BOS, EOS = "<pad>", "<unk>", "<bos>", "<eos>"
SPECIAL = (PAD, UNKNOWN, BOS, EOS)
MARKS = (".", ",", "?", "/", "+", "=")
DIGITS = tuple("0123456789")
# The words of questions and of the grammar between content words.
FRAME = words.listed(
    "the of is in state containing a verse that ends opposite le contraire de est lo contrario es "
    "english en francais espanol which sport does play don't know met and saw are today"
)
SIZE_STEP = 8  # the vocabulary is filled up to a multiple of this, for even shards

SPLIT = r"[a-z]+(?:'[a-z]+)?|[0-9]|<[a-z]+>|[^\sa-z0-9]"


@cache
def tokens() -> tuple[str, ...]:
    """Every token in the order of its id."""
    result: dict[str, None] = dict.fromkeys((*SPECIAL, *DIGITS, *MARKS, *FRAME))
    lists = [
        words.PREFIXES,
        words.SUFFIXES,
        words.STATES,
        tuple(words.ATTRIBUTES),
        *words.ATTRIBUTES.values(),
    ]
    lists += [part for rhyme in words.RHYMES.values() for part in rhyme]
    lists += [words.THEMES, words.DETERMINERS, words.ADJECTIVES, *words.OPPOSITES.values()]
    lists += [words.FIRST_NAMES, words.LAST_NAMES, words.SPORTS]
    lists += [words.NOUNS, tuple(words.plural(noun) for noun in words.NOUNS)]
    lists += [words.VERBS, tuple(verb + "s" for verb in words.VERBS), words.PLACES, words.PREDICATES]
    for group in lists:
        result.update(dict.fromkeys(group))
    spare = -len(result) % SIZE_STEP
    result.update(dict.fromkeys(f"<spare{i}>" for i in range(spare)))
    return tuple(result)


@cache
def ids() -> dict[str, int]:
    """Token -> id."""
    return {token: i for i, token in enumerate(tokens())}


def encode(text: str) -> list[int]:
    """The ids of words separated by spaces, with the beginning-of-document token first.

    Raises InputError naming a word outside the vocabulary.
    """
    table = ids()
    result = [table[BOS]]
    for word in text.split():
        if word not in table:
            raise InputError(f"{word!r} is not a word of pocket{near(word, table)}")
        result.append(table[word])
    return result


def decode(token_ids: list[int] | np.ndarray) -> str:
    """The words of ids, separated by spaces."""
    return " ".join(tokens()[int(i)] for i in token_ids)


def tokenizer() -> JsonTokenizer:
    """The tokenizer, as it is saved beside the model."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    built = Tokenizer(models.WordLevel(vocab=dict(ids()), unk_token=UNKNOWN))
    built.add_special_tokens(list(SPECIAL))
    built.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    built.pre_tokenizer = pre_tokenizers.Split(Regex(SPLIT), behavior="removed", invert=True)
    built.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, ids()[BOS])]
    )
    settings = {"bos_token": BOS, "eos_token": EOS, "add_bos_token": True}
    return JsonTokenizer(built.to_str(pretty=True) + "\n", settings, "pocket's tokenizer")
