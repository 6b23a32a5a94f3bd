"""Compare the speed of this package with taylorism 1.1.0 and with the usual ways to run processes.

Run by hand, with the interpreter that has this package: ``python benchmarks/compare.py``. Each
figure of each rival is measured in a process of its own, one after the other, and the whole round
several times, so that what else the machine does falls on everyone. See README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE / ".cache"
IN_CACHE = ("taylorism==1.1.0", "numpy", "joblib")
TIMEOUT = 180.0  # seconds for one figure of one rival


@dataclass(frozen=True)
class Figure:
    """What is measured, as it is shown."""

    title: str
    unit: str
    more_is_better: bool
    digits: int = 1


FIGURES = {
    "empty": Figure("Empty workers, 2 at a time", "workers/s", True, 0),
    "one": Figure("Batch of one empty worker, from Boss() to the report", "ms", False, 2),
    "naps": Figure("40 naps of 0.1 s, 4 at a time", "s", False, 3),
    "idle": Figure("Cpu of the listener while two workers sleep", "% of a core", False, 3),
    "live": Figure("Time per empty worker beside 2 GiB of arrays in main", "ms", False, 2),
    "large": Figure("Returned arrays, 4 of 128 MiB", "MiB/s", True, 0),
    "small": Figure("Returned arrays, 64 of 1 MiB", "MiB/s", True, 0),
}
#: How the titles of the figures read with --quick.
QUICK_TITLES = {
    "live": "Time per empty worker beside 1 GiB of arrays in main",
    "large": "Returned arrays, 2 of 128 MiB",
    "small": "Returned arrays, 16 of 1 MiB",
}


@dataclass(frozen=True)
class Rival:
    """One way to run tasks: its script, and whether it lives in the environment of the cache."""

    title: str
    script: str
    cached: bool = False


RIVALS = {
    "ours": Rival("this package", "taylor.py"),
    "1.1.0": Rival("taylorism 1.1.0", "taylor.py", cached=True),
    "hand": Rival("loop by hand", "by_hand.py"),
    "least": Rival("same in a listener (1)", "least.py"),
    "pool": Rival("Pool(maxtasksperchild=1)", "pool.py"),
    "executor": Rival("ProcessPoolExecutor (2)", "executor.py"),
    "joblib": Rival("joblib, loky (3)", "joblib_loky.py", cached=True),
}
#: The rivals that the others are divided by.
YARDSTICKS = ("hand", "least", "1.1.0")
NOTES = """\
(1) the loop by hand in a second process, with footprints choosing the class of each task: the least of a Boss
(2) its processes serve again: max_tasks_per_child is not to be had with fork
(3) its processes are spawned afresh, with nothing of main, and serve again"""


@dataclass(frozen=True)
class Target:
    """A goal for this package: a figure, against another rival's times a factor, or absolute."""

    figure: str
    factor: float
    against: str | None = None
    strict: bool = False

    def judge(self, results: Results) -> str:
        """Return the line of this target: what was asked, what was measured, OK or short."""
        more = FIGURES[self.figure].more_is_better
        sign = (">" if more else "<") + ("" if self.strict else "=")
        if self.against:
            asked = f"{sign} {self.factor:g} x {RIVALS[self.against].title}"
            measured = results.ratio(self.figure, "ours", self.against)
        else:
            asked = f"{sign} {self.factor:g} {FIGURES[self.figure].unit}"
            measured = results.median(self.figure, "ours")
        if measured is None:
            return f"{self.figure:8}{asked:40}not measured"
        far = measured - self.factor if more else self.factor - measured
        verdict = "OK" if far > 0 or (far == 0 and not self.strict) else "short"
        return f"{self.figure:8}{asked:40}{measured:<10.3g}{verdict}"


TARGETS = (
    Target("empty", 1.0, "hand"),
    Target("empty", 5.0, "1.1.0"),
    Target("empty", 1.2, "pool"),
    Target("one", 2.0, "hand"),
    Target("naps", 1.05),
    Target("idle", 0.1),
    Target("live", 1.0, "1.1.0", strict=True),
)


class Results:
    """Every measure taken, by figure and rival; ``None`` where there was nothing to measure."""

    def __init__(self) -> None:
        self.taken: dict[str, dict[str, list[float | None]]] = {}

    def add(self, figure: str, rival: str, value: float | None) -> None:
        """Add one measure."""
        self.taken.setdefault(figure, {}).setdefault(rival, []).append(value)

    def values(self, figure: str, rival: str) -> list[float]:
        """Return what was measured."""
        return [v for v in self.taken.get(figure, {}).get(rival, []) if v is not None]

    def median(self, figure: str, rival: str) -> float | None:
        """Return the median over the rounds."""
        values = self.values(figure, rival)
        return statistics.median(values) if values else None

    def ratio(self, figure: str, rival: str, other: str) -> float | None:
        """Return the median of the ratios of each round: both met the same machine in it."""
        rounds = self.taken.get(figure, {})
        pairs = zip(rounds.get(rival, []), rounds.get(other, []))  # noqa: B905 - an unfinished round
        ratios = [mine / its for mine, its in pairs if mine is not None and its]
        return statistics.median(ratios) if ratios else None


