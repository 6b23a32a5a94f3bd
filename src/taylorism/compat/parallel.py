"""Main: `epygram.untied.parallel`, from which taylorism has come, over a Boss of today.

The names and the manner of calling are those of then, the behaviour is that of `taylorism`: a script changes its
import line, and nothing else.
"""

from __future__ import annotations

import uuid
from typing import Any

from taylorism import _boss, _worker
from taylorism._deprecated import StandIn
from taylorism.schedulers import BaseScheduler, NewLaxistScheduler, NewMaxThreadsScheduler

__all__ = ["BaseScheduler", "Boss", "LaxistScheduler", "MaxThreadsScheduler", "Worker"]


class Worker(_worker.Worker):
    """What a script subclasses: a `taylorism.Worker` with one more name for one of its methods."""

    _abstract = True

    def you_are_expected(self) -> None:
        """Wait for the end of the worker's process: `bye`."""
        self.bye()


class MaxThreadsScheduler(StandIn):
    """Lets so many workers run at a time.

    Parameters
    ----------
    max_threads : int
        How many; 0 for half of the cpus that may be used, and at least 1.
    """

    def __init__(self, max_threads: int = 0) -> None:
        super().__init__(NewMaxThreadsScheduler(limit="threads", max_threads=max_threads))


class LaxistScheduler(StandIn):
    """Lets everything run at once."""

    def __init__(self) -> None:
        super().__init__(NewLaxistScheduler(nosort=True))


class Boss(_boss.Boss):
    """A `taylorism.Boss` whose name comes first, and whose report is waited for.

    Parameters
    ----------
    name : str, optional
        A uuid4 when not given.
    scheduler : object, optional
        By default a `MaxThreadsScheduler`.
    verbose : bool
        As in `taylorism.Boss`.
    **options
        What `taylorism.Boss` has besides.
    """

    def __init__(
        self, name: str | None = None, scheduler: Any = None, verbose: bool = False, **options: Any
    ) -> None:
        scheduler = MaxThreadsScheduler() if scheduler is None else scheduler
        super().__init__(scheduler, str(uuid.uuid4()) if name is None else name, verbose, **options)

    def get_report(  # type: ignore[override]  # the first argument was another one then
        self, block: bool = True, timeout: float | None = None
    ) -> dict[str, Any] | None:
        """Return the report when everything that was given is settled.

        Parameters
        ----------
        block : bool
            Wait for that; else return None while it is not.
        timeout : float, optional
            Seconds to wait at most.

        Returns
        -------
        dict or None
            As from `taylorism.Boss.get_report`; the status is ``finished`` when all is done, though more may be
            given afterwards.

        Raises
        ------
        Exception
            What a worker raised, unless it has been raised before.
        WaitTimeout
            It is not all settled in that time.
        """
        if not block and not self._is_settled():
            return None
        report = super().get_report(interim=True, block=block, timeout=timeout)
        if report is not None and report["status"] == "interim" and self._is_settled():
            report["status"] = "finished"
        return report

    def _is_settled(self) -> bool:
        self._link.receive()
        results = self._link.results
        return results.settled or results.error is not None
