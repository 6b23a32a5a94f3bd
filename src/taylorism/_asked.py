"""Listener, pure: the numbers that users give to schedulers, and ask for in instructions; what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from taylorism._errors import SchedulerError, quote

TYPE_CHECKING = False  # without `typing`, a fourth of the time of our import
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "SchedulerValueError",
    "check",
    "cpus_asked",
    "expected_time",
    "memory_asked",
    "not_negative",
    "positive",
    "refusal",
]

#: The part of a dict that an error message quotes, in characters.
_QUOTED = 500


class SchedulerValueError(SchedulerError, ValueError):
    """A scheduler cannot work with a value that it was given: correct that value.

    Attributes
    ----------
    key : str
        What the value was given for (``max_threads``, ``memory``, ...).
    """

    __module__ = "taylorism.schedulers"  # where users catch it, and pickle finds it

    key: str


def refusal(key: str, value: object, owner: str, accepted: str) -> SchedulerValueError:
    """Return the error that says whose value is wrong, what it is and what may be given."""
    text = f"{owner}: {key}={quote(value, _QUOTED)} is refused: it has to be {accepted}"
    return SchedulerValueError(text, key=key)


def _number(instructions: Mapping[str, Any], key: str, default: float, accepted: str) -> float:
    """Return a number out of a set of instructions, `default` when it is not there or None."""
    value = instructions.get(key)
    if value is None:
        return default
    number = value if type(value) is float else _float(value)
    if math.isnan(number):
        raise refusal(key, value, _whose(instructions), accepted)
    return number


def _float(value: Any) -> float:
    """Return a value as a number, NaN when it is none."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _whose(instructions: Mapping[str, Any]) -> str:
    """Return whose instructions these are, for an error message."""
    name = instructions.get("name")
    named = f"of worker {quote(name, _QUOTED)} " if name is not None else ""
    return f"instructions {named}{quote(instructions, _QUOTED)}"


def expected_time(instructions: Mapping[str, Any]) -> float:
    """Return how long a set says that it takes (s); below 0 is a way to ask to be the last."""
    return _number(instructions, "expected_time", 0.0, "a number of seconds, or left out")


def memory_asked(instructions: Mapping[str, Any], undeclared: float) -> float:
    """Return the memory that a set of instructions counts for (MiB)."""
    accepted = "a number of MiB, 0 or more, or left out (it then counts memory_per_task)"
    asked = _number(instructions, "memory", undeclared, accepted)
    if asked < 0:
        raise refusal("memory", instructions["memory"], _whose(instructions), accepted)
    return asked


def cpus_asked(instructions: Mapping[str, Any]) -> int:
    """Return the cpus that a set asks for, 1 if it does not say."""
    accepted = "a whole number, 1 or more, or left out"
    asked = _number(instructions, "ncpus", 1.0, accepted)
    if asked < 1 or not asked.is_integer():
        raise refusal("ncpus", instructions["ncpus"], _whose(instructions), accepted)
    return int(asked)


def check(scheduler: object, key: str, accepted: str, fine: Callable[[Any], bool]) -> None:
    """Refuse an attribute that has a value and is not fine (a comparison with NaN is false)."""
    value = getattr(scheduler, key)
    if value is not None and not fine(value):
        raise refusal(key, value, type(scheduler).__name__, accepted)


def not_negative(value: float) -> bool:
    """Tell whether a number is 0 or more."""
    return value >= 0


def positive(value: float) -> bool:
    """Tell whether a number is above 0."""
    return value > 0
