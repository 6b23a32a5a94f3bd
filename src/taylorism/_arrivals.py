"""Listener: sets of instructions that main has sent, on their way into the queue.

Each is loaded, and its scheduler is asked whether it can ever start. Where processes run several workers, a long
order is queued bit by bit, so that the first of it run while the others are loaded; but only where the queue hands
out what it has in the order in which it came, for a scheduler that compares sets has to see all of them.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

from taylorism import _blame, _freight, _instructions
from taylorism._channel import Frame
from taylorism._ledger import Common, Intake, Job, Ledger
from taylorism._scheduler import BaseScheduler
from taylorism._setup import Setup

__all__ = ["Arrivals"]

#: bytes of instructions that take next to nothing to send on
LIGHT = 16 * 1024


class Arrivals:
    """What main has sent, and the queue has not.

    Parameters
    ----------
    setup, ledger
        Of the listener.
    load : callable
        Loads what main has packed.
    clockless : bool
        Whether the scheduler is one of ours, that watches no clock.
    """

    def __init__(self, setup: Setup, ledger: Ledger, load: Callable[..., Any], clockless: bool) -> None:
        self._policy = setup.policy
        self._scheduler = setup.scheduler
        self._ledger = ledger
        self._load = load
        self._clockless = clockless
        self._coming: Iterator[tuple[Job, BaseException | None]] | None = None

    @property
    def waiting(self) -> bool:
        """Whether there is anything that is not queued yet."""
        return self._coming is not None

    def announce(self, frame: Frame) -> bool:
        """Have the sets of an order come, unless the intake is closed; return whether the last may come late."""
        keep, has_queue = self._policy.reuses, self._ledger.queue is not None
        if self._ledger.intake is not Intake.CLOSED:
            self._coming = _unpacked(frame, keep, self._load, keep and has_queue)
        return keep and self._clockless and self._ledger.gives_more

    def queue(self, most: int | None = None) -> list[tuple[Job, BaseException]]:
        """Queue the next sets, `most` at most; return those that do not load here, or can never start, and why."""
        accepted: list[Job] = []
        refused: list[tuple[Job, BaseException]] = []
        judge, some = self._judge, list(islice(self._coming or (), most))
        for job, broken in some:
            error = broken or (judge and _blame.judged(judge, job))
            if error is None:
                accepted.append(job)
            else:
                refused.append((job, error))
        if len(some) != most:
            self._coming = None
        self._ledger.add(accepted, in_time=True)
        return refused

    @property
    def _judge(self) -> Callable[[Any], str | None] | None:
        """What says why a set can never start, if there is anything to ask."""
        judge = getattr(self._scheduler, "never_startable", None)
        known = self._clockless or self._ledger.queue is not None
        silent = getattr(judge, "__func__", None) is BaseScheduler.never_startable
        return judge if known and callable(judge) and not silent else None

    def objection(self, job: Job) -> BaseException | None:
        """Return why a set can never start, None if it can as far as its scheduler knows."""
        judge = self._judge
        return None if judge is None else _blame.judged(judge, job)


def _unpacked(
    frame: Frame, keep: bool, load: Callable[..., Any], stays: bool
) -> Iterator[tuple[Job, BaseException | None]]:
    """Yield a job for each set that main sent, with what is wrong where it does not load.

    Parameters
    ----------
    keep : bool
        Whether it is to be sent on as it came.
    load : callable
        Loads what main has packed.
    stays : bool
        Whether no scheduler of the user's may change it within, so that what is big need not be packed again.
    """
    common: dict[str, Any] = {}
    broken: Exception | SystemExit | None = None
    views: list[memoryview] = []
    if keep:
        load = partial(load, views=views)
    try:
        common = _instructions.unpack_common(frame.segments[0], load)
    except (Exception, SystemExit) as trouble:  # the latter of a script that is imported, and ends itself
        broken = trouble
    shared = Common(frame.head.numbers[0], bytes(frame.segments[0]), tuple(views)) if keep else None
    light = not keep and _is_light(frame.segments[0])  # asked for where each has a process of its own
    calls, whole = frame.head.calls, stays and _freight.is_bill(frame.segments[0])
    for number, packed in zip(frame.head.numbers, islice(frame.segments, 1, None), strict=True):
        try:
            views.clear()
            big = _freight.is_bill(packed)
            instructions = _instructions.unpack(common, packed, load if big else pickle.loads)
            job = Job(number, instructions, call=calls, light=light and _is_light(packed))
            if keep:
                job.common, job.packed, job.views = shared, bytes(packed), tuple(views)
            if whole or (stays and big):
                job.loaded = dict(instructions)
            error = broken
        except (Exception, SystemExit) as trouble:
            job, error = Job(number, {}, call=calls), broken or trouble
        yield job, error and _blame.not_rebuilt(error)


def _is_light(packed: Any) -> bool:
    return len(packed) <= LIGHT and not _freight.is_bill(packed)
