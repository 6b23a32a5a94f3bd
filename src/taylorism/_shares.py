"""Listener and worker: the cpus that one worker is given, as a hook that it calls in its process.

The hook is also how the scheduler knows, without remembering anything, which cpus a running worker has.
"""

from __future__ import annotations

from taylorism._late import Late

TYPE_CHECKING = False  # without `typing`, a fourth of the time of our import
if TYPE_CHECKING:
    from typing import Any

    from taylorism import _caps, _cpus
else:
    _caps = Late("_caps")
    _cpus = Late("_cpus")

__all__ = ["CpuShare", "Granted", "given_share", "share_among", "share_of"]


class Granted(int):
    """A number of cpus that the scheduler gave to a set which asked for none."""


class CpuShare:
    """What a worker does about its cpus before its task: binds itself to them, and caps the threads of libraries.

    Parameters
    ----------
    ncpus : int
        How many it has.
    cpus : tuple of int
        Which, where it is to be bound; empty otherwise.
    """

    __slots__ = ("cpus", "ncpus")

    def __init__(self, ncpus: int, cpus: tuple[int, ...] = ()) -> None:
        self.ncpus = ncpus
        self.cpus = cpus

    def __call__(self, worker: Any) -> None:
        """Take the share, in the worker's process."""
        if self.cpus:
            _cpus.bind(self.cpus)
        _caps.cap_threads(self.ncpus)

    def __repr__(self) -> str:
        return f"<{self.ncpus} cpus{f': {list(self.cpus)}' if self.cpus else ''}>"


def share_of(worker: Any) -> CpuShare:
    """Return the share of a running worker; one cpu, or its `ncpus`, where another scheduler launched it."""
    for hook in getattr(worker, "scheduler_hooks", None) or ():
        if isinstance(hook, CpuShare):
            return hook
    return CpuShare(int(getattr(worker, "ncpus", None) or 1))


def given_share(worker: Any) -> int:
    """Return how many cpus the scheduler gives to a worker; 0 where it does not say."""
    return share_among(worker.scheduler_hooks)


def share_among(hooks: Any) -> int:
    """Return how many cpus are given by one of the hooks of a scheduler; 0 where none is."""
    return next((hook.ncpus for hook in hooks or () if isinstance(hook, CpuShare)), 0)
