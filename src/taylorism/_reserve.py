"""Listener: processes that are forked ahead, while there is nothing else to do, and wait for their Worker.

From the end of a worker to the first step of the next, a fork and the start of a process take most of the time,
and where several end at once they take it one after the other. So while workers are at their tasks and sets are
pending, some processes are made ready. Each runs one Worker, as any other process does. It is given its
instructions when the scheduler has chosen, and builds the Worker itself; the object that schedulers see stays here.

That is done where nobody can tell the difference: for classes with the `__init__` and the `work` of Worker, with
attributes that are built without a step of the user's code (`_choice`), and instructions that are no burden to send
once more. And it is done only when nothing has happened for a while: where short tasks keep the listener busy, to
make a process ahead takes as long as to make it when it is wanted.
"""

from __future__ import annotations

import time

from taylorism._crew import Crew
from taylorism._ledger import Ledger
from taylorism._policy import Policy

__all__ = ["Reserve"]

#: seconds in which nothing happens before a process is made ready
QUIET = 0.01
#: processes that are ready, at most
MOST = 16

_NEVER = float("inf")


class Reserve:
    """Sees to it that some processes are ready.

    Parameters
    ----------
    policy, ledger, crew
        Of the listener.
    """

    def __init__(self, policy: Policy, ledger: Ledger, crew: Crew) -> None:
        self._ledger = ledger
        self._crew = crew
        self._needless = policy.reuses  # processes wait for workers anyway
        self._refused = False
        self._others = False  # those that come last are not built like that
        self._due = _NEVER

    def _is_wanted(self) -> bool:
        """Whether another one would be of use: for each worker that may end, one that may follow it."""
        if self._needless or not self._ledger.may_launch or self._is_hopeless:
            return False
        return self._crew.hands.idle < min(MOST, self._ledger.waiting, len(self._ledger.workers))

    @property
    def _is_hopeless(self) -> bool:
        return self._others or self._refused or self._crew.hands.deserted or self._crew.stopping

    def put_off(self) -> None:
        """Take note that something has happened."""
        self._due, self._others = _NEVER, False

    def next_due(self) -> float:
        """Return when one is to be made ready, on the monotonic clock."""
        if not self._is_wanted():
            return _NEVER
        if self._due == _NEVER:
            self._due = time.monotonic() + QUIET
        return self._due

    def enforce(self) -> None:
        """Make one ready if it is time; send away those that nobody is left for."""
        if self._due <= time.monotonic() and self._is_wanted():
            self._add()
        elif self._crew.has_hands and not self._needless and self._crew.hands.idle > self._ledger.waiting:
            self._crew.retire()

    def _add(self) -> None:
        try:
            self._others = not self._crew.fork_ahead()
        except OSError:
            self._refused = True  # what room there is is for those that have something to do
