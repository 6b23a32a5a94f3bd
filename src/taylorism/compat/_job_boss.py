"""Main, and for its scheduler the listener: a Boss of commands that tells which have ended, and how.

It is what a service needs that other programs talk to: nothing is written to the standard error of this process,
and what goes wrong with a command, or with the listener, is told when it is asked for, not raised.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import taylorism.workers  # noqa: F401 - the class of kind='shell', which the listener is to know
from taylorism._boss import Boss
from taylorism._compat import SignalInterruptError
from taylorism._errors import BossDied, CommandFailed
from taylorism._messages import State
from taylorism._queues import PendingQueue
from taylorism._scheduler import Batch, Instructions, Workers
from taylorism._shares import share_of
from taylorism.schedulers import MaxCpusScheduler

__all__ = ["CpusAndMemoryScheduler", "JobBoss"]

_log = logging.getLogger("taylorism")

#: cpus, and memory in MiB
_Pair = tuple[float, float]

#: what has come to its end, one way or another
_ENDED = (State.DONE, State.FAILED, State.CANCELLED, State.STOPPED)


class CpusAndMemoryScheduler(MaxCpusScheduler):
    """Never more than ``max_cpus`` cpus, ``max_memory`` and ``max_threads`` workers, in the order as they come.

    A set that declares no memory counts none. One that has to wait lets smaller ones pass, and what it waits for is
    kept for it.
    """

    max_memory: float

    _footprint: ClassVar[Any] = {
        "attr": {
            "limit": {"values": ["cpus+memory"]},
            "max_memory": {
                "info": "The memory that all workers may use together (MiB).",
                "type": float,
            },
        },
    }

    def launchable(
        self, pending_instructions: Batch, workers: Workers, report: Sequence[Any]
    ) -> tuple[Batch, Batch]:
        """Launch what a new queue would; see `BaseScheduler.launchable`."""
        queue = self.queue()
        queue.add(pending_instructions)
        chosen = queue.take(workers, 0.0)
        return chosen, list(queue)

    def queue(self) -> PendingQueue:
        """Return a queue that launches what fits, and reserves for the first what it waits for."""
        return _TwoLimits(self, (float(self.max_cpus), self.max_memory))

    def never_startable(self, instructions: Mapping[str, Any]) -> str | None:
        """Tell why a set does not even fit alone; see `BaseScheduler.never_startable`."""
        asked = _declared(instructions)
        if asked <= self.max_memory:
            return super().never_startable(instructions)
        return (
            f"it asks for {asked:g} MiB of memory, and there are {self.max_memory:g} MiB for all: ask for less, or "
            "give more to all"
        )


class _TwoLimits(PendingQueue):
    """First come, first served, within two limits; nobody starves. A turn looks at all that is pending.

    Who comes behind the first that does not fit may have what is left for it when all those have ended who were
    running when it became the first.

    Parameters
    ----------
    scheduler : CpusAndMemoryScheduler
        Whose queue it is.
    capacity : tuple of float
        Cpus, and memory in MiB.
    """

    clockless = True

    def __init__(self, scheduler: CpusAndMemoryScheduler, capacity: _Pair) -> None:
        self._scheduler = scheduler
        self._capacity = capacity
        self._sets: dict[int, Instructions] = {}
        self._first: Instructions | None = None
        self._elders: set[str | int] = set()  # by name; by the identity of the set as long as they have none

    def add(self, sets: Iterable[Instructions]) -> None:
        """See `PendingQueue.add`."""
        self._sets.update((id(each), each) for each in sets)

    def put_back(self, sets: Sequence[Instructions]) -> None:
        """See `PendingQueue.put_back`."""
        self._sets = {id(each): each for each in (*sets, *self._sets.values())}

    def remove(self, instructions: Instructions) -> None:
        """See `PendingQueue.remove`."""
        del self._sets[id(instructions)]

    def take(self, workers: Workers, now: float) -> list[Instructions]:
        """See `PendingQueue.take`."""
        room, taken, waiting = self._scheduler._room(workers), list[Instructions](), False
        free = _minus(self._capacity, *map(_used, workers.values()))
        for each in self._sets.values():
            if len(taken) >= room:
                break
            if _fits(_demand(each), free):
                taken.append(each)
                free = _minus(free, _demand(each))
            elif not waiting:
                waiting, free = True, self._spare(each, workers, taken, free)
        for each in taken:
            self.remove(each)
        self._scheduler._mark(workers, taken, 0.0)
        return taken

    def _spare(self, first: Instructions, workers: Workers, taken: Sequence[Instructions], free: _Pair) -> _Pair:
        """Return what those may have who pass the first that does not fit."""
        if self._first is not first:
            self._first, self._elders = first, {*workers, *map(id, taken)}
        younger = [_used(worker) for name, worker in workers.items() if name not in self._elders]
        younger += [_demand(each) for each in taken if id(each) not in self._elders]
        left = _minus(self._capacity, _demand(first), *younger)
        return min(free[0], left[0]), min(free[1], left[1])

    def started(self, name: str, instructions: Instructions, now: float) -> None:
        """See `PendingQueue.started`."""
        if id(instructions) in self._elders:
            self._elders.add(name)

    def ended(self, name: str) -> None:
        """See `PendingQueue.ended`."""
        self._elders.discard(name)

    def __len__(self) -> int:
        return len(self._sets)

    def __iter__(self) -> Iterator[Instructions]:
        return iter(list(self._sets.values()))


def _demand(instructions: Instructions) -> _Pair:
    return float(instructions.get("ncpus") or 1), _declared(instructions)


def _used(worker: Any) -> _Pair:
    return float(share_of(worker).ncpus), float(worker.memory)


def _minus(pair: _Pair, *others: _Pair) -> _Pair:
    return pair[0] - sum(each[0] for each in others), pair[1] - sum(each[1] for each in others)


def _fits(demand: _Pair, free: _Pair) -> bool:
    return demand[0] <= free[0] and demand[1] <= free[1]


def _declared(instructions: Instructions | Mapping[str, Any]) -> float:
    return float(instructions.get("memory") or 0.0)


def _time_limit(instructions: Mapping[str, Any]) -> float | None:
    """Return the seconds that a set may take; a function of a module, so that it can be sent to any listener."""
    seconds: float | None = instructions.get("runtime")
    return seconds


class JobBoss(Boss):
    """A Boss of commands, at work from the start.

    Parameters
    ----------
    scheduler : object
        As for `Boss`.
    stop_grace : float
        Seconds between SIGTERM and SIGKILL.
    log_dir : path, optional
        As for `Boss`.
    """

    _quiet = True

    def __init__(self, scheduler: Any, stop_grace: float, log_dir: str | os.PathLike[str] | None) -> None:
        super().__init__(
            scheduler,
            on_error="collect",
            timeout=_time_limit,
            memory_guard="stop",
            stop_grace=stop_grace,
            log_dir=log_dir,
        )
        self._codes: dict[str, int] = {}
        self._given = 0
        self.make_them_work()

    @property
    def broken(self) -> bool:
        """Whether nothing more will come of it: its listener has died, or was stopped."""
        self._link.receive()
        results = self._link.results
        return results.over or results.fatal is not None

    @property
    def killed(self) -> bool:
        """Whether that is because somebody has killed its listener; else it is an error, which `wait` raises."""
        return self.broken and isinstance(self._link.results.fatal, (BossDied, SignalInterruptError))

    def ended(self, numbers: Iterable[int]) -> dict[int, int | None]:
        """Return which of these commands have ended, with the exit code; None for what never had a process."""
        over = self.broken
        self._take_codes()
        views = self._link.results.views
        found = [views[number] for number in numbers if number in views]
        ended = [view for view in found if over or view.state in _ENDED]
        self._take_failures([view.name for view in ended if view.state == State.FAILED])
        return {view.number: self._code(view) for view in ended}

    def _take_failures(self, names: Sequence[str | None]) -> None:
        """Take the exit codes of commands that have failed, and tell the log.

        At INFO, which goes to nobody who has not asked for it: a service has better places for the errors of its
        jobs, and its standard error may be read by a program.
        """
        errors = self.errors if names else {}
        for name, error in ((name, errors.get(name)) for name in names if name is not None):
            if isinstance(error, CommandFailed):
                self._codes[name] = error.returncode
            _log.info("job %s: %s", name, error)

    def _take_codes(self) -> None:
        """Take the exit codes out of the reports that are new; a step that is taken twice does no harm."""
        for record in self._link.results.records_from(self._given):
            report = record["report"]
            if report is not None:
                self._codes[record["name"]] = report["returncode"]
            self._given += 1
            record["report"] = None  # or what all commands have written would be kept as long as the service lives

    def _code(self, view: Any) -> int | None:
        if view.name in self._codes:
            return self._codes[view.name]
        if view.end is not None and view.start is not None and view.end.exitcode is not None:
            return int(view.end.exitcode)
        # A listener that dies takes its workers with it.
        return None if view.start is None else -signal.SIGKILL

    def dismiss(self) -> None:
        """Stop all, and wait for it; what interrupts it has the rest killed. May be called again."""
        self._link.finish()
