"""Listener, pure: what the schedulers with a limit have in common: slots, values that are held, one pass."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Iterable
from functools import partial

import footprints

from taylorism._asked import SchedulerValueError, check, not_negative
from taylorism._gates import Gate, Holdings, Names
from taylorism._late import Late
from taylorism._scheduler import DOOR, BaseScheduler, Batch, Instructions, Workers

TYPE_CHECKING = False  # without `typing`, a fourth of the time of our import
if TYPE_CHECKING:
    from typing import Any, ClassVar

    from taylorism import _cpus, _memory
else:
    _cpus = Late("_cpus")
    _memory = Late("_memory")

__all__ = [
    "GATE",
    "MAX_THREADS",
    "UNRANKED",
    "NewLimitedScheduler",
    "constantly",
    "gate_of",
    "numbered_slots",
    "settle_max_threads",
    "swept",
]

logger = logging.getLogger(DOOR)

#: The footprint of what may be held by one worker at a time.
GATE = footprints.Footprint(
    info="For schedulers that keep workers off what others hold.",
    attr={
        "exclusive": {
            "info": "Attributes whose values (or lists of values) one running worker holds at a time.",
            "type": Names,
            "optional": True,
            "default": Names(),
        },
        "shared": {
            "info": "Attributes whose values several may hold, but nobody while one has them exclusively.",
            "type": Names,
            "optional": True,
            "default": Names(),
        },
    },
)

#: The footprint of the number of slots, of two classes that have no parent with it in common.
MAX_THREADS = {
    "info": "How many workers may run at the same time; 0: half of the usable cpus, at least 1.",
    "alias": ("maxpc", "maxthreads"),
    "type": int,
}


class NewLimitedScheduler(BaseScheduler):
    """Base class of the schedulers that respect a limit: of slots, of memory, or both."""

    __module__ = DOOR

    limit: str

    _abstract = True
    _footprint: ClassVar[Any] = {
        "attr": {
            "limit": {
                "info": "What is limited.",
                "values": ["threads", "memory", "mem", "threads+memory", "cpus"],
                "remap": {"mem": "memory"},
            },
        },
    }

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        if getattr(self, "binded", False):
            _cpus.require_affinity()
            _cpus.topology()  # read once, here: the workers inherit it (see there)
            _cpus.numa_nodes()
            _tell(*_cpus.missing(binding=True))
        if getattr(self, "measured", False):
            _tell(*_memory.missing())

    def _slots(self) -> Any:
        """Return how many workers may run at the same time, however little they take."""
        slots = getattr(self, "max_threads", None)
        return math.inf if slots is None else slots

    def _free_tickets(self, taken: set[Any]) -> Iterable[Any]:
        """Return the slots that are not taken, the lowest first."""
        if type(self)._all_tickets is not numbered_slots:
            return super()._free_tickets(taken)
        # One by one: who wants no limit gives a huge one, and there is no memory for a set of all these.
        return (slot for slot in range(self._slots()) if slot not in taken)

    def _room(self, workers: Workers) -> Any:
        """Return how many slots are free."""
        return max(self._slots() - len(workers), 0)

    def _mark(self, workers: Workers, launch: Batch, spare: float) -> None:
        """Give tickets and hooks; `spare` is what else may be given out."""
        self._assign_tickets(workers, launch)


def numbered_slots(self: NewLimitedScheduler) -> set[Any]:
    """Return the slots: as many as there may be workers; the `_all_tickets` of those that limit their number."""
    return set(range(self._slots()))


@functools.cache
def _tell(*what: str) -> None:
    """Say once what this system does not tell, and what is done instead."""
    for each in what:
        logger.info("%s", each)


def gate_of(scheduler: Any) -> Gate:
    """Return what the workers of a scheduler keep each other off."""
    return Gate(Names(scheduler.exclusive or ()), Names(scheduler.shared or ()))


def swept(
    batch: Batch, slots: float, gate: Gate, workers: Workers, take: Callable[[Instructions], bool | None]
) -> tuple[Batch, Batch]:
    """Pass once over what is pending, and return what may start and what may not.

    `take` says whether a set fits, and then counts it in; None where nothing more will fit.
    """
    held = Holdings(gate.claim(partial(getattr, worker)) for worker in workers.values() if gate)
    chosen: Batch = []
    kept: Batch = []
    for rank, instructions in enumerate(batch):
        claim = gate.claim(instructions.get)
        fits = False if held.obstacle(claim) else len(chosen) < slots and take(instructions)
        if len(chosen) >= slots or fits is None:
            kept += batch[rank:]
            break
        (chosen if fits else kept).append(instructions)
        if fits:
            held.hold(claim)
    return chosen, kept


def settle_max_threads(scheduler: Any) -> None:
    """Check the number of slots; 0 becomes half of the cpus that are usable here and now.

    1.1 let footprints map 0 to half of the cpus, as they were counted at import: before the
    program had a chance to change its affinity, and not for a 0 that came as text.
    """
    check(scheduler, "max_threads", "1 or more, or 0 for half of the usable cpus", not_negative)
    if scheduler.max_threads == 0:
        # The attribute is read-only, but not for its owner.
        try:
            width = _cpus.default_width()
        except ValueError as trouble:  # TAYLORISM_MAX_THREADS
            raise SchedulerValueError(str(trouble), key="max_threads") from None
        scheduler.footprint_setattr("max_threads", width, auth=scheduler._fp_auth)


def constantly(value: Any) -> Callable[..., Any]:
    """Return what returns that value, whatever it is asked."""
    return lambda *args: value


#: the rank of all sets where they start in the order in which they came
UNRANKED = constantly(0)
