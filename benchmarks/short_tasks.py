"""Very many short tasks: processes that serve again, side by side in one run.

``python benchmarks/short_tasks.py [--tasks 20000] [--rounds 5]``, by hand, on a quiet machine. Each measure is
taken in a process of its own, from nothing to the last result, and then a second batch in the same processes; the
rivals take turns. joblib, mpire and Ray are measured where the interpreter has them (``pip install joblib mpire
ray``). A task of ours is a Worker, which footprints chooses and builds; one of the others is a call of a function.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

SLOTS = 2


def nothing(number: int) -> None:
    """Do nothing."""


def declare() -> None:
    """Declare a Worker that does nothing."""
    import taylorism

    class Idler(taylorism.Worker):
        """Does nothing."""

        _footprint = dict(attr=dict(idle_number=dict(type=int)))

        def _task(self, **kwargs: Any) -> None:
            """Do nothing."""

    globals()["Idler"] = Idler


def ours(tasks: int) -> Callable[[], int]:
    """Return what runs a batch on this package."""
    import footprints

    import taylorism

    declare()
    scheduler = footprints.proxy.scheduler(limit="threads", max_threads=SLOTS)
    boss: list[Any] = []
    reported = [0]

    def run() -> int:
        if not boss:
            boss.append(taylorism.Boss(scheduler=scheduler, max_tasks_per_child=None))
            boss[0].make_them_work()
        boss[0].set_instructions({}, {"idle_number": range(tasks)})
        boss[0].wait()
        reported.append(len(boss[0].get_report(interim=True)["workers_report"]))
        return reported[-1] - reported[-2]

    run.boss = boss  # type: ignore[attr-defined]
    return run


def least(tasks: int) -> Callable[[], int]:
    """Return what runs a batch by hand, with the least that a Worker each can do with.

    Forked processes are sent batches of 64 sets by `multiprocessing`; footprints makes a Worker of each, whose name
    and report come back together. There is no scheduler, no time, no way to cancel, and who dies loses 64.
    """
    import multiprocessing
    from multiprocessing import connection

    import footprints

    declare()
    context = multiprocessing.get_context("fork")

    def serve(pipe: Any) -> None:
        while batch := pipe.recv():
            made = [footprints.proxy.worker(**instructions) for instructions in batch]
            pipe.send([(worker.name, worker._task()) for worker in made])

    pipes: list[Any] = []
    for _ in range(SLOTS):
        ours, theirs = context.Pipe()
        context.Process(target=serve, args=(theirs,), daemon=True).start()
        pipes.append(ours)

    def run() -> int:
        sets = [{"idle_number": number} for number in range(tasks)]
        batches = [sets[start : start + 64] for start in range(0, tasks, 64)]
        batches.reverse()
        done: list[Any] = []
        for pipe in pipes * 2:  # so that none waits for the next
            pipe.send(batches.pop())
        while len(done) < tasks:
            for pipe in connection.wait(pipes):
                done += pipe.recv()
                if batches:
                    pipe.send(batches.pop())
        return len(done)

    return run


def executor(tasks: int) -> Callable[[], int]:
    """Return what runs a batch on the standard library's executor, one call at a time."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    pool = ProcessPoolExecutor(SLOTS, mp_context=multiprocessing.get_context("fork"))
    return lambda: len(list(pool.map(nothing, range(tasks))))


