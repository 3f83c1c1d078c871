"""Typed access to a model file's metadata.

A getter returns the value only when the file holds that very type: a wrong one is refused, never converted, because
a hostile file can put any type under any key. Numbers are in memory; texts and arrays are read from the file at
each call, so keep what you got rather than asking twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Final, Literal, NoReturn, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from tenth import _core
from tenth.errors import ModelFileError
from tenth.weights.values import Stored, pack_texts

D = TypeVar("D")


class _Required(Enum):
    REQUIRED = 0


# The default of every getter: the key has to be there.
REQUIRED: Final = _Required.REQUIRED
_Req = Literal[_Required.REQUIRED]


class Metadata:
    """Key -> value, with typed getters. All raise ModelFileError naming the key, what was found, what was expected.

    ``values`` may also hold plain Python values (int, float, bool, str, list, NumPy array), as tests do.
    """

    def __init__(self, values: Mapping[str, Any], source: str = "metadata"):
        self._values = dict(values)
        self._source = source

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<Metadata of {self._source}: {len(self)} keys>"

    def has(self, key: str) -> bool:
        """Whether the file has this key."""
        return key in self._values

    def keys(self) -> Iterable[str]:
        """All keys, in the order of the file."""
        return self._values.keys()

    def value(self, key: str) -> Any:
        """The value whatever its type: int, float, bool, str, list of str, NumPy array, or list of those."""
        value = self._present(key)
        return value.load(key) if isinstance(value, Stored) else value

    def type_name(self, key: str) -> str:
        """What kind of value the key has, for people: ``int``, ``float``, ``bool``, ``str``, ``array of i32``."""
        return _type_name(self._present(key))

    def is_array(self, key: str) -> bool:
        """Whether the key has an array; some hyper-parameters are a number or one number per layer."""
        return self.type_name(key).startswith("array")

    def count(self, key: str) -> int:
        """Number of elements of an array, known without reading them."""
        value = self._present(key)
        if not self.is_array(key):
            self._refuse(key, "an array")
        return value.count if isinstance(value, Stored) else len(value)

    @property
    def architecture(self) -> str:
        """``general.architecture``: the name that chooses the model file and begins its keys."""
        return self.get_str("general.architecture")

    @overload
    def get_int(self, key: str, *, low: int | None = None, high: int | None = None) -> int: ...
    @overload
    def get_int(self, key: str, default: D, *, low: int | None = None, high: int | None = None) -> int | D: ...
    def get_int(self, key: str, default: Any = REQUIRED, *, low: int | None = None, high: int | None = None) -> Any:
        """A whole number of any width, with ``low <= value <= high``. The default is returned unchecked."""
        if self._absent(key, default):
            return default
        value = self._values[key]
        if type(value) is not int:
            self._refuse(key, "a whole number")
        self._check_range(key, value, low, high)
        return value

    @overload
    def get_float(self, key: str, *, low: float | None = None, high: float | None = None) -> float: ...
    @overload
    def get_float(self, key: str, default: D, *, low: float | None = None, high: float | None = None) -> float | D: ...
    def get_float(
        self, key: str, default: Any = REQUIRED, *, low: float | None = None, high: float | None = None
    ) -> Any:
        """A finite floating-point number, with ``low <= value <= high``."""
        if self._absent(key, default):
            return default
        value = self._values[key]
        if type(value) is not float:
            self._refuse(key, "a floating-point number")
        if not math.isfinite(value):
            self._fail(f"{key} is {value}, expected a finite number")
        self._check_range(key, value, low, high)
        return value

    @overload
    def get_bool(self, key: str) -> bool: ...
    @overload
    def get_bool(self, key: str, default: D) -> bool | D: ...
    def get_bool(self, key: str, default: Any = REQUIRED) -> Any:
        """True or False."""
        if self._absent(key, default):
            return default
        value = self._values[key]
        if type(value) is not bool:
            self._refuse(key, "a bool")
        return value

    @overload
    def get_str(self, key: str) -> str: ...
    @overload
    def get_str(self, key: str, default: D) -> str | D: ...
    def get_str(self, key: str, default: Any = REQUIRED) -> Any:
        """A text; refused when it is not valid UTF-8."""
        if self._absent(key, default):
            return default
        if self.type_name(key) != "str":
            self._refuse(key, "a text")
        return self.value(key)

    @overload
    def get_strs(self, key: str, *, count: int | None = None) -> list[str]: ...
    @overload
    def get_strs(self, key: str, default: D, *, count: int | None = None) -> list[str] | D: ...
    def get_strs(self, key: str, default: Any = REQUIRED, *, count: int | None = None) -> Any:
        """An array of texts, of ``count`` elements when given."""
        if self._absent(key, default):
            return default
        self._check_array(key, "texts", {"str"}, count)
        return self.value(key)

    def get_texts(self, key: str) -> _core.Texts:
        """An array of texts as it is stored, which become Python strings one by one when they are asked for."""
        self._absent(key, REQUIRED)
        self._check_array(key, "texts", {"str"}, None)
        value = self._values[key]
        return value.load_texts(key) if isinstance(value, Stored) else pack_texts(value)

    @overload
    def get_ints(
        self, key: str, *, count: int | None = None, low: int | None = None, high: int | None = None
    ) -> NDArray[Any]: ...
    @overload
    def get_ints(
        self, key: str, default: D, *, count: int | None = None, low: int | None = None, high: int | None = None
    ) -> NDArray[Any] | D: ...
    def get_ints(
        self,
        key: str,
        default: Any = REQUIRED,
        *,
        count: int | None = None,
        low: int | None = None,
        high: int | None = None,
    ) -> Any:
        """An array of whole numbers as NumPy array of the file's own type, every element within ``low..high``."""
        if self._absent(key, default):
            return default
        self._check_array(key, "whole numbers", _INTS, count)
        numbers = np.asarray(self.value(key))
        if numbers.size:
            self._check_range(f"an element of {key}", int(numbers.min()), low, None)
            self._check_range(f"an element of {key}", int(numbers.max()), None, high)
        return numbers

    @overload
    def get_floats(self, key: str, *, count: int | None = None) -> NDArray[Any]: ...
    @overload
    def get_floats(self, key: str, default: D, *, count: int | None = None) -> NDArray[Any] | D: ...
    def get_floats(self, key: str, default: Any = REQUIRED, *, count: int | None = None) -> Any:
        """An array of floating-point numbers as NumPy array of the file's own type. May hold NaN and infinity."""
        if self._absent(key, default):
            return default
        self._check_array(key, "floating-point numbers", _FLOATS, count)
        return np.asarray(self.value(key))

    @overload
    def get_bools(self, key: str, *, count: int | None = None) -> NDArray[np.bool_]: ...
    @overload
    def get_bools(self, key: str, default: D, *, count: int | None = None) -> NDArray[np.bool_] | D: ...
    def get_bools(self, key: str, default: Any = REQUIRED, *, count: int | None = None) -> Any:
        """An array of bools as NumPy array."""
        if self._absent(key, default):
            return default
        self._check_array(key, "bools", {"bool"}, count)
        return np.asarray(self.value(key))

    def _absent(self, key: str, default: Any) -> bool:
        if key in self._values:
            return False
        if default is REQUIRED:
            self._fail(f"the key {key} is missing")
        return True

    def _present(self, key: str) -> Any:
        self._absent(key, REQUIRED)
        return self._values[key]

    def _check_array(self, key: str, expected: str, elements: set[str], count: int | None) -> None:
        found = self.type_name(key)
        if not found.startswith("array of ") or found.removeprefix("array of ") not in elements:
            self._refuse(key, f"an array of {expected}")
        if count is not None and self.count(key) != count:
            self._fail(f"{key} has {self.count(key)} elements, expected {count}")

    def _check_range(self, what: str, value: float, low: float | None, high: float | None) -> None:
        if (low is not None and value < low) or (high is not None and value > high):
            bounds = [f"at least {low}"] * (low is not None) + [f"at most {high}"] * (high is not None)
            self._fail(f"{what} is {value}, expected {' and '.join(bounds)}")

    def _refuse(self, key: str, expected: str) -> NoReturn:
        self._fail(f"{key} is of type {self.type_name(key)}, expected {expected}")

    def _fail(self, message: str) -> NoReturn:
        raise ModelFileError(f"{self._source}: {message}", "the file was made wrongly; try another copy of the model")


_INTS = {"u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64", "int"}
_FLOATS = {"f32", "f64", "float"}
_KINDS = {"i": "int", "u": "int", "f": "float", "b": "bool"}


def _type_name(value: Any) -> str:
    if isinstance(value, Stored):
        return value.type_name
    if isinstance(value, np.ndarray):
        return "array of " + _KINDS.get(value.dtype.kind, "array")
    if isinstance(value, list | tuple):
        kinds = {_type_name(element) for element in value}
        return "array of " + (kinds.pop() if len(kinds) == 1 else "mixed values")
    return type(value).__name__
