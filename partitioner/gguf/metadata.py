"""Typed access to the metadata of a GGUF file."""

import builtins
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar, cast

import numpy as np
from gguf import GGUFValueType

from moesaic.errors import ModelError
from moesaic.partitioner.gguf.cursor import Value

CONVERT = "the file is damaged, or was converted wrongly; fetch it again, or convert it anew"

_INTEGERS = frozenset(
    {
        GGUFValueType.UINT8,
        GGUFValueType.INT8,
        GGUFValueType.UINT16,
        GGUFValueType.INT16,
        GGUFValueType.UINT32,
        GGUFValueType.INT32,
        GGUFValueType.UINT64,
        GGUFValueType.INT64,
    }
)
_FLOATS = frozenset({GGUFValueType.FLOAT32, GGUFValueType.FLOAT64})
_BOOLS = frozenset({GGUFValueType.BOOL})
_STRINGS = frozenset({GGUFValueType.STRING})

D = TypeVar("D")
T = TypeVar("T")


class _Required:
    """The default of a value that must be there."""


REQUIRED: Final = _Required()


@dataclass(frozen=True, slots=True)
class Field:
    """One metadata value.

    Attributes:
        type: The value's type, ARRAY for arrays.
        value: A Python scalar, a list of strings, a NumPy array, or a list of such arrays.
        element: The type of an array's elements, None for scalars.
    """

    type: GGUFValueType
    value: Value
    element: GGUFValueType | None = None

    def __str__(self) -> str:
        if self.element is None:
            return str(self.type.name.lower())
        return f"array of {len(cast(list[Value], self.value))} {self.element.name.lower()}"


class Metadata(Mapping[str, Value]):
    """The metadata of one file, read through getters that check the type.

    A getter without a default raises `ModelError` if the key is missing; one with a default
    returns it then. A value of another type is always an error. As a mapping it yields the values
    unchecked.

    Args:
        path: The file, for messages.
        fields: Every key of the file.
        prefix: Put before every key that is asked for; only keys with it are visible.
    """

    def __init__(
        self, path: Path, fields: Mapping[builtins.str, Field], prefix: builtins.str = ""
    ) -> None:
        self.path = path
        self.prefix = prefix
        self._fields = fields

    def __getitem__(self, key: builtins.str) -> Value:
        return self._fields[self.prefix + key].value

    def __iter__(self) -> Iterator[builtins.str]:
        return (k.removeprefix(self.prefix) for k in self._fields if k.startswith(self.prefix))

    def __len__(self) -> builtins.int:
        return sum(1 for _ in self)

    def scoped(self, prefix: builtins.str) -> "Metadata":
        """Returns a view in which `key` stands for `<prefix>.key`."""
        return Metadata(self.path, self._fields, f"{self.prefix}{prefix}.")

    def field(self, key: builtins.str) -> Field:
        """Returns a value with its type; a missing key is a `KeyError`."""
        return self._fields[self.prefix + key]

    def is_array(self, key: builtins.str) -> builtins.bool:
        """Tells whether the value of `key` is an array (False if the key is missing)."""
        field = self._fields.get(self.prefix + key)
        return field is not None and field.type == GGUFValueType.ARRAY

    def fail(
        self, key: builtins.str, message: builtins.str, *, hint: builtins.str = CONVERT
    ) -> NoReturn:
        """Raises a `ModelError` that names the file and the full key."""
        raise ModelError(f"{self.path}: metadata key {self.prefix + key!r}: {message}", hint=hint)

    def int(self, key: builtins.str, default: D | _Required = REQUIRED) -> builtins.int | D:
        """Returns an integer of any width."""
        value: builtins.int | D = self._scalar(key, default, _INTEGERS, "an integer")
        return value

    def u32(self, key: builtins.str, default: D | _Required = REQUIRED) -> builtins.int | D:
        """Returns an integer from 0 to 2^32 - 1, of any width."""
        value: Any = self._scalar(key, default, _INTEGERS, "an unsigned 32-bit integer")
        if key in self and not 0 <= value < 1 << 32:
            self.fail(key, f"expected an unsigned 32-bit integer but got {value}")
        return value  # type: ignore[no-any-return]

    def f32(self, key: builtins.str, default: D | _Required = REQUIRED) -> float | D:
        """Returns a finite floating-point number."""
        value: Any = self._scalar(key, default, _FLOATS, "a floating-point number")
        if key in self and not math.isfinite(value):
            self.fail(key, f"expected a finite number but got {value}")
        return value  # type: ignore[no-any-return]

    def bool(self, key: builtins.str, default: D | _Required = REQUIRED) -> builtins.bool | D:
        """Returns a truth value."""
        value: builtins.bool | D = self._scalar(key, default, _BOOLS, "a boolean")
        return value

    def str(self, key: builtins.str, default: D | _Required = REQUIRED) -> builtins.str | D:
        """Returns a string."""
        value: builtins.str | D = self._scalar(key, default, _STRINGS, "a string")
        return value

    def array(
        self, key: builtins.str, of: type[T], default: D | _Required = REQUIRED
    ) -> list[T] | D:
        """Returns an array as a list of `of`, which is int, float, bool or str."""
        field = self._find(key, default)
        if field is None:
            return cast(D, default)
        kinds, expected = _ELEMENTS[of]
        if field.element not in kinds:
            self.fail(key, f"expected an array of {expected} but got {field}")
        values = field.value
        return values.tolist() if isinstance(values, np.ndarray) else list(cast(list[T], values))

    def per_layer(
        self,
        key: builtins.str,
        layers: builtins.int,
        of: type[T],
        default: T | _Required = REQUIRED,
    ) -> list[T]:
        """Returns one value per layer: an array of `layers` values, or a scalar repeated."""
        if self.is_array(key):
            values = self.array(key, of)
            if len(values) != layers:
                self.fail(key, f"expected {layers} values, one a layer, but got {len(values)}")
            return values
        value: Any = self._scalar(key, default, *_ELEMENTS[of])
        return [value] * layers

    def _find(self, key: builtins.str, default: object) -> Field | None:
        field = self._fields.get(self.prefix + key)
        if field is None and default is REQUIRED:
            self.fail(key, "is missing", hint="the file was made by another or an older converter")
        return field

    def _scalar(
        self,
        key: builtins.str,
        default: object,
        kinds: frozenset[GGUFValueType],
        expected: builtins.str,
    ) -> Any:
        field = self._find(key, default)
        if field is None:
            return default
        if field.type not in kinds:
            self.fail(key, f"expected {expected} but got {field}")
        return field.value


_ELEMENTS: dict[type[Any], tuple[frozenset[GGUFValueType], str]] = {
    int: (_INTEGERS, "integers"),
    float: (_FLOATS, "floating-point numbers"),
    bool: (_BOOLS, "booleans"),
    str: (_STRINGS, "strings"),
}
