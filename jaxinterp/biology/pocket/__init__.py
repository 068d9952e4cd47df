"""Pocket: the bundled small model, the text it was trained on and the checks it must pass.

`world` holds the facts, `families` one kind of document each, `mixture` packs documents into batches, `items`
are the questions with known answers, `vocabulary` the words, `gates` the marks a trained model must reach,
`states` and `lens` what can be seen inside it.
"""


def demo_prompt() -> str:
    """A two-hop question about a city that occurs in no two-hop question of the training text."""
    return "the capital of the state containing summer hollow is"
