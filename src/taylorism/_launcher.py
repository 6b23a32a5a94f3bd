"""Listener: from the sets that a scheduler chose to processes at work.

Whatever goes wrong on the way is charged to that one set of instructions (`_court`); where the system has no room
for another process, the rest waits for the end of one that runs.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from taylorism import _blame, _hiring
from taylorism._batches import Batches
from taylorism._court import Court
from taylorism._crew import Crew
from taylorism._ledger import Flow, Job, Ledger
from taylorism._setup import Setup
from taylorism._upstream import Upstream

__all__ = ["Launcher"]

#: workers that are hired before the first of them is started: after each fork, a hire copies the pages that it
#: looks at, so that the first hire of a turn costs several times what the others do
TOGETHER = 8


class _Hired(NamedTuple):
    worker: Any
    job: Job
    seconds: float | None


class Launcher:
    """Hires and starts.

    Parameters
    ----------
    setup : Setup
        What main has said.
    ledger, crew, upstream, court, batches
        Of the listener.

    Attributes
    ----------
    crowded : bool
        Whether the system had no room for another process.
    """

    def __init__(
        self, setup: Setup, ledger: Ledger, crew: Crew, upstream: Upstream, court: Court, batches: Batches
    ) -> None:
        self._setup = setup
        self._ledger = ledger
        self._crew = crew
        self._upstream = upstream
        self._court = court
        self._batches = batches
        self._reuses = setup.policy.reuses
        self.crowded = False

    @property
    def _may_go_on(self) -> bool:
        return not self.crowded and self._ledger.flow is not Flow.STOPPED

    def launch(self, chosen: Sequence[Job]) -> bool:
        """Hire and start what was chosen, a few at a time; return whether all of it runs.

        What was not started, and was not charged with that, is pending again, in order.
        """
        left, started = deque(self._batches.place(list(chosen)) if self._reuses else chosen), 0
        total = len(left)
        try:
            while left and self._may_go_on:
                started += self._launch_some(left)
        finally:
            if left:
                self._ledger.give_back(list(left))
        return started == total

    def _launch_some(self, left: deque[Job]) -> int:
        """Hire and start the first sets of `left`, and take them from it; return how many were started.

        Whatever is raised in here, nobody counts as running who is not, or the end of the work would never come.
        """
        hired: deque[_Hired] = deque()
        try:
            self._hire(left, hired)
            return self._start(hired)
        finally:
            self._send_home(hired)
            left.extendleft(each.job for each in reversed(hired))

    def _send_home(self, hired: Iterable[_Hired]) -> None:
        for each in hired:
            self._ledger.left(each.worker.name)

    # -- hiring ---------------------------------------------------------------------------------------

    def _hire(self, left: deque[Job], hired: deque[_Hired]) -> None:
        """Build workers for the first sets of `left`, and take these from it."""
        while left and len(hired) < TOGETHER and self._may_go_on:
            job = left.popleft()
            try:
                hired.append(self._hire_one(job))
            except BaseException as error:
                job.trials += 1
                self._court.charge_job(job, error, again=not isinstance(error, _hiring.HOPELESS))

    def _hire_one(self, job: Job) -> _Hired:
        worker = _hiring.hire(job.instructions, self._setup.shared)
        seconds = self._setup.policy.limit(job.instructions)
        self._ledger.started(worker, job, time.monotonic())
        return _Hired(worker, job, seconds)

    # -- starting -------------------------------------------------------------------------------------

    def _start(self, hired: deque[_Hired]) -> int:
        """Start workers, and take them from `hired`; return how many were started before one could not be."""
        started = 0
        while hired and self._may_go_on and self._start_first(hired):
            started += 1
        return started

    def _start_first(self, hired: deque[_Hired]) -> bool:
        worker, job, seconds = hired[0]
        job.trials += 1
        try:
            member = self._crew.start(worker, job, seconds)
        except BaseException as trouble:
            self._send_home(hired)  # what is left in the ledger runs
            self._note_refusal(worker, job, trouble)
            if not self.crowded:
                hired.popleft()
            return False
        hired.popleft()
        self._upstream.note(member.news)
        if self._setup.verbose:
            _blame.say(logging.INFO, "Worker %s started.", worker.name)
        return True

    def _note_refusal(self, worker: Any, job: Job, trouble: BaseException) -> None:
        """Have a set wait for a running worker to make room; it is a failure if there is none."""
        if not isinstance(trouble, OSError):
            self._court.charge_job(job, trouble, worker, again=True)
        elif self._ledger.workers:
            _blame.say(logging.WARNING, "worker %s waits for the end of another: %s", worker.name, trouble)
            job.trials -= 1
            self.crowded = True
        else:
            self._court.charge_job(job, _blame.no_room(worker, job, trouble), worker, again=True)
