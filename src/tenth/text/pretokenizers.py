r"""How a BPE vocabulary cuts text into words before merging: one row per name in ``tokenizer.ggml.pre``.

The names and which of them mean the same thing are those of llama.cpp (``src/llama-vocab.cpp`` and
``convert_hf_to_gguf_update.py``, read at llama-cpp-python 0.3.36). The steps themselves are those of each model's own
``tokenizer.json`` as far as it is known (normaliser, Split, Digits, Punctuation, ByteLevel), because the goal is the
model's own ids: llama.cpp rewrites some patterns for its regex engine and leaves out the normalisers. Regexes run in
the `tokenizers` library (Oniguruma), the engine they were written for.

A new pre-tokenizer is one more row in ``_ROWS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tokenizers import Regex, normalizers, pre_tokenizers

from tenth.errors import ModelFileError

Step = Callable[[], Any]  # makes a fresh pre-tokenizer of the tokenizers library


@dataclass(frozen=True)
class PreTokenizer:
    """One way to cut text: ``steps`` in order, then merges.

    ``nfc``: text is normalised to NFC first. ``ignore_merges``: a whole word that is a token is taken as it is.
    ``add_bos``: a begin token is put in front unless the file says otherwise. ``byte_level``: words are mapped to the
    256 printable byte characters of GPT-2; else merges run over text whose spaces are U+2581 (SentencePiece style).
    """

    steps: tuple[Step, ...]
    nfc: bool = False
    ignore_merges: bool = False
    add_bos: bool = False
    byte_level: bool = True


def split(pattern: str) -> Step:
    """A step that makes every match of ``pattern`` a word of its own."""
    return lambda: pre_tokenizers.Split(Regex(pattern), behavior="isolated")


def digits(individual: bool) -> Step:
    """A step that cuts out numbers (Unicode category N), one by one or as runs."""
    return lambda: pre_tokenizers.Digits(individual_digits=individual)


def gpt2_words() -> Any:
    """GPT-2's pattern, then bytes."""
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def to_bytes() -> Any:
    """Bytes only."""
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def punctuation() -> Any:
    """Runs of punctuation (ASCII punctuation and Unicode category P) become words."""
    return pre_tokenizers.Punctuation(behavior="contiguous")


_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"


def _cl100k(numbers: str, *, endings: str = _ENDINGS + "|", letters: str = r"\p{L}", after: str = r"[\r\n]*",
            symbols: str = r"[^\s\p{L}\p{N}]+", spaces: str = _SPACES) -> str:
    """The pattern that GPT-4's first tokenizer (cl100k) began: words with one leading symbol, numbers, symbols."""
    words = rf"[^\r\n\p{{L}}\p{{N}}]?{letters}+"
    return rf"{endings}{words}|{numbers}| ?{symbols}{after}|{spaces}"


def _o200k(numbers: str = r"\p{N}{1,3}", endings: str = _ENDINGS + "?") -> str:
    """GPT-4o's pattern: words also break where lower case turns to upper case."""
    upper, lower = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
    first = r"[^\r\n\p{L}\p{N}]?"
    return (rf"{first}{upper}*{lower}+{endings}|{first}{upper}+{lower}*{endings}"
            rf"|{numbers}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}")


# DeepSeek names letters by ranges (those with upper and lower case), not by category.
_DEEPSEEK_LETTERS = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373"
    "\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    "\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-"
    "\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec"
    "\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-"
    "\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3"
    "\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17"
    "\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-"
    "\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_DEEPSEEK_CJK = "\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff"
_NEWLINE = "[\r\n]"
_CJK_WORDS = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_V3_WORDS = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
             r"| ?[\p{P}\p{S}]+[\r\n]*|" + _SPACES)
_BLOOM_WORDS = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
_KIMI_ENDINGS = _ENDINGS + "?"
_KIMI_FIRST = r"[^\r\n\p{L}\p{N}]?"
_KIMI_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
_KIMI_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
_KIMI_WORDS = (rf"[\p{{Han}}]+|{_KIMI_FIRST}{_KIMI_UPPER}*{_KIMI_LOWER}+{_KIMI_ENDINGS}"
               rf"|{_KIMI_FIRST}{_KIMI_UPPER}+{_KIMI_LOWER}*{_KIMI_ENDINGS}"
               rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}")

_gpt2 = PreTokenizer((gpt2_words,))
_gpt2_nfc = PreTokenizer((gpt2_words,), nfc=True)
_digits_gpt2 = PreTokenizer((digits(True), gpt2_words))
_llama3 = PreTokenizer((split(_cl100k(r"\p{N}{1,3}")), to_bytes), ignore_merges=True, add_bos=True)
_qwen2 = PreTokenizer((split(_cl100k(r"\p{N}")), to_bytes), nfc=True)
_one_digit = PreTokenizer((split(_cl100k(r"\p{N}")), to_bytes))
_three_digits = PreTokenizer((split(_cl100k(r"\p{N}{1,3}")), to_bytes))
_deepseek_v3 = PreTokenizer((split(r"\p{N}{1,3}"), split(_CJK_WORDS), split(_V3_WORDS), to_bytes))
_gpt4o = PreTokenizer((split(_o200k()), to_bytes))
_bloom = PreTokenizer((split(_BLOOM_WORDS), to_bytes))
_glm4 = PreTokenizer((split(_cl100k(r"\p{N}{1,3}")), to_bytes), ignore_merges=True)
_bailing = PreTokenizer((split(_cl100k(
    r"\p{N}", endings=r"'(?i:[sdmt]|ll|ve|re)|", letters=r"+\p{L}", symbols=r"[^\s\p{L}\p{N}]++",
    spaces=r"\s*[\r\n]|\s+(?!\S)|\s+")), to_bytes))

