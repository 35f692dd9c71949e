"""The demo model's own byte-level BPE tokenizer (GPT-2's splitting rule)."""

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from train_demo import corpus

VOCAB_SIZE = 2048


def train(texts: list[str]) -> Tokenizer:
    """Learn merges from the texts; the special tokens take the last ids."""
    tokenizer = byte_level()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(corpus.SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    _add_special_tokens(tokenizer)
    if tokenizer.get_vocab_size() != VOCAB_SIZE:
        raise ValueError(f"{tokenizer.get_vocab_size()} tokens were learnt, not {VOCAB_SIZE}")
    return tokenizer


def train_or_load(path: Path, texts: list[str]) -> Tokenizer:
    """The tokenizer saved at ``path``, trained and saved there first if it is missing."""
    if not path.exists():
        train(texts).save(str(path))
    return Tokenizer.from_file(str(path))


def byte_level(
    vocab: dict[str, int] | None = None, merges: list[tuple[str, str]] | None = None
) -> Tokenizer:
    """GPT-2's pre-tokenizer and decoder around the given tokens, or around none yet."""
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if vocab:
        _add_special_tokens(tokenizer)
    return tokenizer


def _add_special_tokens(tokenizer: Tokenizer) -> None:
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in corpus.SPECIAL_TOKENS])
