"""How fast big arrays come back from workers, and reach them, beside the usual ways.

Run by hand: ``python benchmarks/big_reports.py [--rounds N] [--python-1.1 PYTHON] [--json FILE]``, with the
interpreter that has this package. joblib, mpire and Ray take part if that interpreter has them, taylorism 1.1.0 if
there is an interpreter that has it. Each measure is taken in a process of its own; the rivals take turns, and each
round begins with another one.

Two tasks run at a time. The clock runs from the creation of what runs them until a number of each page of the
results has been read in main, so that nobody gains by putting the work off.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SIZE = 128  # MiB of an array
SLOTS = 2
LIMIT = 180.0  # seconds for one measure
FIGURES = {
    "reports": f"4 arrays of {SIZE} MiB, returned",
    "small reports": "64 arrays of 1 MiB, returned",
    "instructions": f"4 arrays of {SIZE} MiB, one given to each of 4 tasks",
    "common": f"1 array of {SIZE} MiB, given to each of 8 tasks",
}
RIVALS = {
    "ours": "this package",
    "pipe": "this package, the pipe (1)",
    "hand": "forks by hand (2)",
    "1.1.0": "taylorism 1.1.0",
    "pool": "Pool",
    "executor": "ProcessPoolExecutor",
    "joblib": "joblib, loky",
    "mpire": "mpire",
    "ray": "Ray (3)",
}
NOTES = """\
(1) as where the system has no shared memory without a name
(2) two at a time, each writes to a memfd that main maps: the least that a process for each array can cost
(3) its start, some seconds, is left out: the clock runs from the first task on; what it returns is read-only"""


# ---------------------------------------------------------------------------------------------------------
# one measure
# ---------------------------------------------------------------------------------------------------------


def perform(task: tuple[str, Any]) -> Any:
    """Make an array of so many MiB, or return a number that depends on each page of one that was given."""
    import numpy as np

    kind, value = task
    return np.full(value << 17, 1.0) if kind == "make" else sample(value[0])


def sample(array: Any) -> float:
    """Return the sum of one number of each page."""
    return float(array[::512].sum())


def tasks_of(figure: str) -> tuple[list[tuple[str, Any]], float]:
    """Return the tasks of a figure, and how many MiB cross."""
    if figure == "reports":
        return [("make", SIZE)] * 4, 4.0 * SIZE
    if figure == "small reports":
        return [("make", 1)] * 64, 64.0
    import numpy as np

    if figure == "common":
        return [("read", [np.full(SIZE << 17, 1.0)])] * 8, 8.0 * SIZE
    return [("read", [np.full(SIZE << 17, 1.0)]) for _ in range(4)], 4.0 * SIZE


def run_taylorism(tasks: Sequence[tuple[str, Any]]) -> list[Any]:
    """Run by this package, or by 1.1.0."""
    import footprints

    import taylorism

    class Performer(taylorism.Worker):
        _footprint = dict(attr=dict(performed=dict(values=["make", "read"]), value=dict(type=object)))

        def _task(self, **kwargs: Any) -> Any:
            return perform((self.performed, self.value))

    boss = taylorism.Boss(scheduler=footprints.proxy.scheduler(limit="threads", max_threads=SLOTS))
    kinds, values = zip(*tasks)  # noqa: B905 - of pairs
    if all(value is values[0] for value in values) and kinds[0] == "read":
        boss.set_instructions({"value": values[0]}, {"performed": list(kinds)})
    else:
        boss.set_instructions({}, {"performed": list(kinds), "value": list(values)})
    boss.make_them_work()
    boss.wait_till_finished()
    return [record["report"] for record in boss.get_report()["workers_report"]]


def run_by_pipe(tasks: Sequence[tuple[str, Any]]) -> list[Any]:
    """Run by this package as where there is no shared memory without a name."""
    from taylorism import _link

    _link.Hold.open = lambda hold: False  # type: ignore[method-assign]  # noqa: ARG005
    return run_taylorism(tasks)


def run_by_hand(tasks: Sequence[tuple[str, Any]]) -> list[Any]:
    """Fork for each task; the child writes its array to a file that main maps."""
    lanes, left, running = [os.memfd_create("lane") for _ in range(SLOTS)], list(tasks), dict[int, int]()
    found, idle, places = [], list(range(SLOTS)), dict.fromkeys(range(SLOTS), 0)
    while left or running:
        while left and idle:
            task, lane = left.pop(), idle.pop()
            running[_child(task, lanes[lane], places[lane])] = lane
        lane = running.pop(os.wait()[0])
        found.append(_mapped(lanes[lane], places[lane], tasks[0][1] << 20))
        places[lane] += tasks[0][1] << 20
        idle.append(lane)
    return found


def _child(task: tuple[str, Any], lane: int, place: int) -> int:
    pid = os.fork()
    if not pid:
        os.pwrite(lane, perform(task), place)
        os._exit(0)
    return pid


def _mapped(lane: int, place: int, size: int) -> Any:
    import mmap

    import numpy as np

    return np.frombuffer(mmap.mmap(lane, size, flags=mmap.MAP_PRIVATE, prot=3, offset=place))


def run_pool(tasks: Sequence[tuple[str, Any]]) -> list[Any]:
    """Run by the standard library's Pool."""
    with multiprocessing.get_context("fork").Pool(SLOTS) as pool:
        return pool.map(perform, tasks, chunksize=1)


