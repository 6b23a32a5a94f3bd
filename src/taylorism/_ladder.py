"""Listener: the stop ladder, the same for one reason or another, and always bounded.

SIGTERM and SIGCONT to some processes and all that is below them, a grace time in which ``finally`` blocks run,
SIGKILL until nothing is left. C and Fortran code never runs a Python handler, and a task may swallow anything;
that is what the second step is for.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Collection

from taylorism import _tree

__all__ = ["Ladder"]

#: seconds between SIGKILL and giving up on a process that the system cannot end (a dead network disk)
_UNKILLABLE = 3.0
#: seconds between two rounds of SIGKILL: what is killed may have forked meanwhile
_ROUND = 0.05


class Ladder:
    """One descent, from SIGTERM to the end.

    Parameters
    ----------
    living : callable
        Returns whom to stop, as far as they are still there.
    grace : float
        Seconds between SIGTERM and SIGKILL.
    """

    def __init__(self, living: Callable[[], Collection[int]], grace: float) -> None:
        self._living = living
        self.next_step = time.monotonic() + grace
        self._give_up_at = self.next_step + _UNKILLABLE
        _tree.send(living(), signal.SIGTERM, signal.SIGCONT)

    def hurry(self, grace: float) -> None:
        """Allow less time than before."""
        kill_at = time.monotonic() + grace
        if kill_at < self.next_step:
            self.next_step = kill_at
            self._give_up_at = min(self._give_up_at, kill_at + _UNKILLABLE)

    def descend(self, now: float) -> None:
        """Do what is due."""
        if self.next_step <= now:
            _tree.send(self._living(), signal.SIGKILL)
            self.next_step = now + _ROUND

    @property
    def at_the_end(self) -> bool:
        """Whether nobody is left, or the system cannot end who is."""
        return self.has_given_up or not self._living()

    @property
    def has_given_up(self) -> bool:
        """Whether somebody has outlived SIGKILL for too long."""
        return time.monotonic() > self._give_up_at
