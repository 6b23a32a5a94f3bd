"""What it costs to begin: the import of this package beside that of footprints, and the memory of an idle listener.

Each import is made in a fresh interpreter, and the interpreters take turns, so that what else the machine does
falls on all of them. The time is processor time of the import alone; a ratio is the median of those within the
rounds. Modules are those that are there afterwards. Bytecode is compiled before, into a directory of this run.

The memory is what the idle listener has written to and hence shares with nobody (``Private_Dirty``, Linux), less
that of a fork of the same main program that waits and does nothing. Run by hand: ``python benchmarks/start_up.py
[rounds]``; ``--culprits`` tells how long each module takes that footprints has not imported.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 41
IMPORTS = {
    "footprints": "import footprints",
    "taylorism": "import taylorism",
    "taylorism, Boss": "import taylorism; taylorism.Boss",
    "taylorism.util": "import taylorism.util",
}
YARDSTICK = "footprints"
TIMED = """
import sys, time
start = time.process_time()
{}
print(time.process_time() - start, len(sys.modules))
"""
LINE = "{:20} {:>9} {:>9} {:>9} {:>8}"


def fresh(code: str, cache: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a fresh interpreter, with its bytecode kept in a directory of its own."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = cache
    command = [sys.executable, *options, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


def measured(cache: str, rounds: int) -> dict[str, list[tuple[float, int]]]:
    """Return seconds and modules of each import in each round."""
    found: dict[str, list[tuple[float, int]]] = {title: [] for title in IMPORTS}
    for number in range(-1, rounds):  # the first compiles
        for title, code in IMPORTS.items():
            seconds, modules = fresh(TIMED.format(code), cache).stdout.split()
            if number >= 0:
                found[title].append((float(seconds), int(modules)))
    return found


def tell_imports(found: dict[str, list[tuple[float, int]]]) -> None:
    """Print the medians, and the ratios within the rounds."""
    print(LINE.format("import", "ms", "least", "ratio", "modules"))
    yardstick = [seconds for seconds, _ in found[YARDSTICK]]
    for title, taken in found.items():
        times = [seconds for seconds, _ in taken]
        ratio = statistics.median(mine / its for mine, its in zip(times, yardstick, strict=True))
        told = (f"{1000 * each:.1f}" for each in (statistics.median(times), min(times)))
        print(LINE.format(title, *told, f"{ratio:.2f}", taken[0][1]))


def tell_culprits(cache: str) -> None:
    """Print what ``-X importtime`` says of the modules that footprints has not imported, the slowest first."""
    least: dict[str, int] = {}
    for _ in range(5):
        text = fresh("import footprints\nimport taylorism", cache, "-X", "importtime").stderr
        after = text.rpartition("| footprints\n")[2]
        for micros, name in re.findall(r"import time:\s*(\d+) \|\s*\d+ \|\s*(\S+)", after):
            least[name] = min(int(micros), least.get(name, int(micros)))
    print("\nmicroseconds of each module by itself, the least of 5 runs")
    for name, micros in sorted(least.items(), key=lambda item: -item[1])[:15]:
        print(f"{micros:8} {name}")


def private_dirty(pid: int) -> float:
    """Return the pages that a process alone has written to, in MiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    found = re.search(r"Private_Dirty:\s+(\d+) kB", text)
    assert found is not None
    return int(found[1]) / 1024


def empty_child() -> tuple[int, int]:
    """Fork a child that waits for the end of a pipe; return its pid, and our end."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    return pid, writer


def tell_memory(ballast: int) -> None:
    """Print the private memory of an idle listener and of an empty child of the same main program."""
    import taylorism

    held = [str(number) for number in range(ballast)]  # objects whose counts a careless child would write to
    boss = taylorism.Boss()
    child, writer = empty_child()
    time.sleep(0.3)  # both have begun, and wait
    listener, empty = private_dirty(boss._process.pid), private_dirty(child)
    os.close(writer)
    os.waitpid(child, 0)
    boss.stop_them_working()
    boss.wait_till_finished()
    print(f"{len(held):>18} {listener:>10.1f} {empty:>10.1f} {listener - empty:>10.1f}")


def main() -> None:
    """Tell of imports, then of memory."""
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    with tempfile.TemporaryDirectory() as cache:
        tell_imports(measured(cache, numbers[0] if numbers else ROUNDS))
        if "--culprits" in sys.argv:
            tell_culprits(cache)
    if Path("/proc/self/smaps_rollup").exists():
        print("\nprivate memory, MiB")
        print(f"{'objects in main':>18} {'listener':>10} {'empty':>10} {'more':>10}")
        for ballast in (0, 1_000_000):
            tell_memory(ballast)


if __name__ == "__main__":
    main()
