"""What a launch costs with few and with very many sets pending, for each scheduler; and the memory of a set.

Run by hand: ``python benchmarks/scale.py [sets]``. The sets are queued in one process, workers start and end on
paper, and only the time of the scheduler is counted. As many sets come as are launched, so that as many are pending
all the time. With ``--drain`` none come, all are launched, and share the time: that takes some minutes. With
``--lists``, `launchable` is asked instead, as 1.1 did.

Two options tell work from waiting for memory. ``--calls`` counts the calls of functions, built-in ones too, instead
of time, which other work on the machine does not disturb. ``--cold`` goes through other memory before the first
launch: then 1 000 sets are no more in the cache of the processor than 100 000 are.

What runs is gone through at every turn; so it also tells how many workers ran. With more sets to choose from, more
of them run.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import heapq
import logging
import random
import resource
import statistics
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import footprints

import taylorism
from taylorism import schedulers

SMALL = 1_000
#: launches in which what is pending is put in order, and those after them
FIRST, LAUNCHES = 500, 400
#: sets that come while others are launched
COMING = 2 * (FIRST + LAUNCHES)
#: bytes that are more than any cache
UNCACHED = 256 << 20
Chance = random.Random
#: what a set claims, where that is the point
Claims = Callable[[Chance, int], dict[str, Any]]


def of_many(*keys: str, values: int) -> Claims:
    """Return claims on a few of so many values."""
    return lambda chance, _: {key: f"{chance.randrange(values)}" for key in keys}


def listed(several: int, values: int) -> Claims:
    """Return claims on several values at once, under one name."""
    return lambda chance, _: {"fileA": chance.sample(range(values), several)}


def licence(_: Chance, number: int) -> dict[str, Any]:
    """Return a claim on the only licence, and on an output that one other set has, too."""
    return {"fileA": "licence", "fileB": number // 2}


def readers(_: Chance, number: int) -> dict[str, Any]:
    """Return a claim on an input that many read and few write, and on an output."""
    return {"output": number, "fileA": "input"} if number % 50 == 0 else {"output": number, "fileB": "input"}


def nothing(*_: Any) -> dict[str, Any]:
    """Return no claim."""
    return {}


THREADS = dict(limit="threads", max_threads=8)
MEMORY = dict(limit="memory", max_memory=16_000)
LONGEST = dict(limit="threads+memory", max_threads=8, max_memory=16_000)
CPUS = dict(limit="cpus", max_cpus=16)
TWO = dict(exclusive=("fileA", "fileB"))
READ = dict(exclusive=("fileA", "output"), shared="fileB")
#: by name: the keys of a scheduler, and what the sets claim
CASES: dict[str, tuple[dict[str, Any], Claims]] = {
    "laxist": (dict(nosort=True), nothing),
    "threads": (THREADS, nothing),
    "memory": (MEMORY, nothing),
    "longest first": (LONGEST, nothing),
    "cpus": (CPUS, nothing),
    "cpus, 8 slots": (dict(**CPUS, max_threads=8), nothing),
    "singlefile, 51 files": (dict(**THREADS, singlefile=True), of_many("fileA", values=51)),
    "threads, 1 of 5": (dict(**THREADS, exclusive="fileA"), of_many("fileA", values=5)),
    "threads, 1 of 51": (dict(**THREADS, exclusive="fileA"), of_many("fileA", values=51)),
    "threads, 2 of 10": (dict(**THREADS, **TWO), of_many("fileA", "fileB", values=10)),
    "threads, 2 of 51": (dict(**THREADS, **TWO), of_many("fileA", "fileB", values=51)),
    "threads, 3 of 12": (dict(**THREADS, exclusive="fileA"), listed(3, values=12)),
    "threads, licence and output": (dict(**THREADS, **TWO), licence),
    "threads, readers and writers": (dict(**THREADS, **READ), readers),
    "memory, 1 of 10": (dict(**MEMORY, exclusive="fileA"), of_many("fileA", values=10)),
    "memory, 2 of 10": (dict(**MEMORY, **TWO), of_many("fileA", "fileB", values=10)),
    "memory, 3 of 12": (dict(**MEMORY, exclusive="fileA"), listed(3, values=12)),
    "memory, readers and writers": (dict(**MEMORY, **READ), readers),
    "longest first, 2 of 10": (dict(**LONGEST, **TWO), of_many("fileA", "fileB", values=10)),
    "longest first, 2 of 300": (dict(**LONGEST, **TWO), of_many("fileA", "fileB", values=300)),
    "cpus, 2 of 10": (dict(**CPUS, **TWO), of_many("fileA", "fileB", values=10)),
    "cpus, licence and output": (dict(**CPUS, **TWO), licence),
}


def sets(count: int, claims: Claims = nothing) -> list[dict[str, Any]]:
    """Return sets of instructions that ask for different things."""
    chance = random.Random(count)
    return [
        dict(
            number=number,
            memory=float(chance.randint(500, 4000)),
            expected_time=chance.uniform(1.0, 100.0),
            ncpus=chance.randint(1, 4),
            **claims(chance, number),
        )
        for number in range(count)
    ]


def worker(instructions: dict[str, Any]) -> Any:
    """Return what a scheduler sees of a worker."""
    return SimpleNamespace(name=f"w{instructions['number']}", **instructions)


def seconds(take: Callable[[], Any]) -> tuple[Any, float]:
    """Return what is taken, and the processor time of that."""
    start = time.process_time()
    taken = take()
    return taken, time.process_time() - start


def calls(take: Callable[[], Any]) -> tuple[Any, float]:
    """Return what is taken, and the calls of functions, as millionths: so they are printed."""
    profile = cProfile.Profile()
    taken = profile.runcall(take)
    return taken, sum(entry.callcount for entry in profile.getstats()) / 1e6


def cool_down() -> None:
    """Have the caches hold something else."""
    bytearray(b"0" * UNCACHED).count(b"1")


class Cost(NamedTuple):
    """Processor seconds of scheduling, or millions of calls.

    Attributes
    ----------
    usual : float
        Of a launch after the first ones, on average without the 5 % that cost most, and the 5 % that cost least.
    first : float
        Of the first launches, on average.
    longest : float
        Of a turn.
    running : float
        Workers that ran when a turn began, on average of all turns.
    """

    usual: float
    first: float
    longest: float
    running: float


def cost(turns: list[tuple[float, int]], first: int, running: float = 0.0) -> Cost:
    """Return what a launch costs, given the seconds of each turn, how many it launched, how many are the first."""
    launches, since = [], 0.0
    for seconds, launched in turns:
        since += seconds
        if launched:
            launches += [since / launched] * launched
            since = 0.0
    longest = max(seconds for seconds, _ in turns)
    if not launches[first:]:
        return Cost(statistics.mean(launches), statistics.mean(launches), longest, running)
    later = sorted(launches[first:])
    few = len(later) // 20
    usual = statistics.mean(later[few : len(later) - few])
    return Cost(usual, statistics.mean(launches[:first] or launches), longest, running)


class Bench:
    """A queue, and workers on paper."""

    def __init__(self, scheduler: Any, pending: list[dict[str, Any]]) -> None:
        queue = schedulers.queue_of(scheduler)
        assert queue is not None
        queue.add(pending)
        self.queue = queue
        self.running: dict[str, Any] = {}
        self._ends: list[tuple[float, str]] = []
        self._now = 0.0

    def take(self) -> list[dict[str, Any]]:
        """Have the scheduler decide."""
        return self.queue.take(self.running, self._now)

    def start(self, taken: list[dict[str, Any]]) -> None:
        """Start what was taken."""
        for each in taken:
            name = f"w{each['number']}"
            self.running[name] = worker(each)
            self.queue.started(name, each, self._now)
            heapq.heappush(self._ends, (self._now + each["expected_time"], name))

    def end(self) -> None:
        """Go on to the end of the next worker."""
        self._now, name = heapq.heappop(self._ends)
        del self.running[name]
        self.queue.ended(name)


def by_queue(
    scheduler: Any,
    batch: list[dict[str, Any]],
    coming: list[dict[str, Any]],
    meter: Callable[[Callable[[], Any]], tuple[Any, float]] = seconds,
    cold: bool = False,
) -> Cost:
    """Return what scheduling costs, with so many sets pending, where a queue is asked; of all where none come."""
    enough = FIRST + LAUNCHES if coming else len(batch)
    bench, turns, launched, ran = Bench(scheduler, batch), [], 0, 0
    if cold:
        cool_down()
    while launched < enough and len(bench.queue):
        ran += len(bench.running)
        taken, spent = meter(bench.take)
        turns.append((spent, len(taken)))
        bench.start(taken)
        bench.queue.add(coming[launched : launched + len(taken)])
        launched += len(taken)
        bench.end()
    return cost(turns, FIRST if coming else enough, ran / len(turns))


def by_lists(scheduler: Any, batch: list[dict[str, Any]], _: Any = None) -> Cost:
    """Return the same where `launchable` is asked."""
    pending, running, turns = batch, {}, []
    for _ in range(20):
        start = time.process_time()
        taken, pending = scheduler.launchable(pending, running, [])
        turns.append((time.process_time() - start, len(taken)))
        running.update({f"w{each['number']}": worker(each) for each in taken})
        if not (running and pending):
            break
        del running[next(iter(running))]
    return cost(turns, 0)


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


def measured(measure: Callable[..., Cost], scheduler: Any, *batches: list[dict[str, Any]]) -> Cost:
    """Measure without the garbage collector, as `timeit` does: else it is what some of the lines would show."""
    gc.collect()
    gc.disable()
    try:
        return measure(scheduler, *batches)
    finally:
        gc.enable()


def line(name: str, measure: Callable[..., Cost], many: int, times: int, coming: int) -> str:
    """Return what there is to tell of one case."""
    keys, claims = CASES[name]
    scheduler = footprints.proxy.scheduler(**keys)

    def once(size: int) -> Cost:
        batch = sets(size + coming, claims)
        return measured(measure, scheduler, batch[:size], batch[size:])

    rounds = [[once(size) for size in (SMALL, many)] for _ in range(times)]
    # The least of the rounds, as `timeit` has it: what other work on the machine adds is not the scheduler's.
    less, more = (Cost(*map(min, zip(*each, strict=True))) for each in zip(*rounds, strict=True))
    ratio = more.usual / less.usual
    return (
        f"{name:30}{1e6 * less.usual:9.1f}{1e6 * more.usual:9.1f}   x {ratio:4.2f}"
        f"{1e6 * more.first:9.1f}{1e3 * more.longest:9.1f}{less.running:9.1f}{more.running:6.1f}"
    )


def main() -> None:
    """Print a line for each scheduler."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", type=int, nargs="?", default=100_000)
    parser.add_argument("--only", default="", help="those cases whose name has this in it")
    parser.add_argument("--drain", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lists", action="store_true")
    parser.add_argument("--calls", action="store_true")
    parser.add_argument("--cold", action="store_true")
    asked = parser.parse_args()
    meter = calls if asked.calls else seconds
    measure = by_lists if asked.lists else partial(by_queue, meter=meter, cold=asked.cold)
    coming = 0 if asked.drain or asked.lists else COMING
    logging.disable(logging.WARNING)  # footprints tells that two classes would do for singlefile
    unit, thousands = ("calls", "thousands of calls") if asked.calls else ("microseconds", "milliseconds")
    print(f"{unit} of scheduling for a launch, where {SMALL} and where {asked.sets} sets were pending;")
    print(f"for one of the first {FIRST} of {asked.sets}; {thousands} of the longest turn there; workers at a time")
    for name in CASES:
        if asked.only in name:
            print(line(name, measure, asked.sets, asked.rounds, coming), flush=True)
    if not (asked.calls or asked.cold):
        memory_of_a_set(asked.sets)
    print(f"peak of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
