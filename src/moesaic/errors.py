"""Every exception that moesaic raises on purpose.

    MoesaicError
    ├── ModelError        a model file is malformed, or holds something that is not supported
    ├── PlanError         a plan directory is malformed, tampered with, or does not fit this machine
    ├── PlacementError    the model cannot be placed on the devices under the given budgets
    ├── DeviceError       an execution provider is missing or failed
    └── RequestError      a prompt or a sampling argument cannot be served (also a ValueError)

A message names the file, field or node it is about; ``hint`` says what to do and is printed by the
command line on a line of its own.
"""

__all__ = [
    "DeviceError",
    "ModelError",
    "MoesaicError",
    "PlacementError",
    "PlanError",
    "RequestError",
]


class MoesaicError(Exception):
    """Base of the exceptions of this package.

    Args:
        message: What is wrong, where, and what was expected instead.
        hint: What the user can do about it, as one sentence.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class ModelError(MoesaicError):
    """A model file is malformed or holds something that is not supported."""


class PlanError(MoesaicError):
    """A plan directory is malformed, tampered with, or does not fit this machine."""


class PlacementError(MoesaicError):
    """The model cannot be placed on the devices under the given budgets."""


class DeviceError(MoesaicError):
    """An execution provider is missing or failed."""


class RequestError(MoesaicError, ValueError):
    """A prompt or a sampling argument cannot be served."""
