"""One kind of document a file; each gives `draw(rng) -> Document` and `items() -> tuple[Item, ...]`."""
