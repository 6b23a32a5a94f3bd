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
    private : bool
        Whether a scheduler of the user's runs in the listener: what it changes there, in the environment or in a
        module, a worker has to find.
    """

    def __init__(self, policy: Policy, ledger: Ledger, crew: Crew, private: bool = False) -> None:
        self._ledger = ledger
        self._crew = crew
        # Where processes are used again, they wait for workers anyway.
        self._needless = policy.reuses or private or callable(policy.timeout)
        self._refused = False
        self._due = _NEVER

    def next_due(self, stirred: bool) -> float:
        """Return when one is to be made ready, on the monotonic clock; `stirred` if something has just happened.

        Whether one is wanted is asked when it is due: to ask at each turn would touch, and copy, more pages.
        """
        if stirred and not self._needless:
            self._due = time.monotonic() + QUIET if self._ledger.may_launch else _NEVER
        return self._due

    def enforce(self) -> None:
        """Make one ready if it is time; the next one may follow at once."""
        if self._due > time.monotonic():
            return
        if not (self._is_wanted() and self._add()):
            self._due = _NEVER

    def _is_wanted(self) -> bool:
        """Whether another one would be of use: for each worker that may end, one that may follow it."""
        hands, stopping = self._crew.hands, self._crew.stopping
        if self._refused or hands.deserted or stopping or not self._ledger.may_launch:
            return False
        return hands.idle < min(MOST, self._ledger.waiting, len(self._ledger.workers))

    def _add(self) -> bool:
        try:
            return self._crew.fork_ahead()
        except OSError:
            self._refused = True  # what room there is is for those that have something to do
            return False

    def send_away_surplus(self) -> None:
        """Send away those that nobody is left for."""
        if not self._needless and self._crew.hands.idle > self._ledger.waiting:
            self._crew.retire()
