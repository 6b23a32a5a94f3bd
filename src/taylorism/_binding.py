"""Listener and worker: a worker binds itself to the cpu of its slot, by a hook that its scheduler gives it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

import footprints

from taylorism._late import Late
from taylorism._scheduler import DOOR, Hook

TYPE_CHECKING = False  # without `typing`, a fourth of the time of our import
if TYPE_CHECKING:
    from typing import Any, TypeVar

    from taylorism import _caps, _cpus

    _Class = TypeVar("_Class", bound=type)
else:
    _caps = Late("_caps")
    _cpus = Late("_cpus")

__all__ = ["BINDED", "BindingAwareScheduler", "binding_setup"]

logger = logging.getLogger(DOOR)

#: The footprint of what `BindingAwareScheduler` looks at.
BINDED = footprints.Footprint(
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


# pickle finds them where they have always been
binding_setup.__module__ = BindingAwareScheduler.__module__ = DOOR
