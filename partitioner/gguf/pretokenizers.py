"""Pre-tokenizers of byte-level vocabularies: how text is cut before merging.

A GGUF file names its pre-tokenizer in `tokenizer.ggml.pre`. To support another name, add it to the
row with the same patterns or add a row. Patterns are those of the models' own `tokenizer.json`.
"""

from dataclasses import dataclass

from moesaic.partitioner.gguf.metadata import Metadata

_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_PUNCTUATION = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_SPACE = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED_WORD = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+@|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*@"
)
_NOT_HAN = "&&[^\\p{Han}]]"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTION}|{_WORD}|\p{{N}}{{1,3}}|{_PUNCTUATION}|{_SPACE}"
_QWEN2 = rf"{_CONTRACTION}|{_WORD}|\p{{N}}|{_PUNCTUATION}|{_SPACE}"
_QWEN35 = (
    rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACE}"
)
_O200K_TAIL = rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACE}"
_GPT4O = _CASED_WORD.replace("@", f"{_CONTRACTION}?") + r"|\p{N}{1,3}" + _O200K_TAIL
_TEKKEN = _CASED_WORD.replace("@", "") + r"|\p{N}" + _O200K_TAIL
_KIMI = (
    r"[\p{Han}]+|"
    + _CASED_WORD.replace("@", f"{_CONTRACTION}?")
    .replace(_UPPER, f"[{_UPPER[1:-1]}{_NOT_HAN}")
    .replace(_LOWER, f"[{_LOWER[1:-1]}{_NOT_HAN}")
    + rf"|\p{{N}}{{1,3}}|{_PUNCTUATION}|{_SPACE}"
)
_BAILING = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
# Cased letters: Latin, Greek, Cyrillic, Armenian, Georgian, Cherokee and smaller scripts.
_CASED_LETTERS = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕ"
    "ἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳ"
    "Ꙁ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)
_CJK = "\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff"
_DEEPSEEK_LLM = (
    r"[\r\n]",
    rf"\s?[{_CASED_LETTERS}]+",
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    r"\s+$",
    f"[{_CJK}]+",
    r"\p{N}",
)
_DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", f"[{_CJK}]+", r"\p{N}")
_DEEPSEEK_V3 = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    (
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""
        r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
        rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACE}"
    ),
)


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """How one family cuts text.

    Attributes:
        patterns: Regular expressions, applied in order; each cuts the pieces left by those before
            it, and what lies between two matches is a piece too.
        ignore_merges: A piece that is a token as a whole is not merged.
        nfc: Text is put in Unicode normal form C first.
        add_bos: Text begins with the BOS token unless the file says otherwise.
        no_bos: There is no BOS token unless the file names one.
    """

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    nfc: bool = False
    add_bos: bool = False
    no_bos: bool = False


_ROWS: tuple[tuple[str, PreTokenizer], ...] = (
    (
        "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2",
        PreTokenizer((_LLAMA3,), ignore_merges=True, add_bos=True),
    ),
    ("dbrx smaug-bpe", PreTokenizer((_LLAMA3,))),
    ("glm4 glm5", PreTokenizer((_LLAMA3,), ignore_merges=True, no_bos=True)),
    ("chatglm-bpe", PreTokenizer((_LLAMA3,), no_bos=True)),
    ("qwen2 deepseek-r1-qwen megrez hunyuan stablelm2", PreTokenizer((_QWEN2,), nfc=True)),
    ("solar-open grok-2", PreTokenizer((_QWEN2,))),
    ("qwen35", PreTokenizer((_QWEN35,), nfc=True)),
    ("gpt-4o llama4 kanana2", PreTokenizer((_GPT4O,), ignore_merges=True)),
    ("minimax-m2", PreTokenizer((_GPT4O,))),
    ("tekken", PreTokenizer((_TEKKEN,), ignore_merges=True, add_bos=True)),
    ("gpt-2 phi-2 jais exaone4 gigachat", PreTokenizer((_GPT2,))),
    ("olmo mpt", PreTokenizer((_GPT2,), nfc=True)),
    (
        "refact starcoder smollm codeshell exaone minerva-7b mellum2",
        PreTokenizer((r"\p{N}", _GPT2)),
    ),
    ("command-r", PreTokenizer((r"\p{N}", _GPT2), nfc=True)),
    ("falcon", PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]"))),
    ("deepseek-llm", PreTokenizer(_DEEPSEEK_LLM)),
    ("deepseek-coder", PreTokenizer(_DEEPSEEK_CODER)),
    ("deepseek-v3 hunyuan-dense joyai-llm", PreTokenizer(_DEEPSEEK_V3)),
    ("kimi-k2", PreTokenizer((_KIMI,), ignore_merges=True)),
    ("bailingmoe bailingmoe2 llada-moe", PreTokenizer((_BAILING,))),
    (
        "default",
        PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")),
    ),
)
PRE_TOKENIZERS = {name: row for names, row in _ROWS for name in names.split()}

# Files older than `tokenizer.ggml.pre`: what the architecture's models use, by prefix.
_GUESSES = (
    ("gpt-oss", "gpt-4o"),
    ("llama4", "llama4"),
    ("llama", "llama-bpe"),
    ("qwen35", "qwen35"),
    ("qwen", "qwen2"),
    ("dots1", "qwen2"),
    ("olmo", "olmo"),
    ("granite", "refact"),
    ("deepseek2", "deepseek-v3"),
    ("deepseek", "deepseek-llm"),
    ("glm4", "glm4"),
    ("bailingmoe", "bailingmoe"),
    ("minimax-m2", "minimax-m2"),
    ("hunyuan-moe", "hunyuan"),
)


def pre_tokenizer(metadata: Metadata) -> PreTokenizer:
    """Returns the pre-tokenizer that the file names, or guesses it from the architecture.

    Raises:
        ModelError: The file names one that is not in the table.
    """
    key = "tokenizer.ggml.pre"
    name = metadata.str(key, None)
    if name is None:
        architecture = metadata.str("general.architecture", "")
        guesses = (pre for prefix, pre in _GUESSES if architecture.startswith(prefix))
        name = next(guesses, "gpt-2")
    if name not in PRE_TOKENIZERS:
        metadata.fail(
            key,
            f"pre-tokenizer {name[:80]!r} is not known",
            hint="known are " + ", ".join(sorted(PRE_TOKENIZERS)),
        )
    return PRE_TOKENIZERS[name]
