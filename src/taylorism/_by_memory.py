"""Listener, pure: the schedulers that count memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from taylorism._asked import check, expected_time, memory_asked, not_negative, positive
from taylorism._binding import BINDED, BindingAwareScheduler
from taylorism._gates import Names
from taylorism._late import Late
from taylorism._limited import (
    GATE,
    MAX_THREADS,
    UNRANKED,
    NewLimitedScheduler,
    gate_of,
    numbered_slots,
    settle_max_threads,
    swept,
)
from taylorism._queues import PendingQueue
from taylorism._scheduler import DOOR, BaseScheduler, Batch, Instructions, Workers

TYPE_CHECKING = False  # without `typing`, a fourth of the time of our import
if TYPE_CHECKING:
    from typing import Any, ClassVar

    from taylorism import _memory
    from taylorism._ranked import Limits
else:
    _memory = Late("_memory")

__all__ = ["MAX_NUMBER_PROCESSES", "LongerFirstScheduler", "NewMaxMemoryScheduler"]

#: How many slots a scheduler has that limits the memory only.
MAX_NUMBER_PROCESSES = 512
_TICKETS = set(range(MAX_NUMBER_PROCESSES))


@BindingAwareScheduler
class NewMaxMemoryScheduler(NewLimitedScheduler):
    """Never as much memory as ``max_memory``, counted by what instructions and workers declare.

    The order is that of the instructions, but a set that does not fit does not hold up a smaller
    one behind it. A set without ``memory``, and a *running worker* whose ``memory`` is 0 (that is
    its default), count ``memory_per_task``; a *set* that says ``memory=0`` counts 0.

    Raises
    ------
    SchedulerValueError
        When it is made, if a number is out of its range; by `launchable`, if the ``memory`` of a
        set is no number.
    OSError
        When it is made without ``max_memory`` and the size of the memory cannot be found.
    """

    __module__ = DOOR

    binded: bool
    max_memory: float
    memory_per_task: float
    memory_max_percentage: float
    measured: bool
    exclusive: Names
    shared: Names

    _footprint: ClassVar[Any] = [
        BINDED,
        GATE,
        {
            "attr": {
                "limit": {
                    "values": ["memory", "mem"],
                    "remap": {"mem": "memory"},
                },
                "max_memory": {
                    "info": "The memory that all workers may use together (MiB).",
                    "optional": True,
                    "type": float,
                    "access": "rwx",
                },
                "memory_per_task": {
                    "info": "What a worker counts that does not declare its memory (MiB).",
                    "optional": True,
                    "default": 2048.0,
                    "type": float,
                },
                "memory_max_percentage": {
                    "info": "Without max_memory: that fraction (not percentage) of what there is.",
                    "optional": True,
                    "default": 0.75,
                    "type": float,
                },
                "measured": {
                    "info": "Also count what workers are seen to use, and what is available now.",
                    "optional": True,
                    "default": False,
                    "type": bool,
                },
            },
        },
    ]

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        check(self, "max_memory", "a number of MiB above 0", positive)
        check(self, "memory_per_task", "a number of MiB, 0 or more", not_negative)
        check(self, "memory_max_percentage", "a fraction above 0, such as 0.75", positive)
        if self.max_memory is None:
            self.max_memory = self.memory_max_percentage * _machine_memory(self)

    def _all_tickets(self) -> set[Any]:
        """Return the slots: many, since the memory is what limits."""
        return _TICKETS.copy()

    def launchable(
        self, pending_instructions: Batch, workers: Workers, report: Sequence[Any]
    ) -> tuple[Batch, Batch]:
        """Launch each one that fits beside those before it; see `BaseScheduler.launchable`."""
        limit, undeclared = self._capacity(workers), self.memory_per_task
        used = sum(map(self._counted, workers.values()))

        def take(instructions: Instructions) -> bool | None:
            nonlocal used
            if used >= limit:  # not even one of 0 MiB would stay below
                return None
            asked = memory_asked(instructions, undeclared)
            fits = used + asked < limit
            used += asked if fits else 0.0
            return fits

        chosen, kept = swept(pending_instructions, math.inf, gate_of(self), workers, take)
        return self._assign_tickets(workers, chosen), kept

    def queue(self) -> PendingQueue:
        """Return a queue that launches what fits, and reserves for the first what it waits for."""
        from taylorism._ranked import Ranked

        return Ranked(self._limits(UNRANKED, self._room, strict=True))

    def _limits(
        self, rank: Callable[[Instructions], Any], room: Callable[[Workers], float], strict: bool
    ) -> Limits:
        from taylorism._ranked import Limits

        return Limits(
            rank=rank,
            demand=lambda instructions: memory_asked(instructions, self.memory_per_task),
            used=self._counted,
            capacity=self._capacity,
            room=room,
            mark=self._mark,
            gate=gate_of(self),
            strict=strict,
        )

    def _counted(self, worker: Any) -> float:
        """Return what a running worker counts: what it has declared, or is seen to use if that is more."""
        declared = float(worker.memory or self.memory_per_task)
        return max(declared, getattr(worker, "_measured_memory", 0.0)) if self.measured else declared

    def _capacity(self, workers: Workers) -> float:
        """Return the limit; not above what runs and what is available now, together."""
        if not self.measured:
            return self.max_memory
        yet_to_come = sum(
            max(0.0, float(worker.memory or self.memory_per_task) - getattr(worker, "_measured_memory", 0.0))
            for worker in workers.values()
        )
        counted = sum(map(self._counted, workers.values()))
        return min(self.max_memory, counted + max(0.0, _memory.available_memory() - yet_to_come))

    def never_startable(self, instructions: Mapping[str, Any]) -> str | None:
        """Tell why a set does not even fit alone; see `BaseScheduler.never_startable`."""
        asked = memory_asked(instructions, self.memory_per_task)
        if asked < self.max_memory:
            return None
        return _too_big(self, instructions, asked, "has to stay below")


def _machine_memory(scheduler: BaseScheduler) -> float:
    """Return the memory that this process and its children may use (MiB)."""
    try:
        return _memory.usable_memory()
    except OSError as error:
        text = f"{type(scheduler).__name__}: {error}; give max_memory, in MiB"
        raise OSError(text) from error


def _too_big(
    scheduler: NewMaxMemoryScheduler, instructions: Mapping[str, Any], asked: float, relation: str
) -> str:
    """Return the sentence about a set that asks for more memory than there ever will be."""
    declared = instructions.get("memory") is not None
    what = "the memory that it asks for" if declared else "memory_per_task, which it counts for"
    return (
        f"{what}, {asked:.15g} MiB, {relation} max_memory, {scheduler.max_memory:.15g} MiB: "
        "raise max_memory, or declare less memory for it"
    )


class LongerFirstScheduler(NewMaxMemoryScheduler):
    """Never more than ``max_threads`` workers and ``max_memory``; the longest ones first.

    The order is by decreasing ``expected_time`` (s; 0 when a set does not say), and as they came
    among equals. Memory is counted as by `NewMaxMemoryScheduler`, but may reach ``max_memory``.

    Raises
    ------
    SchedulerValueError
        When it is made, if a number is out of its range; by `launchable`, if the ``memory`` or
        the ``expected_time`` of a set is no number.
    """

    __module__ = DOOR

    max_threads: int

    _footprint: ClassVar[Any] = {
        "attr": {
            "limit": {"values": ["threads+memory"]},
            "max_threads": MAX_THREADS,
        },
    }

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        settle_max_threads(self)

    _all_tickets = numbered_slots

    def launchable(
        self, pending_instructions: Batch, workers: Workers, report: Sequence[Any]
    ) -> tuple[Batch, Batch]:
        """Launch the longest ones that fit while slots are free; see `BaseScheduler.launchable`."""
        ordered = sorted(pending_instructions, key=expected_time, reverse=True)
        undeclared = self.memory_per_task
        available = self._capacity(workers) - sum(map(self._counted, workers.values()))

        def take(instructions: Instructions) -> bool | None:
            nonlocal available
            if available < 0:
                return None
            asked = memory_asked(instructions, undeclared)
            fits = asked <= available
            available -= asked if fits else 0.0
            return fits

        chosen, kept = swept(ordered, self._room(workers), gate_of(self), workers, take)
        return self._assign_tickets(workers, chosen), kept

    def queue(self) -> PendingQueue:
        """Return a queue that launches the longest that fits, and reserves for the first what it waits for."""
        from taylorism._ranked import Ranked

        return Ranked(self._limits(lambda instructions: -expected_time(instructions), self._room, strict=False))

    def never_startable(self, instructions: Mapping[str, Any]) -> str | None:
        """Tell why a set does not even fit alone; see `BaseScheduler.never_startable`."""
        expected_time(instructions)
        asked = memory_asked(instructions, self.memory_per_task)
        if asked <= self.max_memory:
            return None
        return _too_big(self, instructions, asked, "may not be above")
