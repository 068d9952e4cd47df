"""Make `data/tokenizers/sentencepiece_<kind>/`: tiny SentencePiece models with the ids that transformers gives.

Run in an environment with transformers and sentencepiece (see README.md). The models are trained here, on the
sentences below.
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import sentencepiece
import transformers
from make_tokenizers import CORPUS
from transformers import AddedToken, GemmaTokenizer, LlamaTokenizer, T5Tokenizer

DATA = Path(__file__).parent / "data" / "tokenizers"
SENTENCES = [
    *CORPUS,
    *["Ein naïver Graph über ﬁne Ströme, 12 oder 345.", "ＡＢＣ １２ and ﬁsh", "née kxyz <q/>"] * 4,
]
# A character map of its own, because the usual one (nmt_nfkc) takes 240 kB.
RULES = "FB01\t66 69\nFF21\t41\nFF22\t42\nFF11\t31\n65 301\tE9\nAD\t\n9\t20\nA\t20\nA0\t20\n"
TEXTS = [
    "The model reads",
    " the  sea",
    "two   blanks  and one at the end ",
    "a ﬁne naïve graph",
    "Her <s>mother</s> gave</s> her<unk>",
    "x <user> y<user>z <user>",
    "of<tool>  the <tool> <pair> river",
    "▁the model",
    "<s>",
    "<s> the",
    "",
    " ",
]
# With bytes to fall back to, or with a character map that turns line breaks into blanks.
MORE = ["日本 naïve\n\nend", "tab\there 😀", "<0x41>", "ne\u0301e ＡＢ"]


def train(**options: Any) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_writer=model, hard_vocab_limit=False, minloglevel=2,
        num_threads=1, user_defined_symbols=["<user>"], control_symbols=["<control>"], **options,
    )  # fmt: skip
    return model.getvalue()


def rules() -> str:
    file = Path(tempfile.mkdtemp()) / "rules.tsv"
    file.write_text(RULES)
    return str(file)


def further(tokenizer: Any) -> Any:
    """Two tokens after the model's own: an ordinary one and a special one that takes blanks with it."""
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
    pair = AddedToken("<pair>", lstrip=True, rstrip=True, normalized=False, special=True)
    tokenizer.add_special_tokens({"additional_special_tokens": [pair]})
    return tokenizer


def llama(file: str, legacy: bool) -> LlamaTokenizer:
    return further(LlamaTokenizer(file, legacy=legacy))


def gemma(file: str, legacy: bool) -> GemmaTokenizer:
    return further(GemmaTokenizer(file))


def t5(file: str, legacy: bool) -> T5Tokenizer:
    return further(T5Tokenizer(file, extra_ids=0, legacy=legacy))


def answers(tokenizer: Any, texts: list[str]) -> list[dict[str, Any]]:
    found = []
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False)
        found.append(
            {
                "text": text,
                "ids": ids,
                "plain": tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True),
                "decoded": tokenizer.decode(
                    ids, skip_special_tokens=True, spaces_between_special_tokens=False,
                    clean_up_tokenization_spaces=False,
                ),
            }
        )  # fmt: skip
    return found


def make(kind: str, model: bytes, build: Any, texts: list[str], legacy: bool = True) -> None:
    folder = DATA / f"sentencepiece_{kind}"
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "tokenizer.model"
        file.write_bytes(model)
        tokenizer = build(str(file), legacy)
        tokenizer.save_pretrained(folder)
    if (folder / "spiece.model").exists():
        (folder / "spiece.model").rename(folder / "tokenizer.model")
    for extra in ("special_tokens_map.json", "added_tokens.json"):
        (folder / extra).unlink(missing_ok=True)
    bare = sentencepiece.SentencePieceProcessor(model_proto=model)
    content = {
        "transformers": transformers.__version__,
        "sentencepiece": sentencepiece.__version__,
        "bos": getattr(tokenizer, "bos_token_id", None),
        "eos": tokenizer.eos_token_id,
        "size": len(tokenizer),
        "answers": answers(tokenizer, texts),
        "bare": [
            {"text": text, "ids": bare.encode(text), "decoded": bare.decode(bare.encode(text))}
            for text in texts
        ],
    }
    lines = {
        key: "[\n  " + ",\n  ".join(json.dumps(each, ensure_ascii=False) for each in value) + "\n ]"
        if isinstance(value, list)
        else json.dumps(value)
        for key, value in content.items()
    }
    text = "{\n" + ",\n".join(f' "{key}": {value}' for key, value in lines.items()) + "\n}\n"
    (folder / "expected.json").write_text(text)
    print(kind, len(model), len(tokenizer), [len(a["ids"]) for a in content["answers"]])


def main() -> None:
    transformers.logging.set_verbosity_error()
    bpe = train(
        model_type="bpe", vocab_size=420, byte_fallback=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, character_coverage=1.0,
    )  # fmt: skip
    make("llama", bpe, llama, TEXTS + MORE)
    make("llama_new", bpe, llama, TEXTS + MORE, legacy=False)
    turns = train(
        model_type="bpe", vocab_size=420, byte_fallback=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, add_dummy_prefix=False, split_digits=True, pad_id=0, eos_id=1, bos_id=2,
        unk_id=3, pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>",
    )  # fmt: skip
    make("gemma", turns, gemma, [t.replace("<s>", "<bos>") for t in TEXTS] + MORE)
    unigram = train(
        model_type="unigram", vocab_size=150, byte_fallback=False, normalization_rule_tsv=rules(), pad_id=0, eos_id=1,
        unk_id=2, bos_id=-1, character_coverage=1.0,
    )  # fmt: skip
    known = [t for t in TEXTS if "<s>" not in t]
    make("t5", unigram, t5, known + MORE[3:])
    make("t5_new", unigram, t5, known + MORE[3:], legacy=False)
    fallback = train(
        model_type="unigram", vocab_size=380, byte_fallback=True, normalization_rule_tsv=rules(),
        remove_extra_whitespaces=True,
    )  # fmt: skip
    make("unigram_bytes", fallback, llama, TEXTS + MORE)


if __name__ == "__main__":
    main()