_ROWS: dict[str, PreTokenizer] = {
    # What llama.cpp does for files that name nothing: punctuation, words, digit runs, triples of digits.
    "default": PreTokenizer((split(r"[\p{P}\$\+<=>\^~\|]+"), split(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+"
                             r"| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"), split(r"\p{N}+"), split("[0-9][0-9][0-9]"), to_bytes)),
    **dict.fromkeys(("gpt-2", "phi-2", "gigachat", "a.x-4.0", "mellum", "jais", "trillion", "granite-docling",
                     "exaone4", "roberta-bpe"), _gpt2),
    **dict.fromkeys(("mpt", "olmo"), _gpt2_nfc),
    **dict.fromkeys(("starcoder", "refact", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"), _digits_gpt2),
    "command-r": PreTokenizer((digits(True), gpt2_words), nfc=True),
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
                    _llama3),
    **dict.fromkeys(("dbrx", "smaug-bpe"), _three_digits),
    **dict.fromkeys(("chatglm-bpe", "glm4", "glm5"), _glm4),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez"), _qwen2),
    **dict.fromkeys(("stablelm2", "hunyuan", "solar-open", "grok-2"), _one_digit),
    "qwen35": PreTokenizer((split(_cl100k(r"\p{N}", letters=r"[\p{L}\p{M}]", symbols=r"[^\s\p{L}\p{M}\p{N}]+")),
                            to_bytes), nfc=True),
    # Digits and the triples come after the byte mapping, as in falcon-7b: a byte that prints as a number is cut too.
    "falcon": PreTokenizer((punctuation, gpt2_words, digits(False), split("[0-9][0-9][0-9]"))),
    # (?<!\s) changes no match: the leftmost run found always starts at its first space. It keeps long runs linear.
    "deepseek-llm": PreTokenizer((
        split(_NEWLINE), split(rf"\s?[{_DEEPSEEK_LETTERS}]+"),
        split("\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"), split(r"(?<!\s)\s+$"),
        split(f"[{_DEEPSEEK_CJK}]+"), digits(True), to_bytes)),
    "deepseek-coder": PreTokenizer((
        split(_NEWLINE), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split(f"[{_DEEPSEEK_CJK}]+"), digits(True),
        to_bytes)),
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"), _deepseek_v3),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"), _gpt4o),
    "tekken": PreTokenizer((split(_o200k(r"\p{N}", "")), to_bytes), ignore_merges=True, add_bos=True),
    "kimi-k2": PreTokenizer((split(_KIMI_WORDS), to_bytes)),
    **dict.fromkeys(("poro-chat", "bloom", "gpt3-finnish"), _bloom),
    "viking": PreTokenizer((split(_BLOOM_WORDS), digits(True), to_bytes)),
    **dict.fromkeys(("bailingmoe", "bailingmoe2", "llada-moe"), _bailing),
    "seed-coder": PreTokenizer((split(_cl100k(r"\p{N}{1}", symbols=r"[^\s\p{L}\p{N}\r\n]+", after="")), to_bytes)),
    "exaone-moe": PreTokenizer((split(_cl100k(
        r"\p{N}", letters=r"(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)", after=r"[\r\n/]?",
        spaces=r"\s*[\r\n]|\s+(?!\S)|\s+")), to_bytes)),
    "minicpm5": PreTokenizer((split(r"\p{N}{1,3}"), split(_cl100k(r"\p{N}+")), to_bytes), ignore_merges=True),
    # Merges over raw text; only runs of newlines are words of their own (and whole tokens when the file has them).
    "gemma4": PreTokenizer((split("\n+"),), ignore_merges=False, add_bos=True, byte_level=False),
}


def pretokenizer(name: str) -> PreTokenizer:
    """The row for ``name``. Raises ModelFileError with the list of names when there is none."""
    row = _ROWS.get(name)
    if row is None:
        raise ModelFileError(
            f"tokenizer.ggml.pre is {name!r}, a pre-tokenizer that is not supported",
            hint=f"supported: {', '.join(supported())}; run from token ids, or use another file of the model")
    return row


def supported() -> list[str]:
    """Every name that ``tokenizer.ggml.pre`` may have, sorted."""
    return sorted(_ROWS)


def build_steps(row: PreTokenizer) -> Any:
    """The tokenizers library's pre-tokenizer for ``row``."""
    steps = [make() for make in row.steps]
    return steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)


def build_normalizer(row: PreTokenizer) -> Any | None:
    """The tokenizers library's normaliser for ``row``, or None when text is taken as it is."""
    return normalizers.NFC() if row.nfc else None
