"""Listener process, pure: the schedulers, which say what pending instructions may start now.

A scheduler has one method that matters, ``launchable(pending_instructions, workers, report)``. It
is given what is to be done (a list of dicts), what is being done (the `Worker` objects, a dict by
name) and what is done (the list of records), and returns two lists: what to launch now, what to
keep for later. Its own parameters are given when it is made, by footprints::

    import footprints

    scheduler = footprints.proxy.scheduler(limit="threads", max_threads=4)

===================================================  ============================  ==============
keys                                                 class                         limited
===================================================  ============================  ==============
``nosort=True``                                      `NewLaxistScheduler`          nothing
``limit='threads', max_threads=n``                   `NewMaxThreadsScheduler`      slots
``limit='memory'``                                   `NewMaxMemoryScheduler`       memory
``limit='threads+memory', max_threads=n``            `LongerFirstScheduler`        slots, memory
``limit='cpus'``                                     `MaxCpusScheduler`            cpus
``limit='threads', singlefile=True, max_threads=n``  `NewSingleOpenFileScheduler`  slots, files
===================================================  ============================  ==============

The three limits take ``exclusive=('attribute', ...)`` and ``shared=('attribute', ...)``: the values of those
attributes may be held by one running worker at a time, or by several readers.

A Boss asks a scheduler for a `queue`, and where it has one asks that (see `_queues`): so much for each launch,
however much is pending, and nobody starves. `launchable` is for those who call it, and for subclasses that override
it. The rules that all its versions in this module keep:

* they decide on their arguments alone: no clock, no system call, nothing remembered from turn to
  turn. What the machine is like (cpus, memory) is found out once, when they are made;
* the list that they are given is never modified, nor are the dicts that they keep. A dict that is
  launched gets two more keys, ``scheduler_ticket`` and ``scheduler_hooks``;
* what is kept stays in the order in which it came (by `LongerFirstScheduler`: in its own order);
* a turn is one pass over what is pending, and it ends as soon as nothing more can start.
"""

from __future__ import annotations

import functools
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain, repeat
from typing import Any, ClassVar, TypeVar

import footprints

from taylorism import _caps, _cpus, _memory
from taylorism._errors import SchedulerError, quote
from taylorism._gates import Gate, Holdings, Names
from taylorism._queues import Fifo, PendingQueue
from taylorism._ranked import Limits, Ranked
from taylorism._shares import CpuShare, Granted, share_of

__all__ = [
    "MAX_NUMBER_PROCESSES",
    "BaseScheduler",
    "BindingAwareScheduler",
    "LaxistScheduler",
    "LongerFirstScheduler",
    "MaxCpusScheduler",
    "MaxMemoryScheduler",
    "MaxThreadsScheduler",
    "NewLaxistScheduler",
    "NewLimitedScheduler",
    "NewMaxMemoryScheduler",
    "NewMaxThreadsScheduler",
    "NewSingleOpenFileScheduler",
    "PendingQueue",
    "SchedulerValueError",
    "SingleOpenFileScheduler",
    "binding_setup",
]

logger = logging.getLogger(__name__)

#: How many slots a scheduler has that limits the memory only.
MAX_NUMBER_PROCESSES = 512

#: One set of instructions, and a batch of them.
Instructions = dict[str, Any]
Batch = list[Instructions]
#: The workers that are running, by name.
Workers = Mapping[str, Any]
#: What is called with a worker, in its process, before its task.
Hook = Callable[[Any], Any]

#: The part of a dict that an error message quotes, in characters.
_QUOTED = 500


class SchedulerValueError(SchedulerError, ValueError):
    """A scheduler cannot work with a value that it was given: correct that value.

    Attributes
    ----------
    key : str
        What the value was given for (``max_threads``, ``memory``, ...).
    """

    key: str


# --------------------------------------------------------------------------------------------------
# The base class


