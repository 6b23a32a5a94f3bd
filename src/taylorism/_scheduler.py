"""Listener, pure: the base class of all schedulers, those of users too.

The classes of the schedulers live in modules of their own, and say that they are of `taylorism.schedulers`
(`DOOR`): footprints reads that when a class is made, and pickle when it looks for it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, repeat

import footprints

from taylorism._queues import PendingQueue

TYPE_CHECKING = False  # without `typing`, a fourth of the time of our import
if TYPE_CHECKING:
    from typing import Any, ClassVar

__all__ = ["DOOR", "BaseScheduler", "Batch", "Hook", "Instructions", "Workers"]

#: The module where all schedulers are to be found.
DOOR = "taylorism.schedulers"

if TYPE_CHECKING:
    #: One set of instructions, and a batch of them.
    Instructions = dict[str, Any]
    Batch = list[Instructions]
    #: The workers that are running, by name.
    Workers = Mapping[str, Any]
    #: What is called with a worker, in its process, before its task.
    Hook = Callable[[Any], Any]
else:
    Instructions, Batch, Workers, Hook = dict, list, Mapping, Callable


class BaseScheduler(footprints.FootprintBase):  # type: ignore[misc] # footprints has no types
    """Base class of all schedulers: inherit from it and override `launchable` to write your own.

    A subclass has ``_abstract = False`` (the default) and a footprint with at least one mandatory
    attribute, by which ``footprints.proxy.scheduler(...)`` recognises it.
    """

    __module__ = DOOR

    identity: str

    _abstract = True
    _collector = ("scheduler",)
    _footprint: ClassVar[Any] = {
        "attr": {
            "identity": {
                "info": "A name for this scheduler.",
                "optional": True,
                "default": "anonymous",
            },
        },
    }

    def launchable(
        self, pending_instructions: Batch, workers: Workers, report: Sequence[Any]
    ) -> tuple[Batch, Batch]:
        """Split what is pending into what may start now and what has to wait.

        It is asked at every event, and for schedulers of users 10 times a second at least while
        something is pending, so it may also depend on the clock.

        Parameters
        ----------
        pending_instructions : list of dict
            What is to be done, in order.
        workers : dict
            The `Worker` objects that are running, by name.
        report : list of dict
            The records of the workers that are done, in the order of completion.

        Returns
        -------
        launch, keep : tuple of two lists of dict
            What starts now, in order, and what is asked about again later.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no launchable() method: "
            "it has to override the one of BaseScheduler, and return the lists (launch, keep)"
        )

    def queue(self) -> PendingQueue | None:
        """Return a new queue for what is pending, or None: then `launchable` is asked instead.

        Override it for a scheduler that stays fast with very many sets: see `taylorism.schedulers.PendingQueue`.
        A class that overrides `launchable`, and not this, is asked for `launchable`.
        """
        return None

    def never_startable(self, instructions: Mapping[str, Any]) -> str | None:
        """Tell why a set of instructions can never start under this scheduler.

        Asked for each set when it comes in, as long as `launchable` is one of this module, or the scheduler has
        a `queue`: a subclass with a `launchable` of its own has rules of its own.

        Parameters
        ----------
        instructions : dict
            The set of instructions.

        Returns
        -------
        str or None
            A sentence for the user: what is wrong and what to do. None: it can start.

        Raises
        ------
        SchedulerValueError
            Where `launchable` would raise it for a value in these instructions.
        """
        return None

    def _all_tickets(self) -> set[Any]:
        """Return all the slots there are, ``{None}`` when slots have no meaning here."""
        return {None}

    def _free_tickets(self, taken: set[Any]) -> Iterable[Any]:
        """Return the slots that are not taken, the lowest first."""
        return sorted(self._all_tickets() - taken)

    def _workers_hooks(self) -> list[Hook]:
        """Return a new list of what every worker calls, with itself, before its task."""
        return []

    def _assign_tickets(self, workers: Workers, launchable: Batch) -> Batch:
        """Give each set that is to be launched its slot and its hooks, in place.

        Parameters
        ----------
        workers : dict
            The workers that are running: their slots are taken.
        launchable : list of dict
            What is to be launched.

        Returns
        -------
        list of dict
            The list `launchable` itself, each of its dicts with a ``scheduler_ticket`` (the lowest
            one that is free, None when none is left) and ``scheduler_hooks``.
        """
        if launchable:
            taken = {worker.scheduler_ticket for worker in workers.values()}
            free = chain(self._free_tickets(taken), repeat(None))
            hooks = self._workers_hooks
            for instructions, ticket in zip(launchable, free, strict=False):
                # One by one: `update` with keywords takes half as long again, which counts where all start at once.
                instructions["scheduler_ticket"] = ticket
                instructions["scheduler_hooks"] = hooks()
        return launchable

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Become a scheduler again in the process that this one was sent to.

        footprints knows an attribute without a value by the identity of a marker, which does not
        survive pickling: such an attribute would read as the text of the marker, not as None.
        """
        marker = footprints.UNKNOWN
        attributes = {
            key: marker if isinstance(value, str) and value == marker else value
            for key, value in state.get("_attributes", {}).items()
        }
        super().__setstate__({**state, "_attributes": attributes})
