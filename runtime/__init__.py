"""Plan directory -> logits -> text."""

from moesaic.runtime.conversation import Conversation
from moesaic.runtime.results import Completion, Piece, ReplyEvent, Timings, TokenLogprob, Usage
from moesaic.runtime.runtime import Runtime
from moesaic.runtime.sampling import SamplingParams

__all__ = [
    "Completion",
    "Conversation",
    "Piece",
    "ReplyEvent",
    "Runtime",
    "SamplingParams",
    "Timings",
    "TokenLogprob",
    "Usage",
]