class BaseScheduler(footprints.FootprintBase):  # type: ignore[misc] # footprints has no types
    """Base class of all schedulers: inherit from it and override `launchable` to write your own.

    A subclass has ``_abstract = False`` (the default) and a footprint with at least one mandatory
    attribute, by which ``footprints.proxy.scheduler(...)`` recognises it.
    """

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
            free = chain(sorted(self._all_tickets() - taken), repeat(None))
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


class NewLaxistScheduler(BaseScheduler):
    """Holds nothing back: all that is pending starts at once."""

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
        return Fifo(_constantly(math.inf), self._assign_tickets)


# --------------------------------------------------------------------------------------------------
# Binding

#: The footprint of what `BindingAwareScheduler` looks at.
_binded_fpattr = footprints.Footprint(
    info="For schedulers that can bind their workers.",
    attr={
        "binded": {
            "info": "Bind each worker to one cpu.",
            "type": bool,
            "optional": True,
            "default": False,
        },
    },
)


def binding_setup(worker: Any) -> None:
    """Bind the process of a worker to the cpu of its slot; called in that process, by the worker.

    The threads of BLAS and OpenMP in it are capped to one, unless the user has set their number.

    Parameters
    ----------
    worker : Worker
        Its ``scheduler_ticket`` counts the cpus that this process may use, one socket after the
        other, physical cores first (see `taylorism._cpus.socketpacked`), and starts again from
        the first when they are used up. Without a ticket nothing is bound.

    Raises
    ------
    OSError
        On a system that cannot bind a process to a cpu (macOS).
    """
    if worker.scheduler_ticket is None:
        logger.warning("Worker %s has no slot: it is not bound to a cpu.", worker.name)
        return
    _cpus.require_affinity()
    cpus = _cpus.socketpacked()
    _cpus.bind(cpus[worker.scheduler_ticket % len(cpus)])
    if getattr(worker, "_parent_pid", os.getpid()) != os.getpid():  # not where somebody else binds himself by it
        _caps.cap_threads(1)


_Class = TypeVar("_Class", bound=type)


def BindingAwareScheduler(cls: _Class) -> _Class:
    """Make the workers of a scheduler class bind themselves when its ``binded`` attribute is true.

    Parameters
    ----------
    cls : type
        A scheduler class; its footprint should have the attribute ``binded``.

    Returns
    -------
    type
        The same class: its ``_workers_hooks`` adds `binding_setup` to what it returned before.
    """
    original: Callable[[Any], list[Hook]] = cls._workers_hooks  # type: ignore[attr-defined]

    def _workers_hooks(self: Any) -> list[Hook]:
        """Return the hooks of the class, and the one that binds if that is wanted."""
        hooks = original(self)
        # A class may be decorated whose parent was: once is enough.
        if getattr(self, "binded", False) and binding_setup not in hooks:
            hooks.append(binding_setup)
        return hooks

    cls._workers_hooks = _workers_hooks  # type: ignore[attr-defined]
    return cls


# --------------------------------------------------------------------------------------------------
# Numbers that users give


def _refusal(key: str, value: object, owner: str, accepted: str) -> SchedulerValueError:
    """Return the error that says whose value is wrong, what it is and what may be given."""
    text = f"{owner}: {key}={quote(value, _QUOTED)} is refused: it has to be {accepted}"
    return SchedulerValueError(text, key=key)


def _number(instructions: Mapping[str, Any], key: str, default: float, accepted: str) -> float:
    """Return a number out of a set of instructions, `default` when it is not there or None."""
    value = instructions.get(key)
    if value is None:
        return default
    number = value if type(value) is float else _float(value)
    if math.isnan(number):
        raise _refusal(key, value, _whose(instructions), accepted)
    return number


