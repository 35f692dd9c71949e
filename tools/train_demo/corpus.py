"""Jane Austen's six novels as training text.

The novels (published 1811 to 1817) are in the public domain. They are read from the data file of
Debian's package ``r-cran-janeaustenr``: an R "lazy load" file, which is a row of zlib streams, each
a serialised vector with one string per printed line of a novel.
"""

import itertools
import random
import re
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

RDATA = Path("usr/lib/R/site-library/janeaustenr/data/Rdata.rdb")  # inside the Debian package

START_OF_TEXT = "<|startoftext|>"
END_OF_TEXT = "<|endoftext|>"
START, MESSAGE, END = "<|start|>", "<|message|>", "<|end|>"
SPECIAL_TOKENS = (START_OF_TEXT, END_OF_TEXT, START, MESSAGE, END)

_HELD_OUT_EVERY = 25  # one chapter in so many is never trained on
_CHAPTER = re.compile(r"^(chapter|volume) [0-9ivxl]+\.?$", re.IGNORECASE)


class Corpus(NamedTuple):
    """Chapters of plain text: paragraphs separated by one empty line."""

    train: list[str]
    held_out: list[str]


def load(package_root: Path) -> Corpus:
    """Read, clean and split the novels.

    Args:
        package_root: where ``dpkg-deb -x r-cran-janeaustenr_*.deb`` unpacked the package.
    """
    chapters: list[str] = []
    for lines in _read_lazy_load(package_root / RDATA):
        chapters += _chapters(_paragraphs(lines))
    middle = _HELD_OUT_EVERY // 2
    train = [text for i, text in enumerate(chapters) if i % _HELD_OUT_EVERY != middle]
    return Corpus(train, chapters[middle::_HELD_OUT_EVERY])


def as_document(chapter: str) -> str:
    """One chapter between its start and end tokens."""
    return f"{START_OF_TEXT}{chapter}{END_OF_TEXT}"


def as_chats(chapter: str, rng: random.Random) -> list[str]:
    """Neighbouring short paragraphs as one-turn chats: the reply is how the novel went on."""
    paragraphs = chapter.split("\n\n")
    chats = []
    for said, reply in itertools.pairwise(paragraphs):
        if 20 <= len(said) <= 300 and 20 <= len(reply) <= 500 and rng.random() < 0.5:
            chats.append(chat_turn("user", said) + chat_turn("assistant", reply) + END_OF_TEXT)
    return chats


def chat_turn(role: str, text: str) -> str:
    """One message as the chat template writes it."""
    return f"{START}{role}{MESSAGE}{text}{END}"


def _read_lazy_load(path: Path) -> list[list[str]]:
    """All string vectors of an R lazy-load file, in file order."""
    data = path.read_bytes()
    vectors = []
    while data:
        stream = zlib.decompressobj()
        vectors.append(_string_vector(stream.decompress(data[4:])))  # 4: the uncompressed size
        data = stream.unused_data
    return vectors


def _string_vector(data: bytes) -> list[str]:
    """Decode one character vector in R's XDR serialisation, version 3."""
    (encoding_length,) = struct.unpack_from(">i", data, 14)
    kind, count = struct.unpack_from(">ii", data, 18 + encoding_length)
    if data[:2] != b"X\n" or kind & 0xFF != 16:
        raise ValueError("not a serialised R character vector")
    at = 26 + encoding_length
    strings = []
    for _ in range(count):
        (length,) = struct.unpack_from(">i", data, at + 4)
        strings.append(data[at + 8 : at + 8 + length].decode())
        at += 8 + length
    return strings


def _paragraphs(lines: list[str]) -> list[str]:
    """Join the printed lines of each paragraph; drop the underscores that mark italics."""
    text = "\n".join(line.strip() for line in lines).replace("_", "")
    blocks = re.split(r"\n\n+", text)
    return [re.sub(r"\s+", " ", block).strip() for block in blocks if block.strip()]


def _chapters(paragraphs: list[str]) -> list[str]:
    """Split at chapter headings; the title page before the first one and "THE END" go away."""
    chapters: list[list[str]] = []
    for paragraph in paragraphs:
        if _CHAPTER.match(paragraph):
            chapters.append([])
        elif chapters and paragraph.strip(".").upper() not in ("THE END", "FINIS"):
            chapters[-1].append(paragraph)
    return ["\n\n".join(chapter) for chapter in chapters if chapter]
