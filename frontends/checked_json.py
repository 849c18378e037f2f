"""JSON from untrusted files: every access states the type it expects."""

import json
from collections.abc import Iterator
from typing import Any, TypeVar

from niwaki.ir.errors import ModelFileError

T = TypeVar("T")

_INTEGER_LIMIT = 2**63


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return result


class Json:
    """A JSON value and where it is; accessors raise ModelFileError, naming the place."""

    def __init__(self, value: Any, source: str, path: tuple[object, ...] = ()) -> None:
        self.value = value
        self._source = source
        self._path = path

    @classmethod
    def parse(cls, data: bytes, source: str) -> "Json":
        """Parses a document; ModelFileError if it is none or has a key twice."""
        try:
            return cls(json.loads(data.decode("utf-8"), object_pairs_hook=_unique), source)
        except (ValueError, RecursionError) as error:
            raise ModelFileError(f"{source}: malformed JSON: {error}") from None

    def fail(self, message: str) -> ModelFileError:
        """The error for this place; to be raised."""
        place = ".".join(str(step) for step in self._path)
        return ModelFileError(f"{self._source}: {place or 'top level'}: {message}")

    def _typed(self, kind: type[T], name: str) -> T:
        if not isinstance(self.value, kind) or (kind is not bool and isinstance(self.value, bool)):
            raise self.fail(f"expected {name}, found {type(self.value).__name__}")
        return self.value

    def _child(self, step: object, value: Any) -> "Json":
        return Json(value, self._source, (*self._path, step))

    def __getitem__(self, key: str) -> "Json":
        table = self._typed(dict, "an object")
        if key not in table:
            raise self.fail(f"'{key}' is missing")
        return self._child(key, table[key])

    def get(self, key: str) -> "Json | None":
        """The member `key`; None where it is absent or null."""
        value = self._typed(dict, "an object").get(key)
        return None if value is None else self._child(key, value)

    def items(self) -> Iterator[tuple[str, "Json"]]:
        """The members of an object."""
        for key, value in self._typed(dict, "an object").items():
            yield key, self._child(key, value)

    def elements(self) -> Iterator["Json"]:
        """The elements of a list."""
        for index, value in enumerate(self._typed(list, "a list")):
            yield self._child(index, value)

    def variant(self) -> tuple[str, "Json"]:
        """The only member of an object: a tagged union."""
        members = list(self.items())
        if len(members) != 1:
            raise self.fail(f"expected one member, found {len(members)}")
        return members[0]

    def text(self) -> str:
        """A string."""
        return self._typed(str, "a string")

    def integer(self) -> int:
        """An integer of 64 bits."""
        value = self._typed(int, "an integer")
        if not -_INTEGER_LIMIT <= value < _INTEGER_LIMIT:
            raise self.fail("integer out of range")
        return value

    def number(self) -> float:
        """A number, or one of the strings "Infinity", "-Infinity", "NaN"."""
        if self.value in ("Infinity", "-Infinity", "NaN"):
            return float(self.value)
        if isinstance(self.value, int):
            return float(self.integer())
        return self._typed(float, "a number")

    def flag(self) -> bool:
        """A boolean."""
        return self._typed(bool, "a boolean")
