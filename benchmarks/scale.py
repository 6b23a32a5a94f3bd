"""What a launch costs with few and with very many sets pending, for each scheduler; and the memory of a set.

Run by hand: ``python benchmarks/scale.py [sets]``. The sets are queued in one process, workers start and end on
paper, and only the time of the scheduler is counted. With ``--lists``, `launchable` is asked instead, as 1.1 did.
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import time
import tracemalloc
from types import SimpleNamespace
from typing import Any

import footprints

import taylorism
from taylorism import schedulers

SMALL = 1_000
LAUNCHES = 400
SCHEDULERS: dict[str, dict[str, Any]] = {
    "laxist": dict(nosort=True),
    "threads": dict(limit="threads", max_threads=8),
    "threads, exclusive": dict(limit="threads", max_threads=8, exclusive="fileA"),
    "singlefile": dict(limit="threads", max_threads=8, singlefile=True),
    "memory": dict(limit="memory", max_memory=16_000),
    "longest first": dict(limit="threads+memory", max_threads=8, max_memory=16_000),
    "cpus": dict(limit="cpus", max_cpus=16),
    "cpus, 8 slots": dict(limit="cpus", max_cpus=16, max_threads=8),
}


def sets(count: int) -> list[dict[str, Any]]:
    """Return sets of instructions that ask for different things."""
    chance = random.Random(count)
    return [
        dict(
            number=number,
            memory=float(chance.randint(500, 4000)),
            expected_time=chance.uniform(1.0, 100.0),
            ncpus=chance.randint(1, 4),
            fileA=f"file{chance.randint(0, 50)}",
        )
        for number in range(count)
    ]


def worker(instructions: dict[str, Any]) -> Any:
    """Return what a scheduler sees of a worker."""
    return SimpleNamespace(name=f"w{instructions['number']}", **instructions)


def by_queue(scheduler: Any, count: int) -> float:
    """Return the seconds of scheduling for each launch, with so many sets pending."""
    queue = schedulers.queue_of(scheduler)
    assert queue is not None
    queue.add(sets(count))
    running: dict[str, Any] = {}
    times, launched = [], 0
    while launched < LAUNCHES and len(queue):
        start = time.perf_counter()
        taken = queue.take(running, float(launched))
        times.append((time.perf_counter() - start) / max(1, len(taken)))
        for each in taken:
            running[f"w{each['number']}"] = worker(each)
            queue.started(f"w{each['number']}", each, float(launched))
        launched += len(taken)
        name = next(iter(running))
        del running[name]
        queue.ended(name)
    return statistics.median(times)


def by_lists(scheduler: Any, count: int) -> float:
    """Return the same where `launchable` is asked."""
    pending, running, times = sets(count), {}, []
    for _ in range(20):
        start = time.perf_counter()
        taken, pending = scheduler.launchable(pending, running, [])
        times.append((time.perf_counter() - start) / max(1, len(taken)))
        running.update({f"w{each['number']}": worker(each) for each in taken})
        if not (running and pending):
            break
        del running[next(iter(running))]
    return statistics.median(times)


def memory_of_a_set(count: int) -> float:
    """Return the KiB that main holds for each set of a Boss."""
    common, individual = {"deed": "none"}, {"number": range(count), "expected_time": [1.0] * count}
    tracemalloc.start()
    boss = taylorism.Boss()
    before = tracemalloc.get_traced_memory()[0]
    boss.set_instructions(common, individual)
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    until = time.monotonic() + 30
    size, larger = 0.0, listener_size(boss)
    while larger > size and time.monotonic() < until:
        time.sleep(0.5)
        size, larger = larger, listener_size(boss)
    empty = taylorism.Boss()
    there = (larger - listener_size(empty)) / count
    print(f"main {used / count / 1024:.2f} KiB, listener {there:.2f} KiB for each of {count} sets")
    for each in (boss, empty):
        each.stop_them_working()
        each.wait_till_finished()
    return used / count / 1024


def listener_size(boss: Any) -> float:
    """Return the memory that is private to the listener, in KiB."""
    from taylorism import _memory

    return 1024 * _memory.private(boss._process.pid)


def main() -> None:
    """Print a line for each scheduler."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", type=int, nargs="?", default=100_000)
    parser.add_argument("--lists", action="store_true")
    asked = parser.parse_args()
    measure = by_lists if asked.lists else by_queue
    print(f"microseconds of scheduling for each launch, {SMALL} and {asked.sets} sets pending")
    for name, keys in SCHEDULERS.items():
        scheduler = footprints.proxy.scheduler(**keys)
        rounds = [(measure(scheduler, SMALL), measure(scheduler, asked.sets)) for _ in range(3)]
        few, many = (1e6 * statistics.median(times) for times in zip(*rounds, strict=True))
        print(f"  {name:20}{few:10.1f}{many:12.1f}   x {many / few:.2f}", flush=True)
    memory_of_a_set(asked.sets)
    print(f"peak of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
