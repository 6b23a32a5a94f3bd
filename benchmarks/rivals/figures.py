"""What is measured, the same for every rival: a rival only says how it runs a list of tasks.

Each rival is a script beside this file. ``python by_hand.py empty`` measures one figure in a process
of its own and prints it as one line of JSON; ``--quick`` measures a smaller case.

numpy is imported in the figures that have arrays and in no other: the threads of its BLAS would weigh
on every fork, and hide what the rivals themselves cost.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIB = 2**20

Task = tuple[str, float]
#: Runs the tasks, so many at a time, and returns what they returned, in any order.
Run = Callable[[Sequence[Task], int], list[Any]]
#: Runs two naps of so many seconds, and returns the cpu of its listener meanwhile, in % of a core.
Idle = Callable[[float], float]


@dataclass(frozen=True)
class Sizes:
    """How much of each thing is measured."""

    workers: int = 600
    batches: int = 15
    naps: int = 40
    idle: float = 3.0
    live: int = 2048  # MiB
    beside: int = 40
    large: int = 4
    small: int = 64


FULL = Sizes()
QUICK = Sizes(workers=150, batches=5, idle=2.0, live=1024, beside=10, large=2, small=16)


def perform(task: Task) -> Any:
    """Do one task, in a worker: nothing, a nap of *size* seconds, or an array of *size* MiB."""
    kind, size = task
    if kind == "nap":
        time.sleep(size)
    return filled(size) if kind == "array" else None


def filled(size: float) -> Any:
    """Return an array of *size* MiB with every page touched."""
    import numpy as np

    return np.full(int(size * MIB) // 8, size)


def timed(run: Run, tasks: Sequence[Task], slots: int) -> float:
    """Return the seconds that *tasks* take; what they return is checked once the clock has stopped."""
    if any(kind == "array" for kind, _ in tasks):
        filled(1.0)  # numpy is imported before the clock starts, and not by every worker
    start = time.perf_counter()
    returned = run(tasks, slots)
    elapsed = time.perf_counter() - start
    wanted = sum(int(size * MIB) for kind, size in tasks if kind == "array")
    if len(returned) != len(tasks) or sum(a.nbytes for a in returned if a is not None) != wanted:
        raise RuntimeError(f"{len(tasks)} tasks were given, and {len(returned)} results came back")
    return elapsed


def empty(run: Run, sizes: Sizes) -> float:
    """Return how many empty workers run in a second, two at a time."""
    return sizes.workers / timed(run, [("empty", 0.0)] * sizes.workers, 2)


def one(run: Run, sizes: Sizes) -> float:
    """Return the time of a batch of one empty worker, in ms: the median, the first one left out."""
    times = [timed(run, [("empty", 0.0)], 2) for _ in range(sizes.batches + 1)]
    return 1000 * statistics.median(times[1:])


def naps(run: Run, sizes: Sizes) -> float:
    """Return the time of the naps of 0.1 s, four at a time, in s."""
    return timed(run, [("nap", 0.1)] * sizes.naps, 4)


def live(run: Run, sizes: Sizes) -> float:
    """Return the time per empty worker, two at a time, beside large arrays in main, in ms."""
    arrays = [filled(64.0) for _ in range(sizes.live // 64)]
    elapsed = timed(run, [("empty", 0.0)] * sizes.beside, 2)
    if any(array[-1] != 64.0 for array in arrays):
        raise RuntimeError("the arrays of main have changed")
    return 1000 * elapsed / sizes.beside


def large(run: Run, sizes: Sizes) -> float:
    """Return the speed of returned arrays of 128 MiB, in MiB/s."""
    return 128 * sizes.large / timed(run, [("array", 128.0)] * sizes.large, 2)


def small(run: Run, sizes: Sizes) -> float:
    """Return the speed of returned arrays of 1 MiB, in MiB/s."""
    return sizes.small / timed(run, [("array", 1.0)] * sizes.small, 2)


FIGURES: dict[str, Callable[[Run, Sizes], float]] = {f.__name__: f for f in (empty, one, naps, live, large, small)}


def cpu_seconds(pid: int) -> float:
    """Return the cpu used so far by a process, its threads but not its children, in s.

    The scheduler's own count, in ns: the usual one advances by ticks of 10 ms, which is 0.5 % of a
    core over the two seconds of the measure, when 0.1 % is to be seen.
    """
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def main(run: Run, idle: Idle | None = None) -> None:
    """Measure the figure named on the command line and print it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("figure", choices=[*FIGURES, "idle"])
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    sizes = QUICK if asked.quick else FULL
    value: float | None = None
    if asked.figure in FIGURES:
        value = FIGURES[asked.figure](run, sizes)
    elif idle:
        value = idle(sizes.idle)
    print(json.dumps({"figure": asked.figure, "value": value}))
