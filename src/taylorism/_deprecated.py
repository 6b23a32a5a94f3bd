"""Main and listener, pure: the names that schedulers had before footprints."""

from __future__ import annotations

import logging

from taylorism._by_memory import NewMaxMemoryScheduler
from taylorism._by_threads import NewLaxistScheduler, NewMaxThreadsScheduler, NewSingleOpenFileScheduler
from taylorism._scheduler import DOOR, BaseScheduler

TYPE_CHECKING = False  # without `typing`, a fourth of the time of our import
if TYPE_CHECKING:
    from typing import Any

__all__ = ["LaxistScheduler", "MaxMemoryScheduler", "MaxThreadsScheduler", "SingleOpenFileScheduler", "StandIn"]

logger = logging.getLogger(DOOR)


class StandIn:
    """Answers as another scheduler does, without being a footprints class, which would compete with that one.

    A subclass that overrides `launchable` is asked for that.

    Parameters
    ----------
    target : BaseScheduler
        That other one.
    """

    def __init__(self, target: BaseScheduler) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        # Only asked for what is not found here. copy and pickle look for special methods on an
        # object that is still empty: without this they would look for the target for ever.
        if name == "_target" or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(name)
        return getattr(self._target, name)


class _DeprecatedScheduler(StandIn):
    """A stand-in for a scheduler made by footprints, under a name from before footprints."""

    __module__ = DOOR

    _TARGET_CLASS: type[BaseScheduler]

    def __init__(self, **attributes: Any) -> None:
        keys = ", ".join(f"{key}={value!r}" for key, value in attributes.items())
        logger.warning(
            "%s is deprecated: make the scheduler by footprints.proxy.scheduler(%s).",
            type(self).__name__,
            keys,
        )
        super().__init__(self._TARGET_CLASS(**attributes))


class LaxistScheduler(_DeprecatedScheduler):
    """Deprecated: ``footprints.proxy.scheduler(nosort=True)``."""

    __module__ = DOOR

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

    __module__ = DOOR

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

    __module__ = DOOR

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

    __module__ = DOOR

    _TARGET_CLASS = NewSingleOpenFileScheduler

    def __init__(self, max_threads: int = 0) -> None:
        super().__init__(limit="threads", max_threads=max_threads, singlefile=True)
