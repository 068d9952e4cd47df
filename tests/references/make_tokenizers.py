"""Make `data/tokenizers/<kind>/`: tiny tokenizers with the ids that transformers' classes give.

Run in an environment with transformers (see README.md).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import GPT2TokenizerFast, LlamaTokenizerFast

DATA = Path(__file__).parent / "data" / "tokenizers"
CORPUS = [
    "The model reads the prompt and the tracer reads the model.",
    "A graph has nodes and edges; the nodes are features, and the edges are weights.",
    "Her mother gave her the old map of the river, and she followed it to the sea.",
] * 4
SPECIAL_TEXTS = [
    "The <|im|>model <|im|> reads", "a<|endoftext|>  b", " <tool><tools> the", "naïve日本<|im|>", "of edges read",
    "<|pad|> <|im", "", "x<|endoftext|>",
]  # fmt: skip
TEXTS = ["The model reads", " the  sea", "a naïve graph: 3 nodes\n\nend", "日本", "", "old map."]


def byte_level() -> GPT2TokenizerFast:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(CORPUS, trainer)
    return GPT2TokenizerFast(tokenizer_object=inner)


def metaspace() -> LlamaTokenizerFast:
    inner = Tokenizer(models.BPE(unk_token="<unk>"))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", "<s>", "</s>"]
    inner.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=80, special_tokens=special, show_progress=False)
    )
    description = json.loads(inner.to_str())
    model = description["model"]
    pieces = [
        piece for piece, _ in sorted(model["vocab"].items(), key=lambda item: item[1]) if piece not in special
    ]
    order = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    model["vocab"] = {piece: token for token, piece in enumerate(order)}
    model["byte_fallback"] = True
    inner = Tokenizer.from_str(json.dumps(description))
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return LlamaTokenizerFast(tokenizer_object=inner, add_bos_token=True)


def special() -> None:
    """A tokenizer.json of which only the settings beside it say what is special, and how."""
    folder = DATA / "special"
    shutil.rmtree(folder, ignore_errors=True)
    byte_level().save_pretrained(folder)
    inner = Tokenizer.from_file(str(folder / "tokenizer.json"))
    size = inner.get_vocab_size()
    word = max(
        (p for p in inner.get_vocab(with_added_tokens=False) if p.isascii() and p.isalpha()),
        key=lambda p: (len(p), p),
    )
    tokens = {
        "0": {"content": "<|endoftext|>", "special": True, "rstrip": True, "normalized": False},
        str(size): {"content": "<|im|>", "special": True, "lstrip": True, "normalized": False},
        str(size + 1): {"content": "<tool>", "special": False, "normalized": False},
    }
    full = {"lstrip": False, "rstrip": False, "single_word": False}
    settings = {
        "tokenizer_class": "GPT2Tokenizer",
        "bos_token": "<|endoftext|>",
        "eos_token": "<|im|>",
        "unk_token": "<|endoftext|>",
        "pad_token": word,
        "added_tokens_decoder": {key: {**full, **value} for key, value in tokens.items()},
    }
    for extra in ("special_tokens_map.json", "vocab.json", "merges.txt"):
        (folder / extra).unlink(missing_ok=True)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    tokenizer = GPT2TokenizerFast.from_pretrained(folder)
    content = {"word": word, "specials": sorted(tokenizer.all_special_tokens), "answers": []}
    for text in SPECIAL_TEXTS:
        found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        plain = tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        content["answers"].append(
            {
                "text": text, "ids": found["input_ids"], "offsets": found["offset_mapping"],
                "plain": plain["input_ids"],
            }
        )  # fmt: skip
    (folder / "expected.json").write_text(json.dumps(content, ensure_ascii=False) + "\n")
    print("special", content)


def main() -> None:
    for name, tokenizer in {"byte_level": byte_level(), "metaspace": metaspace()}.items():
        folder = DATA / name
        shutil.rmtree(folder, ignore_errors=True)
        tokenizer.save_pretrained(folder)
        for extra in ("special_tokens_map.json", "vocab.json", "merges.txt"):
            (folder / extra).unlink(missing_ok=True)
        answers = [
            {
                "text": text,
                "ids": tokenizer(text)["input_ids"],
                "bare": tokenizer(text, add_special_tokens=False)["input_ids"],
                "decoded": tokenizer.decode(
                    tokenizer(text)["input_ids"], skip_special_tokens=True, clean_up_tokenization_spaces=False
                ),
            }
            for text in TEXTS
        ]
        content = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "answers": answers}
        (folder / "expected.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        print(name, content)
    special()


if __name__ == "__main__":
    main()