def executor_chunks(tasks: int) -> Callable[[], int]:
    """Return the same with chunks of 64, whose size is the user's to choose."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    pool = ProcessPoolExecutor(SLOTS, mp_context=multiprocessing.get_context("fork"))
    return lambda: len(list(pool.map(nothing, range(tasks), chunksize=64)))


def pool(tasks: int) -> Callable[[], int]:
    """Return what runs a batch on a `multiprocessing.Pool`, one call at a time."""
    import multiprocessing

    workers = multiprocessing.get_context("fork").Pool(SLOTS)
    return lambda: len(list(workers.imap(nothing, range(tasks))))


def joblib(tasks: int) -> Callable[[], int]:
    """Return what runs a batch on joblib, which makes batches of its own."""
    from joblib import Parallel, delayed

    return lambda: len(Parallel(n_jobs=SLOTS)(delayed(nothing)(number) for number in range(tasks)))


def mpire(tasks: int) -> Callable[[], int]:
    """Return what runs a batch on mpire, one call at a time."""
    from mpire import WorkerPool

    workers = WorkerPool(SLOTS, keep_alive=True)
    return lambda: len(workers.map(nothing, range(tasks), chunk_size=1))


def ray(tasks: int) -> Callable[[], int]:
    """Return what runs a batch on Ray."""
    import ray as package

    package.init(num_cpus=SLOTS, logging_level="error", include_dashboard=False)
    remote = package.remote(nothing)
    return lambda: len(package.get([remote.remote(number) for number in range(tasks)]))


RIVALS: dict[str, tuple[str, Callable[[int], Callable[[], int]], str]] = {
    "ours": ("this package", ours, ""),
    "least": ("by hand, the least", least, ""),
    "executor": ("ProcessPoolExecutor", executor, ""),
    "chunks": ("the same, chunksize=64", executor_chunks, ""),
    "pool": ("Pool.imap", pool, ""),
    "joblib": ("joblib, loky", joblib, "joblib"),
    "mpire": ("mpire, chunk_size=1", mpire, "mpire"),
    "ray": ("Ray", ray, "ray"),
}


def measure_here(rival: str, tasks: int) -> None:
    """Print the rates of the first batch and of the second, as one line of JSON."""
    prepare = RIVALS[rival][1]
    rates, start = [], time.perf_counter()
    run = prepare(tasks)
    for _ in range(2):
        count = run()
        rates.append(tasks / (time.perf_counter() - start))
        if count != tasks:
            raise RuntimeError(f"{tasks} tasks were given, and {count} results came back")
        start = time.perf_counter()
    print(json.dumps(rates), flush=True)
    os._exit(0)  # how long they take to leave is not measured


def measure(rival: str, tasks: int) -> list[float] | None:
    """Measure a rival in a fresh process."""
    command = [sys.executable, "-B", __file__, "--only", rival, "--tasks", str(tasks)]
    # Into a file, and in a session of its own: what a rival leaves behind would hold a pipe open.
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        status = process.wait(timeout=300)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        output.seek(0)
        said = output.read().strip().splitlines() or ["nothing said"]
    if status:
        print(f"    {RIVALS[rival][0]}: {said[-1]}", flush=True)
        return None
    rates: list[float] = json.loads(said[-1])
    return rates


def tell(taken: dict[str, list[list[float]]], which: int, title: str) -> None:
    """Print a table: medians, and ratios within the rounds."""
    print(f"\n{title} (tasks/s, more is better)\n  {'':26}{'median':>10}{'min - max':>22}{'ours / it':>11}")
    for rival, rounds in taken.items():
        rates = [each[which] for each in rounds]
        if rates:
            ratio = statistics.median(a[which] / b[which] for a, b in zip(taken["ours"], rounds, strict=True))
            spread = f"{min(rates):.0f} - {max(rates):.0f}"
            print(f"  {RIVALS[rival][0]:26}{statistics.median(rates):10.0f}{spread:>22}{ratio:11.2f}")


def scaling(rounds: int) -> None:
    """Print what a task costs among 1 000 and among 100 000 of them, in a Boss that has warmed up."""
    pairs = [(measure("ours", 1000), measure("ours", 100_000)) for _ in range(rounds)]
    times = [(1e6 / few[1], 1e6 / many[1]) for few, many in pairs if few and many]
    few, many = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(many / few for few, many in times)
    print(f"\nTime for each task: {few:.1f} us with 1 000 sets, {many:.1f} us with 100 000: ratio {ratio:.2f}")


def shares(tasks: int) -> None:
    """Print the processor time of each kind of process for a task of ours, and of the making of a Worker alone."""
    from taylorism import _hiring, _listener, _worker

    def spent(whose: int) -> float:
        usage = resource.getrusage(whose)
        return usage.ru_utime + usage.ru_stime

    def live_and_tell(self: Any, live: Callable[[Any], None] = _listener.Listener.live) -> None:
        before = spent(resource.RUSAGE_SELF)
        live(self)
        print(f"the listener        {1e6 * (spent(resource.RUSAGE_SELF) - before) / tasks:6.1f} us", flush=True)
        print(f"the workers         {1e6 * spent(resource.RUSAGE_CHILDREN) / tasks:6.1f} us", flush=True)

    _listener.Listener.live = live_and_tell  # type: ignore[method-assign]
    run = ours(tasks)
    before = spent(resource.RUSAGE_SELF)
    run()
    print(f"main                {1e6 * (spent(resource.RUSAGE_SELF) - before) / tasks:6.1f} us", flush=True)
    run.boss[0].wait_till_finished()  # type: ignore[attr-defined]
    marks = {"scheduler_ticket": 0, "scheduler_hooks": []}
    instructions = [{"idle_number": number, **marks} for number in range(tasks)]
    _worker.be_unobserved()  # as in the processes of the workers
    before = spent(resource.RUSAGE_SELF)
    for each in instructions:
        _hiring.hire(each, {})
    print(f"to make a Worker    {1e6 * (spent(resource.RUSAGE_SELF) - before) / tasks:6.1f} us", flush=True)


def main() -> None:
    """Measure all rivals in turn, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shares", action="store_true", help="only the processor time of each kind of process")
    parser.add_argument("--only", choices=RIVALS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only:
        measure_here(asked.only, asked.tasks)
    if asked.shares:
        shares(asked.tasks)
        return
    there = importlib.util.find_spec
    present = [name for name, (_, _, module) in RIVALS.items() if not module or there(module)]
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = os.getloadavg()[0]
    print(f"Python {platform.python_version()}, {cpus} cpus, load {load:.1f}; {asked.tasks} tasks, {SLOTS} slots")
    taken: dict[str, list[list[float]]] = {name: [] for name in present}
    for number in range(asked.rounds):
        order = present[number % len(present) :] + present[: number % len(present)]
        found = {name: measure(name, asked.tasks) for name in order}
        for name, rates in found.items():
            if rates is not None:
                taken[name].append(rates)
    tell(taken, 0, "From nothing to the last result")
    tell(taken, 1, "A second batch, in processes that are there")
    scaling(min(3, asked.rounds))


if __name__ == "__main__":
    main()
