"""What bounds the rate of empty workers: processor time and page faults for each, beside a loop by hand.

A fork shares its pages with its parent until one of them writes, and Python writes to an object whenever it looks
at it: it counts references. So each function that runs between two forks costs some page faults, and a copied page
each, in the parent as in the child. Run by hand: ``python benchmarks/pages.py [workers]``.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
from collections.abc import Callable
from multiprocessing import connection
from typing import Any

import footprints

import taylorism
from taylorism import _listener

WORKERS = int(sys.argv[1]) if len(sys.argv) > 1 else 400
LINE = "{:34} {:8.2f} ms {:8.0f} faults"


class Idler(taylorism.Worker):
    """Does nothing."""

    _footprint = dict(attr=dict(idle_number=dict(type=int)))

    def _task(self, **kwargs: Any) -> None:
        """Do nothing."""


def spent(whose: int) -> tuple[float, int]:
    """Return processor seconds and page faults so far."""
    usage = resource.getrusage(whose)
    return usage.ru_utime + usage.ru_stime, usage.ru_minflt


def tell(what: str, before: tuple[float, int], after: tuple[float, int]) -> None:
    """Print what was spent for each worker."""
    seconds, faults = (later - earlier for later, earlier in zip(after, before, strict=True))
    print(LINE.format(what, 1000 * seconds / WORKERS, faults / WORKERS), flush=True)


def live_and_tell(live: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return the life of a listener that tells at its end what it spent."""

    def wrapped(self: Any) -> None:
        start = spent(resource.RUSAGE_SELF), spent(resource.RUSAGE_CHILDREN)
        live(self)
        tell("here, the listener", start[0], spent(resource.RUSAGE_SELF))
        tell("here, its workers", start[1], spent(resource.RUSAGE_CHILDREN))

    return wrapped


def ours() -> None:
    """Run empty workers, 2 at a time."""
    boss = taylorism.Boss(scheduler=footprints.proxy.scheduler(limit="threads", max_threads=2))
    boss.set_instructions({}, {"idle_number": range(WORKERS)})
    boss.make_them_work()
    boss.wait_till_finished()


def task(pipe: connection.Connection) -> None:
    """Do as little by hand."""
    pipe.send(("name", None))
    pipe.close()


def by_hand() -> None:
    """Run as many, with a process and a pipe each."""
    context, running, started = multiprocessing.get_context("fork"), {}, 0
    while started < WORKERS or running:
        while started < WORKERS and len(running) < 2:
            reader, writer = context.Pipe(False)
            process = context.Process(target=task, args=(writer,))
            process.start()
            writer.close()
            running[reader] = process
            started += 1
        for reader in connection.wait(list(running)):
            reader.recv()
            reader.close()
            running.pop(reader).join()


def main() -> None:
    """Print a line for each kind of process."""
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cpus; for each of {WORKERS} empty workers:")
    _listener.Listener.live = live_and_tell(_listener.Listener.live)
    before = spent(resource.RUSAGE_SELF)
    ours()
    tell("here, main", before, spent(resource.RUSAGE_SELF))
    before = spent(resource.RUSAGE_SELF), spent(resource.RUSAGE_CHILDREN)
    by_hand()
    tell("by hand, main", before[0], spent(resource.RUSAGE_SELF))
    tell("by hand, the processes", before[1], spent(resource.RUSAGE_CHILDREN))


if __name__ == "__main__":
    main()
