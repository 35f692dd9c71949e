"""Plan directory -> logits -> text."""

from moesaic.runtime.results import Completion, Piece, Timings, TokenLogprob, Usage
from moesaic.runtime.runtime import Runtime
from moesaic.runtime.sampling import SamplingParams

__all__ = ["Completion", "Piece", "Runtime", "SamplingParams", "Timings", "TokenLogprob", "Usage"]
