from collections.abc import Sequence
from typing import Annotated

import numpy
from numpy.typing import NDArray

def codecs() -> list[tuple[str, int, int, int, int]]: ...
def rules() -> list[tuple[int, str, str, int, int]]: ...
def usable_cores() -> int: ...
def matrix_bytes(codec: str, rows: int, cols: int) -> int: ...

class Piece:
    def __init__(
        self, fd: int, offset: int, type: int, codec: str, rows: int, cols: int, out: int
    ) -> None: ...

def pack(
    pieces: Sequence[Piece],
    out: Annotated[NDArray[numpy.uint8], {"shape": (None,), "order": "C", "device": "cpu"}],
    threads: int,
) -> tuple[int, int, int] | None: ...
