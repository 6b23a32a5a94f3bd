"""None, pure: what a job manager requests for a job (cores, memory, run time), as numbers in our units."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from taylorism._errors import BadOption, quote

__all__ = ["MIB_IN_GIB", "cores", "memory", "runtime"]

MIB_IN_GIB = 1024.0

_MIB = {"b": 1 / 1024**2, "k": 1 / 1024, "m": 1.0, "g": MIB_IN_GIB, "t": 1024.0**2}
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

#: ``512M``, ``2 GiB``, ``1.5g``, ``4096B``
_SIZE = re.compile(r"(\d+(?:\.\d*)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
#: ``90s``, ``1h30m``, ``2 days``
_UNITS = r"(?:[dhms]|days?|hours?|min(?:ute)?s?|sec(?:ond)?s?)"
_DURATION = re.compile(rf"(?:\d+(?:\.\d*)?\s*{_UNITS}\s*)+", re.IGNORECASE)
_PART = re.compile(r"(\d+(?:\.\d*)?)\s*([dhms])", re.IGNORECASE)
#: ``HH:MM:SS``, days before it if there are any
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)")


def cores(requested: Mapping[str, Any]) -> int:
    """Return the cpus that are requested, 1 where nothing is said.

    Raises
    ------
    BadOption
        It is no whole number from 1 on.
    """
    value = requested.get("cores")
    number = 1.0 if value is None else _number(value)
    if number < 1 or not number.is_integer():
        raise _refusal("cores", value, "a whole number from 1 on, or leave it out (1)")
    return int(number)


def memory(requested: Mapping[str, Any]) -> float:
    """Return the memory that is requested (MiB), 0 where nothing is said.

    A plain number is in GiB, as jobmon has it; text may have a unit: B, K, M, G or T, of 1024 each.

    Raises
    ------
    BadOption
        It is neither.
    """
    value = requested.get("memory")
    number = 0.0 if value is None else _number(value) * MIB_IN_GIB
    if math.isnan(number) and isinstance(value, str):
        number = _size(value)
    if not 0 <= number < math.inf:
        raise _refusal("memory", value, "GiB as a number, or text with a unit such as '512M' or '2G'")
    return number


def runtime(requested: Mapping[str, Any]) -> float | None:
    """Return how long it may run (seconds), None where nothing is said.

    A plain number is in seconds; text may be ``'90s'``, ``'1h30m'`` or ``'01:30:00'``.

    Raises
    ------
    BadOption
        It is none of these, or not above 0.
    """
    value = requested.get("runtime")
    if value is None:
        return None
    number = _number(value)
    if math.isnan(number) and isinstance(value, str):
        number = _duration(value.strip())
    if not 0 < number < math.inf:
        raise _refusal("runtime", value, "seconds above 0, or text such as '90s', '1h30m' or '01:30:00'")
    return number


def _number(value: Any) -> float:
    """Return a value as a number, NaN when it is none."""
    if isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _size(text: str) -> float:
    """Return a size that has a unit, in MiB."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        return math.nan
    unit = (found[2] or "b").lower()
    return float(found[1]) * _MIB[unit]


def _duration(text: str) -> float:
    """Return a duration in seconds."""
    clock = _CLOCK.fullmatch(text)
    if clock:
        days, hours, minutes, seconds = (float(part or 0) for part in clock.groups())
        return days * 86400 + hours * 3600 + minutes * 60 + seconds
    if not _DURATION.fullmatch(text):
        return math.nan
    return math.fsum(float(number) * _SECONDS[unit.lower()] for number, unit in _PART.findall(text))


def _refusal(key: str, value: object, accepted: str) -> BadOption:
    return BadOption(f"requested_resources: {key}={quote(value, 200)} makes no sense: give {accepted}.")
