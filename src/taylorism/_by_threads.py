"""Listener, pure: the schedulers that count workers, or count nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

from taylorism._binding import BINDED, BindingAwareScheduler
from taylorism._gates import Names
from taylorism._limited import (
    GATE,
    MAX_THREADS,
    UNRANKED,
    NewLimitedScheduler,
    constantly,
    gate_of,
    numbered_slots,
    settle_max_threads,
    swept,
)
from taylorism._queues import Fifo, OneByOne, PendingQueue
from taylorism._scheduler import DOOR, BaseScheduler, Batch, Workers

TYPE_CHECKING = False  # without `typing`, a fourth of the time of our import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar

__all__ = ["NewLaxistScheduler", "NewMaxThreadsScheduler", "NewSingleOpenFileScheduler"]

#: the methods that say what a set starts with
_MARKING = ("_assign_tickets", "_workers_hooks", "_all_tickets")


class NewLaxistScheduler(BaseScheduler):
    """Holds nothing back: all that is pending starts at once."""

    __module__ = DOOR

    nosort: bool

    _footprint: ClassVar[Any] = {
        "attr": {
            "nosort": {
                "info": "Start everything as soon as it comes.",
                "alias": ("laxist", "unsorted"),
                "values": (True,),
                "type": bool,
            },
        },
    }

    def launchable(
        self, pending_instructions: Batch, workers: Workers, report: Sequence[Any]
    ) -> tuple[Batch, Batch]:
        """Launch everything; see `BaseScheduler.launchable`."""
        return self._assign_tickets(workers, list(pending_instructions)), []

    def queue(self) -> PendingQueue:
        """Return a queue from which everything starts."""
        return fifo(self, constantly(math.inf))


def fifo(scheduler: BaseScheduler, room: Callable[[Workers], float]) -> PendingQueue:
    """Return a queue in order of arrival; a set runs with the marks of another only where these are ours."""
    owners = (cls for name in _MARKING for cls in type(scheduler).__mro__ if name in vars(cls))
    ours = all(cls.__module__ == DOOR for cls in owners)
    return (Fifo if ours else OneByOne)(room, scheduler._assign_tickets)


@BindingAwareScheduler
class NewMaxThreadsScheduler(NewLimitedScheduler):
    """Never more than ``max_threads`` workers at the same time, in the order of the instructions.

    Raises
    ------
    SchedulerValueError
        When it is made, if ``max_threads`` is negative.
    """

    __module__ = DOOR

    binded: bool
    max_threads: int
    exclusive: Names
    shared: Names

    _footprint: ClassVar[Any] = [
        BINDED,
        GATE,
        {
            "attr": {
                "limit": {
                    "values": ["threads", "processes"],
                    "remap": {"processes": "threads"},
                },
                "max_threads": MAX_THREADS,
            },
        },
    ]

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        settle_max_threads(self)

    _all_tickets = numbered_slots

    def launchable(
        self, pending_instructions: Batch, workers: Workers, report: Sequence[Any]
    ) -> tuple[Batch, Batch]:
        """Launch the first ones, as many as slots are free; see `BaseScheduler.launchable`."""
        free, gate = self._room(workers), gate_of(self)
        if gate:
            chosen, kept = swept(pending_instructions, free, gate, workers, constantly(True))
        else:
            chosen, kept = pending_instructions[:free], pending_instructions[free:]
        return self._assign_tickets(workers, chosen), kept

    def queue(self) -> PendingQueue:
        """Return a queue that launches the first ones, as `launchable` does."""
        gate = gate_of(self)
        if not gate:
            return fifo(self, self._room)
        from taylorism._ranked import Limits, Ranked

        nothing = constantly(0.0)
        return Ranked(Limits(UNRANKED, nothing, nothing, nothing, self._room, self._mark, gate))


class NewSingleOpenFileScheduler(NewMaxThreadsScheduler):
    """As `NewMaxThreadsScheduler`, and never two workers on one file at the same time.

    The files of a set or of a worker are the values of its ``fileA`` and ``fileB``; one that has
    none of them holds no file. A set that waits for a file lets those behind it pass. The general form of this is
    the attribute ``exclusive`` of the other schedulers.
    """

    __module__ = DOOR

    singlefile: bool

    _footprint: ClassVar[Any] = {
        "attr": {
            "singlefile": {
                "info": "One worker at a time on each file.",
                "values": (True,),
                "type": bool,
            },
            "exclusive": {"default": Names(("fileA", "fileB"))},
        },
    }
