"""taylorism, this package or 1.1.0: whichever is installed for the interpreter that runs this."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from typing import Any

import figures
import footprints

import taylorism

taylorism.Boss  # noqa: B018 - what comes with the first Boss is imported here, before the clock starts, as 1.1.0's is


class BenchmarkWorker(taylorism.Worker):
    """Perform one task; chosen by an attribute of its own, as the workers of users are."""

    _footprint = dict(
        attr=dict(
            benchmark=dict(values=["empty", "nap", "array"]),
            size=dict(type=float),
        )
    )

    def _task(self, **kwargs: Any) -> Any:
        return figures.perform((self.benchmark, self.size))


@functools.cache
def scheduler(slots: int) -> Any:
    """Return the scheduler of so many slots: the clock runs from the Boss on."""
    return footprints.proxy.scheduler(limit="threads", max_threads=slots)


def start(tasks: Sequence[figures.Task], slots: int) -> taylorism.Boss:
    """Set a Boss to work on *tasks*."""
    boss = taylorism.Boss(scheduler=scheduler(slots))
    kinds, sizes = zip(*tasks)  # noqa: B905 - of pairs
    boss.set_instructions({}, {"benchmark": list(kinds), "size": list(sizes)})
    boss.make_them_work()
    return boss


def run(tasks: Sequence[figures.Task], slots: int) -> list[Any]:
    """Run from the creation of the Boss to its report."""
    boss = start(tasks, slots)
    boss.wait_till_finished()
    return [record["report"] for record in boss.get_report()["workers_report"]]


def idle(seconds: float) -> float:
    """Watch the listener between the start of two naps and their end."""
    boss = start([("nap", seconds)] * 2, 2)
    time.sleep(0.5)
    before = figures.cpu_seconds(boss._process.pid)
    time.sleep(seconds - 1.0)
    used = figures.cpu_seconds(boss._process.pid) - before
    boss.wait_till_finished()
    return 100 * used / (seconds - 1.0)


if __name__ == "__main__":
    figures.main(run, idle)
