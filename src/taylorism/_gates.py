"""Leaf, pure: values that one running worker may hold at a time: files, licences, devices.

What a set of instructions, or a worker, *claims* are the values of some of its attributes, which may be lists of
values. An exclusive claim goes with no other on the same value, a shared one with shared ones: one writer, or
readers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, NamedTuple

__all__ = ["NOTHING", "Claim", "Gate", "Holdings", "Names", "Part", "claim_of", "is_plain"]

#: reads an attribute, or a default: `dict.get` of instructions, `getattr` of a worker
Read = Callable[[str, None], Any]
#: one value of a claim, and whether it is an exclusive one: as a key for dicts
Part = tuple[bool, Any]


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


class Claim(NamedTuple):
    """The values that somebody wants, or has."""

    exclusive: tuple[Any, ...] = ()
    shared: tuple[Any, ...] = ()

    @property
    def parts(self) -> frozenset[Part]:
        """What it consists of; equal for claims on the same values."""
        exclusive = [(True, _hashable(value)) for value in self.exclusive]
        return frozenset(exclusive + [(False, _hashable(value)) for value in self.shared])

    def and_also(self, other: Claim) -> Claim:
        """Return a claim on the values of both."""
        return Claim(self.exclusive + other.exclusive, self.shared + other.shared)


NOTHING = Claim()


def claim_of(part: Part) -> Claim:
    """Return the claim that consists of one part."""
    exclusive, value = part
    value = value.value if isinstance(value, _Odd) else value
    return Claim((value,)) if exclusive else Claim((), (value,))


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
        return Claim(tuple(_values(read, self._exclusive)), tuple(_values(read, self._shared)))


def _values(read: Read, names: Names) -> Iterator[Any]:
    for name in names:
        value = read(name, None)
        several = isinstance(value, (list, tuple, set, frozenset))
        for each in value if several else (value,):
            if each is not None:
                # footprints turns a path into text on its way into the worker.
                yield os.fspath(each) if isinstance(each, os.PathLike) else each


class Holdings:
    """What is held at present."""

    def __init__(self, claims: Iterable[Claim] = ()) -> None:
        self._exclusive = _Held()
        self._shared = _Held()
        for claim in claims:
            self.hold(claim)

    def hold(self, claim: Claim) -> None:
        """Note that this is held now."""
        self._exclusive.add(claim.exclusive)
        self._shared.add(claim.shared)

    def obstacle(self, claim: Claim) -> Claim | None:
        """Return the first part that cannot be had now, a claim on one value; None if all can."""
        for value in claim.exclusive:
            if self._exclusive.has(value) or self._shared.has(value):
                return Claim((value,))
        for value in claim.shared:
            if self._exclusive.has(value):
                return Claim((), (value,))
        return None

    def bars(self, part: Part) -> bool:
        """Tell whether that part of a claim cannot be had now."""
        exclusive, value = part
        value = value.value if isinstance(value, _Odd) else value
        return self._exclusive.has(value) or (exclusive and self._shared.has(value))


class _Held:
    """Values, of any kind, hashable or not."""

    __slots__ = ("_hashable", "_others")

    def __init__(self) -> None:
        self._hashable: set[Any] = set()
        self._others: list[Any] = []

    def add(self, values: Iterable[Any]) -> None:
        """Note that these values are in use."""
        for value in values:
            try:
                self._hashable.add(value)
            except TypeError:
                self._others.append(value)

    def has(self, value: Any) -> bool:
        """Tell whether this value is in use; a list may equal a hashable subclass of list."""
        candidates: Collection[Any] = self._others
        try:
            if value in self._hashable:
                return True
        except TypeError:
            candidates = [*self._others, *self._hashable]
        return bool(candidates) and any(_same(value, other) for other in candidates)


class _Odd:
    """A value that cannot be hashed, in a form that can: all of them look alike to a dict, and are compared."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Odd) and _same(self.value, other.value)


def _hashable(value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        return _Odd(value)
    return value


def is_plain(part: Part) -> bool:
    """Tell whether a dict finds a part without comparing it with others."""
    return not isinstance(part[1], _Odd)


def _same(one: Any, other: Any) -> bool:
    """Tell whether two values are equal, the same object where ``==`` has no yes or no (arrays)."""
    try:
        return one is other or bool(one == other)
    except (TypeError, ValueError):
        return False
