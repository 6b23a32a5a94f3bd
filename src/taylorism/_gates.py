"""Leaf, pure: values that one running worker may hold at a time: files, licences, devices.

What a set of instructions, or a worker, *claims* are the values of some of its attributes, which may be lists of
values. An exclusive claim goes with no other on the same value, a shared one with shared ones: one writer, or
readers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

TYPE_CHECKING = False  # without `typing`, a fourth of the time of our import
if TYPE_CHECKING:
    from typing import Any

__all__ = ["NOTHING", "Claim", "Gate", "Holdings", "Names", "Part", "is_plain"]

if TYPE_CHECKING:
    #: reads an attribute, or a default: `dict.get` of instructions, `getattr` of a worker
    Read = Callable[[str, None], Any]
    #: one value of a claim, and whether it is claimed exclusively; can be hashed
    Part = tuple[bool, Any]
    #: the values that somebody wants, or has
    Claim = tuple[Part, ...]
else:
    Read, Part, Claim = Callable, tuple, tuple

NOTHING: Claim = ()


class Names(tuple[str, ...]):
    """Names of attributes; a single one may be given as it is."""

    __slots__ = ()

    def __new__(cls, names: str | Iterable[str] = ()) -> Names:  # noqa: PYI034 - `Self` needs Python 3.11
        """Take one name, or several.

        Raises
        ------
        TypeError
            Something is not the name of an attribute.
        """
        given = (names,) if isinstance(names, str) else tuple(names)
        if not all(isinstance(name, str) and name.isidentifier() for name in given):
            raise TypeError(f"names of attributes are wanted, not {given!r}")
        return super().__new__(cls, given)


class Gate:
    """Reads claims.

    Parameters
    ----------
    exclusive, shared : Names
        The attributes whose values are claimed in that way.
    """

    def __init__(self, exclusive: Names, shared: Names) -> None:
        self._exclusive = exclusive
        self._shared = shared

    def __bool__(self) -> bool:
        return bool(self._exclusive or self._shared)

    def claim(self, read: Read) -> Claim:
        """Return what a set of instructions or a worker claims."""
        exclusive = [(True, value) for value in _values(read, self._exclusive)]
        return (*exclusive, *((False, value) for value in _values(read, self._shared)))


def _values(read: Read, names: Names) -> Iterator[Any]:
    for name in names:
        value = read(name, None)
        several = isinstance(value, (list, tuple, set, frozenset))
        for each in value if several else (value,):
            if each is not None:
                # footprints turns a path into text on its way into the worker.
                yield os.fspath(each) if isinstance(each, os.PathLike) else _hashable(each)


class Holdings:
    """What is held at present."""

    __slots__ = ("_exclusive", "_shared")

    def __init__(self, claims: Iterable[Claim] = ()) -> None:
        self._exclusive: set[Any] = set()
        self._shared: set[Any] = set()
        for claim in claims:
            self.hold(claim)

    def hold(self, claim: Claim) -> None:
        """Note that this is held now."""
        for exclusive, value in claim:
            (self._exclusive if exclusive else self._shared).add(value)

    def obstacle(self, claim: Iterable[Part]) -> Part | None:
        """Return the first part of a claim that cannot be had now, None if all can."""
        for part in claim:
            exclusive, value = part
            if value in self._exclusive or (exclusive and value in self._shared):
                return part
        return None


class _Odd:
    """A value that cannot be hashed, in a form that can: all of them look alike to a dict, and are compared."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Odd) and _same(self.value, other.value)

    def __repr__(self) -> str:
        return repr(self.value)


def _hashable(value: Any) -> Any:
    """Return a value as a key for dicts, equal to the keys of those that it is equal to."""
    if isinstance(value, (list, dict)):  # a subclass may be hashable, and equal to one that is not
        return _Odd(value)
    try:
        hash(value)
    except Exception:  # a TypeError of Python's own; code of the user's raises what it likes
        return frozenset(value) if isinstance(value, set) else _Odd(value)
    return value


def is_plain(part: Part) -> bool:
    """Tell whether a dict finds a part without comparing it with others."""
    return not isinstance(part[1], _Odd)


def _same(one: Any, other: Any) -> bool:
    """Tell whether two values are equal, the same object where ``==`` has no yes or no (arrays)."""
    try:
        return one is other or bool(one == other)
    except Exception:  # of the user's: torch has a RuntimeError where numpy has a ValueError
        return False
