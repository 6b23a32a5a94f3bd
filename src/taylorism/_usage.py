"""Listener: what a worker used, and how it is measured.

Processor time and the peak of the resident memory come from the system when the worker is reaped (`wait4`), for
nothing. But that peak begins with all the pages that a fork shares with its parent, and is inherited by what is
executed too: beside a main program of 600 MiB, each empty worker "used" 600 MiB. So what our own process has
when it forks is taken off.

That still misses what a worker changes in pages that it shares, and what programs use that it starts while the
peak of main hides them. So a worker that lives long enough is also looked at from outside, now and then: the
pages that are private to it and to all that descends from it, as the kernel counts them (``smaps_rollup``). To
count takes the longer the larger main is, and each look is followed by a rest of five thousand times its cost: at
most 0.02 % of a processor.

The peak is the larger of the two. Without ``/proc`` (macOS) there is neither.
"""

from __future__ import annotations

import resource  # noqa: F401 - `os.wait4` imports it: not in the listener, which imports nothing after the fork
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from taylorism import _memory, _tree

__all__ = ["Baseline", "Lookout", "Usage"]

#: seconds from the start of the first worker to the first look, and between two looks, at the least
_PAUSE = 5.0
#: the same, in times the cost of the last one
_THRIFT = 5000
#: both, where a limit is to be kept
_WATCHFUL_PAUSE = 1.0
_WATCHFUL_THRIFT = 200
#: seconds for which the size of this process is taken to be what it was
_FRESH = 0.2


@dataclass
class Usage:
    """What a worker used so far.

    Attributes
    ----------
    baseline : float or None
        MiB that it shared with its parent when it was forked; None where that cannot be told.
    private : float
        The most that it and its descendants were seen to have for themselves, in MiB.
    rusage : object
        What the system said at its end, if it was asked.
    now : float
        What it and its descendants had at the last look, in MiB.
    hidden : bool
        Whether its process had been larger before it.
    """

    baseline: float | None
    private: float = 0.0
    rusage: Any = None
    now: float = 0.0
    hidden: bool = False

    def take(self, rusage: Any, highest: bool) -> None:
        """Take what the system says of a process that others have used before, whose peak may be theirs."""
        self.rusage, self.hidden = rusage, not highest

    @property
    def peak(self) -> float | None:
        """The peak of its memory in MiB, None where that cannot be known."""
        if self.rusage is None or self.baseline is None or (self.hidden and not self.private):
            return None
        if self.hidden:
            return self.private
        return max(self.private, float(self.rusage.ru_maxrss) / 1024 - self.baseline, 0.0)

    @property
    def unknown(self) -> str:
        """Why something cannot be known, empty if everything is."""
        if self.rusage is None:
            return "its end was noted by another than the listener"
        if self.hidden and not self.private:
            return "its process had used as much memory for another worker before"
        return "" if self.baseline is not None else "this system does not tell which memory is a process's own"


class Baseline:
    """What this process would share with a fork now."""

    def __init__(self) -> None:
        self._size: float | None = None
        self._until = 0.0

    def now(self) -> float | None:
        """Return it in MiB, None where the system does not tell."""
        now = time.monotonic()
        if now >= self._until:
            self._size, self._until = _memory.anonymous(), now + _FRESH
        return self._size


class Lookout:
    """Looks at the memory of the workers now and then.

    Parameters
    ----------
    watchful : bool
        Whether something depends on it: then every second, and up to half a percent of a processor.
    """

    def __init__(self, watchful: bool = False) -> None:
        self._pause = _WATCHFUL_PAUSE if watchful else _PAUSE
        self._thrift = _WATCHFUL_THRIFT if watchful else _THRIFT
        self.next_look = float("inf")

    def welcome(self) -> None:
        """Take note that a worker has started."""
        if self.next_look == float("inf"):
            self.next_look = time.monotonic() + self._pause

    def look(self, now: float, workers: Iterable[tuple[int, Usage]]) -> bool:
        """Measure, if it is time; return whether it was."""
        if now < self.next_look:
            return False
        start, found = time.process_time(), False
        for pid, usage in workers:
            found = True
            usage.now = sum(map(_memory.private, [pid, *_tree.descendants(pid)]))
            usage.private = max(usage.private, usage.now)
        cost = time.process_time() - start
        self.next_look = time.monotonic() + max(self._pause, self._thrift * cost) if found else float("inf")
        return True

