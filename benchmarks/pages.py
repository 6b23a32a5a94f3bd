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
BATCHES = 40
LINE = "{:34} {:8.2f} ms {:8.0f} faults"

#: processor seconds and page faults
Spent = tuple[float, int]

#: where listeners note what they, and their workers, have spent
noted, notes = os.pipe()


class Idler(taylorism.Worker):
    """Does nothing."""

    _footprint = dict(attr=dict(idle_number=dict(type=int)))

    def _task(self, **kwargs: Any) -> None:
        """Do nothing."""


def spent(whose: int) -> Spent:
    """Return what was spent so far."""
    usage = resource.getrusage(whose)
    return usage.ru_utime + usage.ru_stime, usage.ru_minflt


def since(before: Spent, whose: int) -> Spent:
    """Return what was spent since then."""
    seconds, faults = (later - earlier for later, earlier in zip(spent(whose), before, strict=True))
    return seconds, faults


def tell(what: str, spending: Spent, times: int) -> None:
    """Print what was spent each time."""
    seconds, faults = spending
    print(LINE.format(what, 1000 * seconds / times, faults / times), flush=True)


def live_and_note(live: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return the life of a listener that notes at its end what it spent, its birth included."""

    def wrapped(self: Any) -> None:
        live(self)
        own, workers = spent(resource.RUSAGE_SELF), spent(resource.RUSAGE_CHILDREN)
        os.write(notes, " ".join(map(str, (*own, *workers))).encode() + b"\n")

    return wrapped


def taken() -> tuple[Spent, Spent]:
    """Return what all listeners have noted since the last time: for themselves, and for their workers."""
    lines = [line.split() for line in os.read(noted, 1 << 16).decode().splitlines()]
    return (
        (sum(float(line[0]) for line in lines), sum(int(line[1]) for line in lines)),
        (sum(float(line[2]) for line in lines), sum(int(line[3]) for line in lines)),
    )


def ours(workers: int, batches: int = 1) -> None:
    """Run batches of empty workers, 2 at a time, and tell what was spent on each worker."""
    before = spent(resource.RUSAGE_SELF)
    for _ in range(batches):
        boss = taylorism.Boss(scheduler=footprints.proxy.scheduler(limit="threads", max_threads=2))
        boss.set_instructions({}, {"idle_number": range(workers)})
        boss.make_them_work()
        boss.wait_till_finished()
        boss.get_report()
    tell("here, main", since(before, resource.RUSAGE_SELF), workers * batches)
    listeners, children = taken()
    tell("here, the listener", listeners, workers * batches)
    tell("here, the worker", children, workers * batches)


def bare() -> None:
    """Fork processes that leave at once, and tell what was spent on each."""
    before = spent(resource.RUSAGE_SELF), spent(resource.RUSAGE_CHILDREN)
    for _ in range(BATCHES):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    tell("a bare fork, the parent", since(before[0], resource.RUSAGE_SELF), BATCHES)
    tell("a bare fork, the child", since(before[1], resource.RUSAGE_CHILDREN), BATCHES)


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
    _listener.Listener.live = live_and_note(_listener.Listener.live)
    ours(WORKERS)
    before = spent(resource.RUSAGE_SELF), spent(resource.RUSAGE_CHILDREN)
    by_hand()
    tell("by hand, main", since(before[0], resource.RUSAGE_SELF), WORKERS)
    tell("by hand, the process", since(before[1], resource.RUSAGE_CHILDREN), WORKERS)
    print(f"\nFor each of {BATCHES} batches of one:")
    ours(1, BATCHES)
    bare()


if __name__ == "__main__":
    main()
