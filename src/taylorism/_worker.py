"""Declared in main, built in the listener, at work in a process of its own: what users subclass.

A Worker holds no resource of the system until it works, so that one may be built just to look at its
attributes. What its process does is in `_child`.
"""

from __future__ import annotations

import logging
import os
from functools import cache, partial

import footprints

TYPE_CHECKING = False  # without `typing`, a fourth of the time of our import
if TYPE_CHECKING:
    from typing import Any, ClassVar

__all__ = ["BindedWorker", "Worker"]

_log = logging.getLogger("taylorism")

#: whether nobody but the collector observes the workers of a class; None where that is always told
_unobserved: dict[type, bool] | None = None


def be_unobserved() -> None:
    """In the listener and its workers: do not tell the collector of each, which is a third of the making of one."""
    global _unobserved
    _unobserved = {}


def is_unobserved(cls: type) -> bool:
    """Whether it is known that nobody but the collector observes the workers of a class."""
    return _unobserved is not None and _unobserved.get(cls, False)


class Worker(footprints.FootprintBase):  # type: ignore[misc]
    """Template of what does one task, in a process of its own, as its instructions say.

    Subclass it, describe the instructions as footprint attributes, and implement `_task`. Any name but
    those below is free for attributes of your own.

    Attributes
    ----------
    name : str
        Name of the worker; a uuid4 when not given. ``[attribute]`` in it is replaced by that attribute.
    memory : float
        Memory that the task will use, in MiB: for the schedulers.
    expected_time : float
        How long the task is expected to run, in seconds: for the schedulers.
    scheduler_ticket : int or None
        Slot number, given by the scheduler.
    scheduler_hooks : footprints.FPList
        Called with the worker, in its process, before the task; given by the scheduler.

    Examples
    --------
    >>> class Squarer(Worker):
    ...     _footprint = dict(attr=dict(number_to_square=dict(type=int)))
    ...     def _task(self, **kwargs):
    ...         return self.number_to_square ** 2
    """

    # footprints derives the tag of its observers and its write permission from this, when the class is made.
    __module__ = "taylorism"

    name: Any
    memory: float
    expected_time: float
    scheduler_ticket: int | None
    scheduler_hooks: Any

    __process: Any = None

    _abstract = True
    _collector = ("worker",)
    _footprint: ClassVar[Any] = dict(
        attr=dict(
            name=dict(info="Name of the worker.", optional=True, default=None, access="rwx"),
            memory=dict(
                info="Memory that the task will use (MiB).", optional=True, default=0.0, type=float
            ),
            expected_time=dict(
                info="Time that the task is expected to take (s).",
                optional=True,
                default=0.0,
                type=float,
            ),
            scheduler_ticket=dict(
                info="Slot number, given by the scheduler.", optional=True, default=None, type=int
            ),
            scheduler_hooks=dict(
                info="Called with the worker before its task, given by the scheduler.",
                optional=True,
                default=footprints.FPList(),
                type=footprints.FPList,
            ),
        )
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._parent_pid = os.getpid()
        if self.name is None:
            self.name = new_name(self._parent_pid)
        self._terminating = False
        self._messenger: Any = None

    def footprint_riseup(self) -> None:
        """Tell the observers of footprints of this worker, if there are any."""
        if _unobserved is None:
            super().footprint_riseup()
            return
        alone = _unobserved.get(type(self))
        if alone is None:
            alone = _unobserved[type(self)] = len(self._observer.observers()) < 2
        if not alone:
            super().footprint_riseup()

    def __del__(self) -> None:
        if self.__process is not None:
            self.__process.dispose()

    @property
    def _process(self) -> Any:
        """The process, which is made when it is asked for."""
        if self.__process is None:
            self.__process = _new_process(self)
        return self.__process

    @_process.setter
    def _process(self, process: Any) -> None:
        self.__process = process

    @property
    def messenger(self) -> Any:
        """What takes the report: anything with a callable ``put``."""
        return self._messenger

    @messenger.setter
    def messenger(self, messenger: Any) -> None:
        assert callable(messenger.put), "a messenger must have a method put()"
        self._messenger = messenger

    def work(self) -> None:
        """Start the worker's process; nothing happens once it was told to stop."""
        if not self._terminating:
            self._process.start()

    def bye(self) -> None:
        """Wait for the end of the worker's process; returns at once when it was never started.

        To be called by the process that started it, never by the worker itself.
        """
        self._process.join()

    def stop_working(self) -> None:
        """Ask the worker's process to stop (SIGTERM); may be repeated, before or after the start."""
        self._terminating = True
        self._process.terminate()

    def binding(self) -> list[int | None]:
        """Return the cpus to which this process is bound, ``[None]`` when it may use all of them."""
        from taylorism import _cpus

        return _cpus.affinity()

    def _work_and_communicate_prehook(self) -> None:
        """Do what must be done in the worker's process before the task; for subclasses."""

    def _task(self, **kwargs: Any) -> Any:
        """Do the task; to be implemented by subclasses.

        Returns
        -------
        object
            The report, sent back to the Boss.
        """
        raise RuntimeError(f"{type(self).__name__} does not implement _task()")


# What a Worker needs when it is built is imported then: many programs that define some build none. The listener has
# imported it before the fork: see `_listener`.


def _new_process(worker: Worker) -> Any:
    from taylorism import _child, _process

    return _process.ForkedProcess(partial(_child.run, worker))


#: names that are made and not given yet, and the process that has made them
_ready: tuple[int, list[str]] = (0, [])
#: the bits of a name that tell its version and its variant (RFC 4122, 4.1): the others, and those that are set
_KEPT, _SET = bytes.fromhex("ffffffffffff0fff3fffffffffffffff"), bytes.fromhex("00000000000040008000000000000000")
#: how many names are made at once, in a process that needs many
_AT_ONCE = 64


def new_name(pid: int) -> str:
    """Return what ``str(uuid.uuid4())`` does (RFC 4122, 4.4), in a sixth of the time and without its import.

    Parameters
    ----------
    pid : int
        This process.
    """
    global _ready
    owner, left = _ready
    if pid != owner:  # also in a fork, which would give the names that we shall give
        left = _new_names(1)
        _ready = pid, left
    try:
        return left.pop()
    except IndexError:  # another thread may have been faster, which is why nothing is asked first
        first, *others = _new_names(_AT_ONCE)
        left.extend(others)
        return first


def _new_names(count: int) -> list[str]:
    kept, added, size = *_bits(count), 16 * count
    digits = (int.from_bytes(os.urandom(size), "big") & kept | added).to_bytes(size, "big").hex()
    starts = range(0, len(digits), 32)
    return [
        f"{digits[i : i + 8]}-{digits[i + 8 : i + 12]}-{digits[i + 12 : i + 16]}-"
        f"{digits[i + 16 : i + 20]}-{digits[i + 20 : i + 32]}"
        for i in starts
    ]


@cache
def _bits(count: int) -> tuple[int, int]:
    """Return what makes version and variant of that many names, as one number."""
    return int.from_bytes(_KEPT * count, "big"), int.from_bytes(_SET * count, "big")


class BindedWorker(Worker):
    """Worker bound to the cpu of its ticket.

    .. deprecated:: 1.0.7
       Inherit from `Worker`, and make the scheduler with ``binded=True``.
    """

    __module__ = "taylorism"

    _abstract = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _log.warning(
            'The %s class is deprecated. Please use "Worker" instead, and a scheduler with binded=True.',
            type(self).__name__,
        )

    def _work_and_communicate_prehook(self) -> None:
        if self.scheduler_ticket is not None:
            from taylorism.schedulers import binding_setup

            binding_setup(self)
