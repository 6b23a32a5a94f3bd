"""Main, pure: what can be wrong with jobs and how they are to be run: exceptions, and checks that raise them."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any

from taylorism._errors import BadOption, TaylorismError, describe, quote

__all__ = [
    "AlreadyStarted",
    "Fail",
    "MPISizeError",
    "NotStarted",
    "failure",
    "processors",
    "whole",
]

#: failing jobs whose exceptions the message of a `Fail` quotes; it names all of them
_QUOTED = 10


class Fail(TaylorismError):
    """Some jobs have failed, and all the others are done: look at each of `errors`.

    Attributes
    ----------
    errors : dict
        The exception of each job that has failed since the last `Fail`, by name.
    """

    __module__ = "taylorism.compat.jobfolder"

    errors: dict[Any, BaseException]


class NotStarted(TaylorismError, RuntimeError):
    """There is nothing to be asked about, or waited for: call ``start(comm)`` first."""

    __module__ = "taylorism.compat.jobfolder"


class AlreadyStarted(TaylorismError, RuntimeError):
    """The jobs are running: wait for them, or end them by `terminate`, before you start them again."""

    __module__ = "taylorism.compat.jobfolder"


class MPISizeError(TaylorismError, ValueError):
    """Some jobs ask for more processors than there are, and would never start: give more, or ask for less.

    Attributes
    ----------
    jobs : dict
        How many each of them asks for, by name.
    available : int
        How many there are.
    """

    __module__ = "taylorism.compat.jobfolder"

    jobs: dict[Any, int]
    available: int


def whole(value: Any, what: str) -> int:
    """Return a value, if it is a whole number from 1 on; else raise `BadOption`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise BadOption(f"{what}={quote(value, 200)} makes no sense: give a whole number, 1 or more.")
    return int(value)


def processors(comm: int | Mapping[str, Any]) -> int:
    """Return how many processors there are; raise `BadOption` where that is not said."""
    if isinstance(comm, Mapping):
        if "n" not in comm:
            raise BadOption(f"comm={quote(comm, 200)} has no key 'n', which says how many processors there are.")
        return whole(comm["n"], "comm['n']")
    return whole(comm, "comm")


def failure(errors: dict[Any, BaseException]) -> Fail:
    """Return the error that names those jobs."""
    lines = [
        f"{name!r}: {describe(error)}" if place < _QUOTED else repr(name)
        for place, (name, error) in enumerate(errors.items())
    ]
    failure = Fail(
        f"{len(errors)} of the jobs failed, the others are done. The exceptions are in `errors`, here and of the "
        "process, by the names of the jobs:" + "".join(f"\n  {line}" for line in lines),
        errors=errors,
    )
    failure.__cause__ = next(iter(errors.values()))
    return failure
