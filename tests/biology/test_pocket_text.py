"""Pocket's generator: deterministic, true to its world, and without a trace of what is held out."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter

import numpy as np
import pytest

from jaxinterp.biology.pocket import demo_prompt, items, mixture, vocabulary, words, world
from jaxinterp.biology.pocket.families import addition, couplets, facts, induction, opposites, people
from jaxinterp.core.errors import InputError

N_DOCUMENTS = 20_000


@pytest.fixture(scope="module")
def sample() -> list[str]:
    """Documents as text, from two seeds."""
    return [" ".join(mixture.document(i % 2, i, 0).words) for i in range(N_DOCUMENTS)]


def test_the_world_is_the_one_the_shipped_model_learnt() -> None:
    # numpy may change its streams between versions; then the facts would no longer be those of the shipped
    # weights.
    facts_of_world = repr(
        (
            sorted(world.cities()),
            sorted(world.held_out_cities()),
            sorted(world.attribute_values().items()),
            sorted(world.people().known.items()),
            sorted(world.people().unseen),
            vocabulary.tokens(),
        )
    )
    assert hashlib.sha256(facts_of_world.encode()).hexdigest()[:16] == "ea027f20de4066cb"


def test_no_name_token_alone_tells_the_state() -> None:
    for part in ("prefix", "suffix"):
        states = Counter((getattr(city, part), city.state) for city in world.cities())
        assert set(states.values()) == {1}
        uses = Counter(getattr(city, part) for city in world.cities())
        assert len(set(uses.values())) == 1
    assert len({(city.prefix, city.suffix) for city in world.cities()}) == len(world.cities()) == 160


def test_every_attribute_tells_the_states_apart() -> None:
    values = world.attribute_values()
    for attribute in words.ATTRIBUTES:
        assert len({values[state, attribute] for state in words.STATES}) == len(words.STATES)


def test_batches_are_a_pure_function_of_seed_and_step() -> None:
    first = mixture.batch(3, 7, 4, 64)
    mixture.batch(4, 2, 4, 64)
    again = mixture.batch(3, 7, 4, 64)
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    # Rows are numbered over steps: half the batch at twice the step is the same text.
    np.testing.assert_array_equal(mixture.batch(3, 14, 2, 64)["tokens"], first["tokens"][:2])
    assert not np.array_equal(mixture.batch(3, 8, 4, 64)["tokens"], first["tokens"])
    assert not np.array_equal(mixture.batch(4, 7, 4, 64)["tokens"], first["tokens"])


def test_training_begins_with_lists_and_goes_on_with_the_mixture() -> None:
    for step in (0, mixture.START_STEPS - 1):
        np.testing.assert_array_equal(
            mixture.training_batch(0, step, 2, 64)["tokens"], mixture.training_batch(0, step, 2, 64)["tokens"]
        )
    later = mixture.START_STEPS
    np.testing.assert_array_equal(
        mixture.training_batch(0, later, 2, 64)["tokens"], mixture.batch(0, later, 2, 64)["tokens"]
    )

    def lists(start: bool) -> float:
        drawn = [mixture.document(0, row, 0, start).words[0] in words.FIRST_NAMES for row in range(2000)]
        return float(np.mean(drawn))

    assert lists(True) == 1.0 and abs(lists(False) - 0.12) < 0.03


def test_packing_keeps_documents_apart() -> None:
    batch = mixture.batch(0, 0, 8, 64)
    bos, eos = vocabulary.ids()[vocabulary.BOS], vocabulary.ids()[vocabulary.EOS]
    tokens, segments, positions, targets = (batch[k] for k in ("tokens", "segments", "positions", "targets"))
    starts = tokens == bos
    np.testing.assert_array_equal(starts, positions == 0)
    np.testing.assert_array_equal(segments, np.cumsum(starts, axis=1) - 1)
    inside = ~starts[:, 1:]
    np.testing.assert_array_equal(targets[:, :-1][inside], tokens[:, 1:][inside])
    assert (targets[:, :-1][~inside] == eos).all()
    assert not (tokens == eos).any()
    assert set(np.unique(batch["weights"])) == {np.float32(0.3), np.float32(1.0)}


def test_answers_weigh_one() -> None:
    batch = mixture.batch(0, 1, 16, 64)
    answers = {vocabulary.tokens()[t] for t in batch["targets"][batch["weights"] == 1.0]}
    assert answers & set(words.ATTRIBUTES["capital"]) and answers & set("0123456789") and "don't" in answers
    assert not answers & {"the", "of", "verse", "containing", vocabulary.EOS}


def test_every_word_has_one_use() -> None:
    lists = [words.PREFIXES, words.SUFFIXES, words.STATES, words.THEMES, words.DETERMINERS, words.ADJECTIVES]
    lists += [
        words.FIRST_NAMES,
        words.LAST_NAMES,
        words.SPORTS,
        words.NOUNS,
        words.VERBS,
        words.PLACES,
        words.PREDICATES,
    ]
    lists += [
        *words.ATTRIBUTES.values(),
        *words.OPPOSITES.values(),
        *(part for rhyme in words.RHYMES.values() for part in rhyme),
    ]
    counts = Counter(word for part in lists for word in part)
    assert max(counts.values()) == 1


def test_held_out_questions_are_never_asked(sample: list[str]) -> None:
    questions = {
        item.prompt for item in items.all_items() if item.held_out and item.family != couplets.FAMILY
    }
    for text in sample:
        tokens = text.split()
        for n in range(4, len(tokens)):
            assert " ".join(tokens[:n]) not in questions, text


def test_held_out_cities_occur_in_no_composite(sample: list[str]) -> None:
    held_out = {f"{city.prefix} {city.suffix}" for city in world.held_out_cities()}
    told = {" ".join(pair) for text in sample if " containing " in text for pair in _pairs(text)}
    composites = [text for text in sample if " of the state containing " in text]
    assert len(composites) > 1000
    assert not any(name in text for text in composites for name in held_out)
    assert held_out & told  # their state is told


def test_several_cities_are_told_in_their_order(sample: list[str]) -> None:
    states = {f"{city.prefix} {city.suffix}": city.state for city in world.cities()}
    counts = Counter[int]()
    for text in sample:
        names, found, rest = text.partition(" are in ")
        if found and rest.split()[0] in words.STATES:
            cities = re.split(" and | , ", names)
            assert re.split(" and | , ", rest.removesuffix(" .")) == [states[city] for city in cities]
            counts[len(cities)] += 1
    assert counts[2] > 100 and counts[3] > 100


def test_held_out_sums_are_never_added(sample: list[str]) -> None:
    for text in sample:
        if "+" in text:
            a, b = text.split(" = ")[0].replace(" ", "").split("+")
            assert (int(a), int(b)) not in addition.held_out()
            assert (int(b), int(a)) not in addition.held_out()


def test_nobody_unseen_is_asked_about(sample: list[str]) -> None:
    unseen = set(world.people().unseen)
    asked = [text for text in sample if text.startswith("which sport")]
    assert len(unseen) >= 200 and len(asked) > 500
    assert not any(pair in unseen for text in asked for pair in _pairs(text))


def test_no_list_of_names_begins_like_a_held_out_one(sample: list[str]) -> None:
    lists = [text.split() for text in sample if text.split()[0] in words.FIRST_NAMES]
    assert len(lists) > 1000
    assert not any((text[0], text[3]) in induction.held_out() for text in lists)
    for item in induction.items():
        text = item.prompt.split()
        assert ((text[0], text[3]) in induction.held_out()) == item.held_out
        # The answer is the last name that stood after the same first name.
        assert text[text.index(text[-1]) + 1] == item.answer[0]


def test_held_out_couplets_are_never_written(sample: list[str]) -> None:
    held_out = {couplets.line_one(couplet) for couplet in couplets.couplets() if couplet.held_out}
    lines = {text.split(" / ")[0] + " /" for text in sample if " / " in text}
    assert len(held_out) > 40 and len(lines) > 150
    assert not held_out & lines


def test_documents_say_what_is_true(sample: list[str]) -> None:
    answers = {item.prompt: " ".join(item.answer) for item in items.all_items()}
    checked = Counter[str]()
    for text in sample:
        for end in (" is ", " est ", " es ", " = ", " ? ", " in "):
            head, found, rest = text.partition(end)
            prompt = head + end.rstrip()
            if found and prompt in answers:
                assert rest.startswith(answers[prompt]), text
                checked[end] += 1
    assert all(checked[end] > 100 for end in (" is ", " est ", " es ", " ? ", " in "))


def test_couplets_agree_and_rhyme() -> None:
    rhyme = {word: name for name, parts in words.RHYMES.items() for part in parts for word in part}
    gender: dict[str, str] = {}
    for couplet in couplets.couplets():
        assert rhyme[couplet.word] == rhyme[couplet.noun]
        assert gender.setdefault(couplet.noun, couplet.determiner) == couplet.determiner
    for _, nouns in words.RHYMES.values():
        assert len({gender[noun] for noun in nouns}) == len(words.DETERMINERS)
    # The theme alone does not tell the gender.
    of_theme = Counter((couplet.theme, couplet.determiner) for couplet in couplets.couplets())
    assert len(of_theme) == len(words.THEMES) * len(words.DETERMINERS)


def test_addition_is_right() -> None:
    for a, b in ((0, 0), (9, 9), (47, 28), (99, 99)):
        assert int(addition.answer(a, b).replace(" ", "")) == a + b
    assert addition.question(47, 28) == "4 7 + 2 8 ="


def test_opposites_turn_back() -> None:
    for item in opposites.items():
        if item.kind == "monolingual":
            word = next(w for part in words.OPPOSITES.values() for w in part if w in item.prompt.split())
            back = item.prompt.replace(word, item.answer[0])
            assert next(other for other in opposites.items() if other.prompt == back).answer == (word,)


def test_every_family_has_seen_and_held_out_questions() -> None:
    counts = Counter((item.family, item.held_out) for item in items.all_items())
    for family in items.FAMILIES:
        assert counts[family.FAMILY, False] > 50 and counts[family.FAMILY, True] > 50
    assert sum(item.kind == "CITY" for item in facts.items()) == 2 * 20 * 8
    known = sum(item.kind == "known" for item in people.items())
    assert known == len(world.people().known) == 90 and len(world.people().unknown) >= 600


def test_tokenizer_round_trip() -> None:
    tokenizer = vocabulary.tokenizer()
    assert (
        tokenizer.vocab_size == len(vocabulary.tokens()) and tokenizer.bos == vocabulary.ids()[vocabulary.BOS]
    )
    for item in items.all_items()[::37]:
        ids = tokenizer.encode(item.prompt)
        assert ids == vocabulary.encode(item.prompt)
        assert tokenizer.decode(ids) == item.prompt
    assert tokenizer.encode("Lo contrario de PEQUEÑO es") == vocabulary.encode("lo contrario de pequeno es")
    assert tokenizer.encode("47+28=") == vocabulary.encode("4 7 + 2 8 =")
    assert tokenizer.encode("Which sport does Emma Stewart play? don't") == vocabulary.encode(
        "which sport does emma stewart play ? don't"
    )


def test_a_word_outside_the_vocabulary_is_named() -> None:
    with pytest.raises(InputError, match="dallas"):
        vocabulary.encode("the capital of the state containing dallas is")
    with pytest.raises(InputError, match="dallas"):
        vocabulary.tokenizer().encode("the capital of the state containing dallas is")


def _pairs(text: str) -> list[tuple[str, str]]:
    tokens = text.split()
    return list(itertools.pairwise(tokens))


def test_the_demo_asks_about_a_held_out_city() -> None:
    asked = [item for item in facts.items() if item.prompt == demo_prompt()]
    assert [item.kind for item in asked] == ["CITY"]