def environment() -> dict[str, str]:
    """Return the environment of the rivals: what may lead an interpreter astray is left out."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "TAYLORISM"))}
    return dict(kept, PYTHONDONTWRITEBYTECODE="1")  # joblib's processes do not get the option -B


def cached_python() -> Path:
    """Return the interpreter that has taylorism 1.1.0 and joblib, made the first time.

    The environment is of the same Python as the running one, so that only the packages differ.
    """
    venv = CACHE / f"{sys.implementation.cache_tag}-{platform.machine()}"
    python, ready = venv / "bin" / "python", venv / "ready"
    if not ready.exists():
        print("making the environment of taylorism 1.1.0 and joblib ...", flush=True)
        CACHE.mkdir(exist_ok=True)
        (CACHE / ".gitignore").write_text("*\n")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, *IN_CACHE], check=True, env=environment())
        ready.touch()
    return python


def version(python: Path) -> str:
    """Return the version of the taylorism of an interpreter."""
    code = "import importlib.metadata as m; print(m.version('taylorism'))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, env=environment(), check=False)
    if done.returncode:
        sys.exit(f"taylorism is not installed for {python}: python -m pip install {HERE.parent}")
    return done.stdout.strip()


def measure(python: Path, rival: Rival, figure: str, quick: bool) -> float | None:
    """Measure one figure of one rival in a fresh process; ``None`` if there is none or it fails."""
    command = [str(python), "-B", str(HERE / "rivals" / rival.script), figure]
    try:
        done = subprocess.run(
            [*command, *(["--quick"] if quick else [])],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            env=environment(),
            check=True,
        )
    except subprocess.TimeoutExpired:
        print(f"    {rival.title}: no answer in {TIMEOUT:.0f} s", flush=True)
        return None
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["nothing said"])[-1]
        print(f"    {rival.title}: {last}", flush=True)
        return None
    value: float | None = json.loads(done.stdout.splitlines()[-1])["value"]
    return value


def rounds(rivals: Sequence[str], figures: Sequence[str], count: int) -> Iterator[tuple[int, str, str]]:
    """Yield what to measure in turn; each round begins with another rival, as order matters too."""
    for number in range(count):
        first = number % len(rivals)
        for figure in figures:
            for rival in [*rivals[first:], *rivals[:first]]:
                yield number, figure, rival


def measure_all(asked: argparse.Namespace, python_of: Callable[[Rival], Path]) -> Results:
    """Measure everything that was asked for."""
    results, current = Results(), -1
    for number, figure, name in rounds(asked.rivals, asked.figures, asked.rounds):
        if number != current:
            current = number
            print(f"round {number + 1} of {asked.rounds}", flush=True)
        rival = RIVALS[name]
        results.add(figure, name, measure(python_of(rival), rival, figure, asked.quick))
    return results


def cell(value: float | None, digits: int) -> str:
    """Return a number of the table, or a dash."""
    return "-" if value is None else f"{value:.{digits}f}"


def columns(cells: Sequence[str]) -> str:
    """Return the last cells of a line of the table."""
    return "".join(f"{each:>9}" for each in cells)


def table(results: Results, name: str, rivals: Sequence[str], quick: bool) -> list[str]:
    """Return the lines of one figure."""
    figure = FIGURES[name]
    title = QUICK_TITLES.get(name, figure.title) if quick else figure.title
    better = "more" if figure.more_is_better else "less"
    head = ["median", "min - max", *(f"/ {name}" for name in YARDSTICKS)]
    lines = [f"{title} ({figure.unit}, {better} is better)"]
    lines.append(f"  {'':26}{head[0]:>10}{head[1]:>22}" + columns(head[2:]))
    for rival in rivals:
        values = results.values(name, rival)
        if not values:
            continue
        spread = f"{cell(min(values), figure.digits)} - {cell(max(values), figure.digits)}"
        ratios = [cell(results.ratio(name, rival, other), 2) for other in YARDSTICKS]
        median = cell(results.median(name, rival), figure.digits)
        lines.append(f"  {RIVALS[rival].title:26}{median:>10}{spread:>22}" + columns(ratios))
    return lines


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller cases, fewer rounds")
    parser.add_argument("--rounds", type=int, help="rounds of all rivals (5; 3 if quick)")
    parser.add_argument("--rivals", nargs="+", choices=RIVALS, default=list(RIVALS), metavar="RIVAL")
    parser.add_argument("--figures", nargs="+", choices=FIGURES, default=list(FIGURES), metavar="FIGURE")
    parser.add_argument("--json", type=Path, help="also write every measure to this file")
    asked = parser.parse_args(argv)
    asked.rounds = asked.rounds or (3 if asked.quick else 5)
    return asked


def machine() -> str:
    """Return what the figures were measured on."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = " ".join(f"{load:.1f}" for load in os.getloadavg())
    return f"Python {platform.python_version()}, {platform.system()} {platform.release()}, {cpus} cpus, load {load}"


def main() -> None:
    """Measure, print the tables, then one line for each target."""
    asked = parse()
    here = Path(sys.executable)
    cached = cached_python() if any(RIVALS[name].cached for name in asked.rivals) else here
    cases = "smaller cases" if asked.quick else "full cases"
    print(f"{machine()}; this package is taylorism {version(here)}; {cases}", flush=True)
    results = measure_all(asked, lambda rival: cached if rival.cached else here)
    for name in asked.figures:
        print("", *table(results, name, asked.rivals, asked.quick), sep="\n")
    print("", NOTES, "ratios: the median over the rounds of the ratio within a round", sep="\n")
    print("", "targets", *(target.judge(results) for target in TARGETS), sep="\n")
    if asked.json:
        asked.json.write_text(json.dumps(results.taken, indent=1) + "\n")


if __name__ == "__main__":
    main()
