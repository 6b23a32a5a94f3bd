"""Listener: the stop ladder, the same for one reason or another, and always bounded.

SIGTERM and SIGCONT to some processes and all that is below them, a grace time in which ``finally`` blocks run,
SIGKILL until nothing is left. C and Fortran code never runs a Python handler, and a task may swallow anything;
that is what the second step is for.

A program that was forked while SIGTERM was on its way would never have it, and use up the grace. So everybody is
suspended first, until nobody new is seen: a process with a signal pending cannot fork. What a parent starts after
its SIGTERM is left alone, for it may be what a ``finally`` block runs, but not when that parent has gone: we look
for orphans a few times during the grace. Then our workers are told again, too. A signal that comes between Python's
last look for signals and a call that blocks is noted, and not served before that call returns; the second one
interrupts it. (For a worker that has heard the first, it does nothing.)
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection

from taylorism import _tree

__all__ = ["Ladder"]

_NEVER = float("inf")

#: seconds between SIGKILL and giving up on a process that the system cannot end (a dead network disk)
_UNKILLABLE = 3.0
#: seconds between two rounds of SIGKILL: what is killed may have forked meanwhile
_ROUND = 0.05
#: rounds of suspending: some may be others', who cannot be suspended
_ROUNDS = 20
#: seconds to the first look for orphans; to each further one, twice as many
_LOOK = 0.05


class Ladder:
    """One descent, from SIGTERM to the end.

    Parameters
    ----------
    living : callable
        Returns whom to stop, as far as they are still there.
    grace : float
        Seconds between SIGTERM and SIGKILL.
    workers : callable
        Returns those to whom it does no harm to be told twice.
    """

    def __init__(
        self, living: Callable[[], Collection[int]], grace: float, workers: Callable[[], Collection[int]] = tuple
    ) -> None:
        self._living = living
        self._workers = workers
        self.next_step = time.monotonic() + grace
        self._give_up_at = self.next_step + _UNKILLABLE
        self._pause = _LOOK
        self._next_look = time.monotonic() + _LOOK
        self._told: set[int] = set()
        self._tell(self._suspended())

    def _suspended(self) -> list[int]:
        """Suspend everybody, and return them."""
        held: dict[int, None] = {}
        for _ in range(_ROUNDS):
            new = [pid for pid in self._living() if pid not in held]
            if not new:
                break
            _tree.send(new, signal.SIGSTOP)
            held.update(dict.fromkeys(new))
        return list(held)

    def _tell(self, pids: Collection[int]) -> None:
        self._told.update(pids)
        _tree.send(pids, signal.SIGTERM, signal.SIGCONT)

    def _tell_orphans(self) -> None:
        """Send SIGTERM to those whose parent has died meanwhile, so that we have adopted them, and who had none."""
        ours = set(_tree.children(os.getpid())) - self._told
        if ours and (orphans := ours.intersection(self._living())):
            self._tell(orphans)

    def _tell_again(self) -> None:
        """Send SIGTERM to our workers once more."""
        workers = self._told.intersection(self._workers())
        if workers:
            _tree.send(sorted(workers), signal.SIGTERM)

    def hurry(self, grace: float) -> None:
        """Allow less time than before."""
        kill_at = time.monotonic() + grace
        if kill_at < self.next_step:
            self.next_step = kill_at
            self._give_up_at = min(self._give_up_at, kill_at + _UNKILLABLE)

    def descend(self, now: float) -> None:
        """Do what is due."""
        if self._next_look <= now < self.next_step:
            self._tell_orphans()
            self._tell_again()
            self._pause *= 2
            self._next_look = now + self._pause
        if self.next_step <= now:
            self._next_look = _NEVER
            _tree.send(self._living(), signal.SIGKILL)
            self.next_step = now + _ROUND

    @property
    def due(self) -> float:
        """When `descend` has something to do."""
        return min(self.next_step, self._next_look)

    @property
    def at_the_end(self) -> bool:
        """Whether nobody is left, or the system cannot end who is."""
        return self.has_given_up or not self._living()

    @property
    def has_given_up(self) -> bool:
        """Whether somebody has outlived SIGKILL for too long."""
        return time.monotonic() > self._give_up_at