def run_executor(tasks: Sequence[tuple[str, Any]]) -> list[Any]:
    """Run by the standard library's ProcessPoolExecutor."""
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(SLOTS, mp_context=multiprocessing.get_context("fork")) as executor:
        return list(executor.map(perform, tasks))


def run_joblib(tasks: Sequence[tuple[str, Any]]) -> list[Any]:
    """Run by joblib, which maps arrays that it is given from files."""
    from joblib import Parallel, delayed

    return list(Parallel(n_jobs=SLOTS)(delayed(perform)(task) for task in tasks))


def run_mpire(tasks: Sequence[tuple[str, Any]]) -> list[Any]:
    """Run by mpire."""
    from mpire import WorkerPool

    with WorkerPool(SLOTS, start_method="fork") as pool:
        arguments = [(task,) for task in tasks]
        found: list[Any] = pool.map(perform, arguments, chunk_size=1, concatenate_numpy_output=False)
    return found


def run_ray(tasks: Sequence[tuple[str, Any]]) -> list[Any]:
    """Run by Ray, whose store is started already."""
    import ray

    remote = ray.remote(_unpacked)
    references: dict[int, Any] = {}
    for _, value in tasks:
        if id(value) not in references:
            references[id(value)] = ray.put(value)
    found: list[Any] = ray.get([remote.remote(kind, references[id(value)]) for kind, value in tasks])
    return found


def _unpacked(kind: str, value: Any) -> Any:
    return perform((kind, value))


RUN: dict[str, Callable[[Sequence[tuple[str, Any]]], list[Any]]] = {
    "ours": run_taylorism,
    "pipe": run_by_pipe,
    "1.1.0": run_taylorism,
    "hand": run_by_hand,
    "pool": run_pool,
    "executor": run_executor,
    "joblib": run_joblib,
    "mpire": run_mpire,
    "ray": run_ray,
}


def prepare(rival: str) -> None:
    """Import, and start what runs for a long time, before the clock starts."""
    import numpy as np

    np.ones(1)
    if rival in ("ours", "pipe", "1.1.0"):
        import taylorism  # noqa: F401
    elif rival == "ray":
        import ray

        ray.init(num_cpus=SLOTS, logging_level="ERROR", include_dashboard=False)
        ray.get(ray.remote(_unpacked).remote("make", 0))
    elif rival in ("joblib", "mpire"):
        importlib.import_module(rival)