def _float(value: Any) -> float:
    """Return a value as a number, NaN when it is none."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _whose(instructions: Mapping[str, Any]) -> str:
    """Return whose instructions these are, for an error message."""
    name = instructions.get("name")
    named = f"of worker {quote(name, _QUOTED)} " if name is not None else ""
    return f"instructions {named}{quote(instructions, _QUOTED)}"


def _expected_time(instructions: Mapping[str, Any]) -> float:
    """Return how long a set says that it takes (s); below 0 is a way to ask to be the last."""
    return _number(instructions, "expected_time", 0.0, "a number of seconds, or left out")


def _asked(instructions: Mapping[str, Any], undeclared: float) -> float:
    """Return the memory that a set of instructions counts for (MiB)."""
    accepted = "a number of MiB, 0 or more, or left out (it then counts memory_per_task)"
    asked = _number(instructions, "memory", undeclared, accepted)
    if asked < 0:
        raise _refusal("memory", instructions["memory"], _whose(instructions), accepted)
    return asked


# --------------------------------------------------------------------------------------------------
# Limited by slots


class NewLimitedScheduler(BaseScheduler):
    """Base class of the schedulers that respect a limit: of slots, of memory, or both."""

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

    def _room(self, workers: Workers) -> Any:
        """Return how many slots are free."""
        return max(self._slots() - len(workers), 0)

    def _mark(self, workers: Workers, launch: Batch, spare: float) -> None:
        """Give tickets and hooks; `spare` is what else may be given out."""
        self._assign_tickets(workers, launch)


@functools.cache
def _tell(*what: str) -> None:
    """Say once what this system does not tell, and what is done instead."""
    for each in what:
        logger.info("%s", each)


def _check(scheduler: BaseScheduler, key: str, accepted: str, fine: Callable[[Any], bool]) -> None:
    """Refuse an attribute that has a value and is not fine (a comparison with NaN is false)."""
    value = getattr(scheduler, key)
    if value is not None and not fine(value):
        raise _refusal(key, value, type(scheduler).__name__, accepted)


def _not_negative(value: float) -> bool:
    """Tell whether a number is 0 or more."""
    return value >= 0


def _positive(value: float) -> bool:
    """Tell whether a number is above 0."""
    return value > 0


def _gate_of(scheduler: Any) -> Gate:
    """Return what the workers of a scheduler keep each other off."""
    return Gate(Names(scheduler.exclusive or ()), Names(scheduler.shared or ()))


def _swept(
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


def _settle_max_threads(scheduler: NewMaxThreadsScheduler | LongerFirstScheduler) -> None:
    """Check the number of slots; 0 becomes half of the cpus that are usable here and now.

    1.1 let footprints map 0 to half of the cpus, as they were counted at import: before the
    program had a chance to change its affinity, and not for a 0 that came as text.
    """
    _check(scheduler, "max_threads", "1 or more, or 0 for half of the usable cpus", _not_negative)
    if scheduler.max_threads == 0:
        # The attribute is read-only, but not for its owner.
        try:
            width = _cpus.default_width()
        except ValueError as trouble:  # TAYLORISM_MAX_THREADS
            raise SchedulerValueError(str(trouble), key="max_threads") from None
        scheduler.footprint_setattr("max_threads", width, auth=scheduler._fp_auth)


#: The footprint of what may be held by one worker at a time.
_gate_fpattr = footprints.Footprint(
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
_MAX_THREADS = {
    "info": "How many workers may run at the same time; 0: half of the usable cpus, at least 1.",
    "alias": ("maxpc", "maxthreads"),
    "type": int,
}


@BindingAwareScheduler
class NewMaxThreadsScheduler(NewLimitedScheduler):
    """Never more than ``max_threads`` workers at the same time, in the order of the instructions.

    Raises
    ------
    SchedulerValueError
        When it is made, if ``max_threads`` is negative.
    """

    binded: bool
    max_threads: int
    exclusive: Names
    shared: Names

    _footprint: ClassVar[Any] = [
        _binded_fpattr,
        _gate_fpattr,
        {
            "attr": {
                "limit": {
                    "values": ["threads", "processes"],
                    "remap": {"processes": "threads"},
                },
                "max_threads": _MAX_THREADS,
            },
        },
    ]

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        _settle_max_threads(self)

    def _all_tickets(self) -> set[Any]:
        """Return the slots: as many as there may be workers."""
        return set(range(self.max_threads))

    def launchable(
        self, pending_instructions: Batch, workers: Workers, report: Sequence[Any]
    ) -> tuple[Batch, Batch]:
        """Launch the first ones, as many as slots are free; see `BaseScheduler.launchable`."""
        free, gate = self._room(workers), _gate_of(self)
        if gate:
            chosen, kept = _swept(pending_instructions, free, gate, workers, _constantly(True))
        else:
            chosen, kept = pending_instructions[:free], pending_instructions[free:]
        return self._assign_tickets(workers, chosen), kept

    def queue(self) -> PendingQueue:
        """Return a queue that launches the first ones, as `launchable` does."""
        gate = _gate_of(self)
        if not gate:
            return Fifo(self._room, self._assign_tickets)
        nothing = _constantly(0.0)
        return Ranked(Limits(_unranked, nothing, nothing, nothing, self._room, self._mark, gate))


def _constantly(value: Any) -> Callable[..., Any]:
    return lambda *args: value


#: the rank of all sets where they start in the order in which they came
_unranked = _constantly(0)


# --------------------------------------------------------------------------------------------------
# Limited by memory


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

    binded: bool
    max_memory: float
    memory_per_task: float
    memory_max_percentage: float
    measured: bool
    exclusive: Names
    shared: Names

    _footprint: ClassVar[Any] = [
        _binded_fpattr,
        _gate_fpattr,
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
        _check(self, "max_memory", "a number of MiB above 0", _positive)
        _check(self, "memory_per_task", "a number of MiB, 0 or more", _not_negative)
        _check(self, "memory_max_percentage", "a fraction above 0, such as 0.75", _positive)
        if self.max_memory is None:
            self.max_memory = self.memory_max_percentage * _machine_memory(self)

    def _all_tickets(self) -> set[Any]:
        """Return the slots: many, since the memory is what limits."""
        return set(range(MAX_NUMBER_PROCESSES))

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
            asked = _asked(instructions, undeclared)
            fits = used + asked < limit
            used += asked if fits else 0.0
            return fits

        chosen, kept = _swept(pending_instructions, math.inf, _gate_of(self), workers, take)
        return self._assign_tickets(workers, chosen), kept

    def queue(self) -> PendingQueue:
        """Return a queue that launches what fits, and reserves for the first what it waits for."""
        return Ranked(self._limits(_unranked, self._room, strict=True))

    def _limits(
        self, rank: Callable[[Instructions], Any], room: Callable[[Workers], float], strict: bool
    ) -> Limits:
        return Limits(
            rank=rank,
            demand=lambda instructions: _asked(instructions, self.memory_per_task),
            used=self._counted,
            capacity=self._capacity,
            room=room,
            mark=self._mark,
            gate=_gate_of(self),
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
        asked = _asked(instructions, self.memory_per_task)
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

    max_threads: int

    _footprint: ClassVar[Any] = {
        "attr": {
            "limit": {"values": ["threads+memory"]},
            "max_threads": _MAX_THREADS,
        },
    }

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        _settle_max_threads(self)

    def _all_tickets(self) -> set[Any]:
        """Return the slots: as many as there may be workers."""
        return set(range(self.max_threads))

    def launchable(
        self, pending_instructions: Batch, workers: Workers, report: Sequence[Any]
    ) -> tuple[Batch, Batch]:
        """Launch the longest ones that fit while slots are free; see `BaseScheduler.launchable`."""
        ordered = sorted(pending_instructions, key=_expected_time, reverse=True)
        undeclared = self.memory_per_task
        available = self._capacity(workers) - sum(map(self._counted, workers.values()))

        def take(instructions: Instructions) -> bool | None:
            nonlocal available
            if available < 0:
                return None
            asked = _asked(instructions, undeclared)
            fits = asked <= available
            available -= asked if fits else 0.0
            return fits

        chosen, kept = _swept(ordered, self._room(workers), _gate_of(self), workers, take)
        return self._assign_tickets(workers, chosen), kept

    def queue(self) -> PendingQueue:
        """Return a queue that launches the longest that fits, and reserves for the first what it waits for."""
        return Ranked(self._limits(lambda instructions: -_expected_time(instructions), self._room, strict=False))

    def never_startable(self, instructions: Mapping[str, Any]) -> str | None:
        """Tell why a set does not even fit alone; see `BaseScheduler.never_startable`."""
        _expected_time(instructions)
        asked = _asked(instructions, self.memory_per_task)
        if asked <= self.max_memory:
            return None
        return _too_big(self, instructions, asked, "may not be above")


# --------------------------------------------------------------------------------------------------
# Limited by cpus


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

    binded: bool
    max_cpus: int
    max_threads: int | None
    exclusive: Names
    shared: Names

    _footprint: ClassVar[Any] = [
        _binded_fpattr,
        _gate_fpattr,
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
        _check(self, "max_cpus", "1 or more, or 0 for all usable cpus", _not_negative)
        _check(self, "max_threads", "1 or more, or None", _positive)
        if self.max_cpus == 0:
            self.footprint_setattr("max_cpus", _cpus.usable_cpus(), auth=self._fp_auth)

    def _all_tickets(self) -> set[Any]:
        """Return the slots: as many as there may be workers."""
        return set(range(self._slots()))

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
            asked = _cpus_asked(instructions)
            fits = asked <= free
            free -= asked if fits else 0
            return fits

        room, gate = self._room(workers), _gate_of(self)
        chosen, kept = _swept(pending_instructions, room, gate, workers, take)
        self._mark(workers, chosen, free)
        return chosen, kept

    def queue(self) -> PendingQueue:
        """Return a queue that launches what fits, and reserves for the first what it waits for."""
        limits = Limits(
            rank=_unranked,
            demand=_cpus_asked,
            used=lambda worker: share_of(worker).ncpus,
            capacity=_constantly(self.max_cpus),
            room=self._room,
            mark=self._mark,
            gate=_gate_of(self),
        )
        return Ranked(limits)

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
            ncpus = _cpus_asked(instructions)
            cpus, free = tuple(free[:ncpus]), free[ncpus:]
            instructions["scheduler_hooks"].append(CpuShare(ncpus, cpus))

    def never_startable(self, instructions: Mapping[str, Any]) -> str | None:
        """Tell why a set does not even fit alone; see `BaseScheduler.never_startable`."""
        asked = _cpus_asked(instructions)
        if asked <= self.max_cpus:
            return None
        return f"it asks for ncpus={asked}, and max_cpus is {self.max_cpus}: raise max_cpus, or ask for less"


def _cpus_asked(instructions: Mapping[str, Any]) -> int:
    """Return the cpus that a set asks for, 1 if it does not say."""
    accepted = "a whole number, 1 or more, or left out"
    asked = _number(instructions, "ncpus", 1.0, accepted)
    if asked < 1 or not asked.is_integer():
        raise _refusal("ncpus", instructions["ncpus"], _whose(instructions), accepted)
    return int(asked)


# --------------------------------------------------------------------------------------------------
# Limited by files


class NewSingleOpenFileScheduler(NewMaxThreadsScheduler):
    """As `NewMaxThreadsScheduler`, and never two workers on one file at the same time.

    The files of a set or of a worker are the values of its ``fileA`` and ``fileB``; one that has
    none of them holds no file. A set that waits for a file lets those behind it pass. The general form of this is
    the attribute ``exclusive`` of the other schedulers.
    """

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


# --------------------------------------------------------------------------------------------------
# How a Boss asks


def queue_of(scheduler: Any) -> PendingQueue | None:
    """Return a queue of a scheduler that has one, unless its `launchable` was overridden below it."""
    kind, own = type(scheduler), vars(scheduler)
    if kind.__module__ == __name__ and hasattr(kind, "queue") and "launchable" not in own:
        made: PendingQueue | None = scheduler.queue()  # nearly always: nothing to look for
        return made
    ask, make = scheduler.launchable, getattr(scheduler, "queue", None)
    owner = getattr(make, "__self__", None)
    if make is None or not isinstance(owner, BaseScheduler) or getattr(ask, "__self__", None) is not owner:
        return None
    if "launchable" in vars(owner) or _depth(owner, "launchable") < _depth(owner, "queue"):
        return None
    queue = make()
    return queue if isinstance(queue, PendingQueue) else None


def _depth(owner: object, name: str) -> int:
    """Return how far above the class of an object one of its methods is defined."""
    return next(place for place, cls in enumerate(type(owner).__mro__) if name in vars(cls))


# --------------------------------------------------------------------------------------------------
# Deprecated names


class _DeprecatedScheduler:
    """A stand-in for a scheduler made by footprints, under a name from before footprints."""

    _TARGET_CLASS: type[BaseScheduler]

    def __init__(self, **attributes: Any) -> None:
        keys = ", ".join(f"{key}={value!r}" for key, value in attributes.items())
        logger.warning(
            "%s is deprecated: make the scheduler by footprints.proxy.scheduler(%s).",
            type(self).__name__,
            keys,
        )
        self._target = self._TARGET_CLASS(**attributes)

    def __getattr__(self, name: str) -> Any:
        # Only asked for what is not found here. copy and pickle look for special methods on an
        # object that is still empty: without this they would look for the target for ever.
        if name == "_target" or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(name)
        return getattr(self._target, name)


class LaxistScheduler(_DeprecatedScheduler):
    """Deprecated: ``footprints.proxy.scheduler(nosort=True)``."""

    _TARGET_CLASS = NewLaxistScheduler

    def __init__(self) -> None:
        super().__init__(nosort=True)


class MaxThreadsScheduler(_DeprecatedScheduler):
    """Deprecated: ``footprints.proxy.scheduler(limit='threads', max_threads=...)``.

    Parameters
    ----------
    max_threads : int
        As for `NewMaxThreadsScheduler`.
    """

    _TARGET_CLASS = NewMaxThreadsScheduler

    def __init__(self, max_threads: int = 0) -> None:
        super().__init__(limit="threads", max_threads=max_threads)


class MaxMemoryScheduler(_DeprecatedScheduler):
    """Deprecated: ``footprints.proxy.scheduler(limit='memory', max_memory=...)``.

    Parameters
    ----------
    max_memory_percentage : float
        The fraction of the memory that may be used.
    total_system_memory : float, optional
        The memory there is, in MiB; found out when not given.
    """

    _TARGET_CLASS = NewMaxMemoryScheduler

    def __init__(
        self, max_memory_percentage: float = 0.75, total_system_memory: float | None = None
    ) -> None:
        limit = None
        if total_system_memory is not None:
            limit = total_system_memory * max_memory_percentage
        super().__init__(
            limit="memory", max_memory=limit, memory_max_percentage=max_memory_percentage
        )


class SingleOpenFileScheduler(_DeprecatedScheduler):
    """Deprecated: ``footprints.proxy.scheduler(limit='threads', singlefile=True, ...)``.

    Parameters
    ----------
    max_threads : int
        As for `NewSingleOpenFileScheduler`.
    """

    _TARGET_CLASS = NewSingleOpenFileScheduler

    def __init__(self, max_threads: int = 0) -> None:
        super().__init__(limit="threads", max_threads=max_threads, singlefile=True)
