"""Opposites in three languages, within a language and across, and translations.

"the opposite of big is small"; "the opposite of grand is small" (asked in English about a French word);
"grand in english is big". Held out: (word, asking language) questions about opposites; every translation is
shown.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from jaxinterp.biology.pocket import words, world
from jaxinterp.biology.pocket.documents import Document, Item, choose, document

FAMILY = "opposites"

HELD_OUT_SHARE = 0.20
TRANSLATION_SHARE = 0.4  # of documents
OPPOSITE = {
    "english": "the opposite of {} is",
    "french": "le contraire de {} est",
    "spanish": "lo contrario de {} es",
}
TRANSLATION = {"english": "{} in english is", "french": "{} en francais est", "spanish": "{} en espanol es"}


@cache
def items() -> tuple[Item, ...]:
    """Every question about opposites; `kind` says whether the word is of the asking language."""
    rng = world.generator(10)
    result = []
    for source, vocabulary in words.OPPOSITES.items():
        for target, question in OPPOSITE.items():
            out = set(
                rng.choice(len(vocabulary), round(HELD_OUT_SHARE * len(vocabulary)), replace=False).tolist()
            )
            for i, word in enumerate(vocabulary):
                answer = words.OPPOSITES[target][i ^ 1]
                kind = "monolingual" if source == target else "cross-lingual"
                result.append(
                    Item(
                        FAMILY,
                        kind,
                        i in out,
                        question.format(word),
                        (answer,),
                        words.OPPOSITES["english"][i],
                    )
                )
    return tuple(result)


@cache
def translations() -> tuple[tuple[str, str], ...]:
    """(question, answer) for every word and every other language."""
    return tuple(
        (question.format(word), words.OPPOSITES[target][i])
        for source, vocabulary in words.OPPOSITES.items()
        for target, question in TRANSLATION.items()
        if source != target
        for i, word in enumerate(vocabulary)
    )


@cache
def _training(monolingual: bool) -> tuple[tuple[str, str], ...]:
    return tuple(
        (item.prompt, item.answer[0])
        for item in items()
        if not item.held_out and (item.kind == "monolingual") == monolingual
    )


def draw(rng: np.random.Generator) -> Document:
    if rng.random() < TRANSLATION_SHARE:
        question, answer = choose(rng, translations())
    else:
        question, answer = choose(rng, _training(bool(rng.random() < 0.5)))
    return document(question, answer, ".")
