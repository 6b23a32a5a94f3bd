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

from taylorism._asked import SchedulerValueError
from taylorism._binding import BindingAwareScheduler, binding_setup
from taylorism._by_cpus import MaxCpusScheduler
from taylorism._by_memory import MAX_NUMBER_PROCESSES, LongerFirstScheduler, NewMaxMemoryScheduler
from taylorism._by_threads import NewLaxistScheduler, NewMaxThreadsScheduler, NewSingleOpenFileScheduler
from taylorism._deprecated import LaxistScheduler, MaxMemoryScheduler, MaxThreadsScheduler, SingleOpenFileScheduler
from taylorism._limited import NewLimitedScheduler
from taylorism._queues import PendingQueue
from taylorism._scheduler import BaseScheduler

TYPE_CHECKING = False  # without `typing`, a fourth of the time of our import
if TYPE_CHECKING:
    from typing import Any

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

# How a Boss asks


def queue_of(scheduler: Any) -> PendingQueue | None:
    """Return a queue of a scheduler that has one, unless its `launchable` was overridden below it."""
    if is_of_here(scheduler) and hasattr(type(scheduler), "queue"):
        made: PendingQueue | None = scheduler.queue()  # nearly always: nothing to look for
        return made
    ask, make = getattr(scheduler, "launchable", None), getattr(scheduler, "queue", None)
    owner = getattr(make, "__self__", None)
    if make is None or not isinstance(owner, BaseScheduler) or getattr(ask, "__self__", None) is not owner:
        return None
    if "launchable" in vars(owner) or _depth(owner, "launchable") < _depth(owner, "queue"):
        return None
    queue = make()
    return queue if isinstance(queue, PendingQueue) else None


def is_ours(asked: Any) -> bool:
    """Whether what is asked, a scheduler or its queue, is of this package, where none has a clock of its own."""
    if isinstance(asked, PendingQueue):
        return bool(vars(type(asked)).get("clockless"))
    function = getattr(asked.launchable, "__func__", None)
    kinds = type(getattr(asked.launchable, "__self__", None)).__mro__
    return any(cls.__module__ == __name__ and vars(cls).get("launchable") is function for cls in kinds)


def is_of_here(scheduler: Any) -> bool:
    """Whether a scheduler is of a class of this package, so that it runs no code of the user's."""
    return type(scheduler).__module__ == __name__ and "launchable" not in getattr(scheduler, "__dict__", ())


def _depth(owner: object, name: str) -> int:
    """Return how far above the class of an object one of its methods is defined."""
    return next(place for place, cls in enumerate(type(owner).__mro__) if name in vars(cls))
