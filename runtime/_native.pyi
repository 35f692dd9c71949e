from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy
from numpy.typing import NDArray

class Program:
    def __init__(self, spec: dict[str, Any], weights_bytes: int | None = None) -> None: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def weights_bytes(self) -> int: ...

def codecs() -> list[dict[str, str | int]]: ...
def usable_cores() -> int: ...
def available_isas() -> list[str]: ...

class Executor:
    def __init__(
        self,
        program: Program,
        weights_path: str,
        threads: int = 0,
        context: int = 0,
        sequences: int = 0,
        batch: int = 0,
        null_provider: bool = False,
        record_usage: bool = False,
    ) -> None: ...
    def create_sequence(self, extended: bool = False) -> int: ...
    def extend_sequence(self, sequence: int) -> None: ...
    def fork_sequence(self, sequence: int) -> int: ...
    def free_sequence(self, sequence: int) -> None: ...
    def trim_sequence(self, sequence: int, length: int) -> None: ...
    def sequence_length(self, sequence: int) -> int: ...
    def sequence_extended(self, sequence: int) -> bool: ...
    def step(
        self,
        tokens: Annotated[
            NDArray[numpy.int32],
            {"shape": (None,), "order": "C", "device": "cpu", "writable": False},
        ],
        sequences: Annotated[
            NDArray[numpy.int32],
            {"shape": (None,), "order": "C", "device": "cpu", "writable": False},
        ],
        wanted: Annotated[
            NDArray[numpy.int32],
            {"shape": (None,), "order": "C", "device": "cpu", "writable": False},
        ],
    ) -> Annotated[NDArray[numpy.float32], {"shape": (None, None)}]: ...
    def memory(self) -> list[dict[str, Any]]: ...
    def step_seconds(self) -> list[dict[str, Any]]: ...
    def usage(self) -> tuple[int, dict[str, list[int]]]: ...
    @property
    def limits(self) -> dict[str, int]: ...
    @property
    def original_context(self) -> int: ...
    @property
    def threads(self) -> int: ...
    @property
    def isa(self) -> str: ...

class Sampler:
    def __init__(
        self,
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        logit_bias: Mapping[int, float] = {},
        banned: Sequence[int] = [],
        seed: int = 0,
    ) -> None: ...
    def sample(
        self,
        logits: Annotated[
            NDArray[numpy.float32],
            {"shape": (None,), "order": "C", "device": "cpu", "writable": False},
        ],
        history: Annotated[
            NDArray[numpy.int32],
            {"shape": (None,), "order": "C", "device": "cpu", "writable": False},
        ],
        prompt: int = 0,
    ) -> tuple[int, float]: ...
    def top_logprobs(self, n: int) -> list[tuple[int, float]]: ...
