"""Listener, pure: the scheduler that counts cpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from taylorism._asked import check, cpus_asked, not_negative, positive
from taylorism._binding import BINDED
from taylorism._gates import Names
from taylorism._late import Late
from taylorism._limited import GATE, UNRANKED, NewLimitedScheduler, constantly, gate_of, numbered_slots, swept
from taylorism._queues import PendingQueue
from taylorism._scheduler import DOOR, Batch, Instructions, Workers
from taylorism._shares import CpuShare, Granted, share_of

TYPE_CHECKING = False  # without `typing`, a fourth of the time of our import
if TYPE_CHECKING:
    from typing import Any, ClassVar

    from taylorism import _cpus
    from taylorism._ranked import Limits
else:
    _cpus = Late("_cpus")

__all__ = ["MaxCpusScheduler"]


class MaxCpusScheduler(NewLimitedScheduler):
    """Never more than ``max_cpus`` cpus in use, each worker with as many as it asks for.

    A set asks by ``ncpus``. One that does not gets a cpu; where ``max_threads`` is set, the free cpus are shared
    equally among those that start together, remainders to the first. The number is given to the worker, if its
    class has the attribute ``ncpus``. The threads of BLAS and OpenMP are capped to it, unless the user has set
    their number.

    With ``binded``, each worker is bound to its cpus: neighbours, by socket, NUMA node and core, second
    hyperthreads last.

    Raises
    ------
    SchedulerValueError
        When it is made, if a number is out of its range; by `launchable`, if the ``ncpus`` of a set is no number.
    OSError
        When it is made with ``binded`` where processes cannot be bound (macOS).
    """

    __module__ = DOOR

    binded: bool
    max_cpus: int
    max_threads: int | None
    exclusive: Names
    shared: Names

    _footprint: ClassVar[Any] = [
        BINDED,
        GATE,
        {
            "attr": {
                "limit": {"values": ["cpus"]},
                "max_cpus": {
                    "info": "How many cpus all workers may use together; 0: all that may be used.",
                    "type": int,
                    "optional": True,
                    "default": 0,
                },
                "max_threads": {
                    "info": "How many workers may run at the same time; None: as the cpus allow.",
                    "alias": ("maxpc", "maxthreads"),
                    "type": int,
                    "optional": True,
                    "default": None,
                },
            },
        },
    ]

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        check(self, "max_cpus", "1 or more, or 0 for all usable cpus", not_negative)
        check(self, "max_threads", "1 or more, or None", positive)
        if self.max_cpus == 0:
            self.footprint_setattr("max_cpus", _cpus.usable_cpus(), auth=self._fp_auth)

    _all_tickets = numbered_slots

    def _slots(self) -> int:
        """Return how many workers may run at the same time: each has one cpu at least."""
        return self.max_cpus if self.max_threads is None else self.max_threads

    def launchable(
        self, pending_instructions: Batch, workers: Workers, report: Sequence[Any]
    ) -> tuple[Batch, Batch]:
        """Launch each one whose cpus are free beside those before it; see `BaseScheduler.launchable`."""
        free = self.max_cpus - sum(share_of(worker).ncpus for worker in workers.values())

        def take(instructions: Instructions) -> bool | None:
            nonlocal free
            if free < 1:
                return None
            asked = cpus_asked(instructions)
            fits = asked <= free
            free -= asked if fits else 0
            return fits

        room, gate = self._room(workers), gate_of(self)
        chosen, kept = swept(pending_instructions, room, gate, workers, take)
        self._mark(workers, chosen, free)
        return chosen, kept

    def queue(self) -> PendingQueue:
        """Return a queue that launches what fits, and reserves for the first what it waits for."""
        from taylorism._ranked import Ranked

        return Ranked(self._limits())

    def _limits(self) -> Limits:
        from taylorism._ranked import Limits

        return Limits(
            rank=UNRANKED,
            demand=cpus_asked,
            used=lambda worker: share_of(worker).ncpus,
            capacity=constantly(self.max_cpus),
            room=self._room,
            mark=self._mark,
            gate=gate_of(self),
        )

    def _mark(self, workers: Workers, launch: Batch, spare: float) -> None:
        """Give tickets, hooks, and cpus: those that ask for none share what is left."""
        self._assign_tickets(workers, launch)
        left = int(spare) if self.max_threads is not None else 0
        sharing = [each for each in launch if each.get("ncpus") is None]
        for place, instructions in enumerate(sharing):
            more = -(-left // (len(sharing) - place))  # rounded up: remainders to the first
            instructions["ncpus"] = Granted(1 + max(more, 0))
            left -= max(more, 0)
        self._give_cpus(workers, launch)

    def _give_cpus(self, workers: Workers, launch: Batch) -> None:
        taken = {cpu for worker in workers.values() for cpu in share_of(worker).cpus}
        free = [cpu for cpu in _cpus.compact() if cpu not in taken] if self.binded and launch else []
        for instructions in launch:
            ncpus = cpus_asked(instructions)
            cpus, free = tuple(free[:ncpus]), free[ncpus:]
            instructions["scheduler_hooks"].append(CpuShare(ncpus, cpus))

    def never_startable(self, instructions: Mapping[str, Any]) -> str | None:
        """Tell why a set does not even fit alone; see `BaseScheduler.never_startable`."""
        asked = cpus_asked(instructions)
        if asked <= self.max_cpus:
            return None
        return f"it asks for ncpus={asked}, and max_cpus is {self.max_cpus}: raise max_cpus, or ask for less"