def measure(rival: str, figure: str) -> float:
    """Return the MiB per second of one figure of one rival."""
    prepare(rival)
    tasks, crossed = tasks_of(figure)
    start = time.perf_counter()
    found = RUN[rival](tasks)
    sums = [each if isinstance(each, float) else sample(each) for each in found]
    elapsed = time.perf_counter() - start
    expected = sum((value if kind == "make" else SIZE) * 256 for kind, value in tasks)
    if sum(sums) != expected:
        raise RuntimeError(f"the results of {rival} are wrong: {sum(sums)} instead of {expected}")
    return crossed / elapsed


# ---------------------------------------------------------------------------------------------------------
# all of them
# ---------------------------------------------------------------------------------------------------------


def measured(python: str, rival: str, figure: str) -> float | None:
    """Measure in a fresh process; None where it fails."""
    kept = {k: v for k, v in os.environ.items() if rival != "1.1.0" or not k.startswith("PYTHON")}
    command = [python, "-B", str(Path(__file__).resolve()), "--one", rival, figure]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, env=kept, check=True)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
        last = (str(error.stderr or "no answer").strip().splitlines() or ["nothing said"])[-1]
        print(f"    {RIVALS[rival]}: {last}", flush=True)
        return None
    value: float = json.loads(done.stdout.splitlines()[-1])
    return value


def there(asked: argparse.Namespace) -> list[str]:
    """Return the rivals that can take part."""
    absent = {name for name in ("joblib", "mpire", "ray") if importlib.util.find_spec(name) is None}
    absent |= set() if asked.old else {"1.1.0"}
    return [rival for rival in asked.rivals if rival not in absent]


def takes_part(rival: str, figure: str) -> bool:
    """Whether there is anything to measure: forks by hand have what they need already."""
    return rival != "hand" or "reports" in figure


def table(figure: str, rivals: Sequence[str], taken: dict[str, list[float | None]]) -> list[str]:
    """Return the lines of one figure; a ratio is the median of those within the rounds."""
    lines = [f"{FIGURES[figure]} (MiB/s, more is better)"]
    lines.append(f"  {'':28}{'median':>8}{'min - max':>16}{'ours is':>10}")
    for rival in rivals:
        values = [each for each in taken[rival] if each is not None]
        if values:
            ratios = [a / b for a, b in zip(taken["ours"], taken[rival]) if a and b]  # noqa: B905 - unfinished
            spread = f"{min(values):.0f} - {max(values):.0f}"
            ratio = f"x {statistics.median(ratios):.1f}" if ratios and rival != "ours" else ""
            lines.append(f"  {RIVALS[rival]:28}{statistics.median(values):>8.0f}{spread:>16}{ratio:>10}")
    return lines


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--figures", nargs="+", choices=FIGURES, default=list(FIGURES), metavar="FIGURE")
    parser.add_argument("--rivals", nargs="+", choices=RIVALS, default=list(RIVALS), metavar="RIVAL")
    parser.add_argument("--python-1.1", dest="old", help="an interpreter that has taylorism 1.1.0 and numpy")
    parser.add_argument("--json", type=Path, help="also write every measure to this file")
    parser.add_argument("--one", nargs=2, metavar=("RIVAL", "FIGURE"), help="measure in this process")
    return parser.parse_args()


def main() -> None:
    """Measure, and print a table for each figure."""
    asked = parse()
    if asked.one:
        print(json.dumps(measure(*asked.one)))
        return
    rivals = there(asked)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"Python {platform.python_version()}, {platform.system()} {platform.release()}, {cpus} cpus, load {load}")
    taken: dict[str, dict[str, list[float | None]]] = {f: {r: [] for r in rivals} for f in asked.figures}
    for number in range(asked.rounds):
        first = number % len(rivals)
        for figure in asked.figures:
            for rival in [*rivals[first:], *rivals[:first]]:
                python = asked.old if rival == "1.1.0" else sys.executable
                value = measured(python, rival, figure) if takes_part(rival, figure) else None
                taken[figure][rival].append(value)
    for figure in asked.figures:
        print("", *table(figure, rivals, taken[figure]), sep="\n")
    print("", NOTES, sep="\n")
    if asked.json:
        asked.json.write_text(json.dumps(taken, indent=1) + "\n")


if __name__ == "__main__":
    main()
