"""Main: `PoolProcess`, where each job has the number of processors that it asks for."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from taylorism.compat._joberrors import MPISizeError, whole
from taylorism.compat._jobprocess import JobFolderProcess
from taylorism.compat._jobworker import LargestFirstScheduler

__all__ = ["PoolProcess"]


class PoolProcess(JobFolderProcess):
    """Runs the jobs of a folder, each with the number of processors that it asks for.

    As many jobs run at the same time as there are processors for: whenever some are free, the largest job that fits
    starts, and so on.

    Parameters
    ----------
    jobfolder, outdir, maxtrials, keepalive, **kwargs
        As for `JobFolderProcess`.
    processalloc : callable or int
        Returns for a job, an element of `jobfolder`, how many processors it asks for; asked once for each job. Or
        that number, the same for all jobs.
    nbpools : int, optional
        How many jobs run at the same time, at most.

    Raises
    ------
    BadInstructions, BadOption
        As by `JobFolderProcess`; or `processalloc` is, or has returned, no number of processors.
    """

    __module__ = "taylorism.compat.jobfolder"

    def __init__(
        self,
        jobfolder: Any,
        outdir: str | os.PathLike[str],
        processalloc: Callable[[Any], int] | int,
        maxtrials: int = 1,
        keepalive: bool = False,
        *,
        nbpools: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(jobfolder, outdir, maxtrials, 1 if nbpools is None else nbpools, keepalive, **kwargs)
        self._limited = nbpools is not None
        self.processalloc = processalloc
        self._alloc = self._asked_by(self._list.jobs)

    def _asked_by(self, jobs: dict[Any, Any]) -> dict[Any, int]:
        alloc = self.processalloc
        return {
            name: whole(alloc(job) if callable(alloc) else alloc, f"processalloc, for job {name!r},")
            for name, job in jobs.items()
        }

    def _demand(self, name: Any) -> int:
        return self._alloc[name]

    def _scheduler(self, cpus: int) -> Any:
        most = self.nbpools if self._limited else None
        return LargestFirstScheduler(limit="cpus", packing="largest first", max_cpus=cpus, max_threads=most)

    def _admit(self, jobs: dict[Any, Any]) -> None:
        before, self._alloc = self._alloc, {**self._alloc, **self._asked_by(jobs)}
        try:
            if self._boss is not None:
                self._check_sizes(jobs, self._cpus)
        except MPISizeError:
            self._alloc = before
            raise
