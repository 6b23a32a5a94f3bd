"""40 naps of 0.1 s, four at a time: with processes in reserve, without them, and by hand, in turns.

``python benchmarks/naps.py [--rounds 8]``, by hand, on a quiet machine. All in one program, so that a few percent
can be told from what else the machine does.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "rivals"))

import by_hand
import taylor

from taylorism import _reserve

NAPS, SLOTS = [("nap", 0.1)] * 40, 4


def without() -> None:
    """Run them with no process made ahead."""
    most, _reserve.MOST = _reserve.MOST, 0
    try:
        taylor.run(NAPS, SLOTS)
    finally:
        _reserve.MOST = most


WAYS: dict[str, Callable[[], object]] = {
    "without reserve": without,
    "with reserve": lambda: taylor.run(NAPS, SLOTS),
    "by hand": lambda: by_hand.run(NAPS, SLOTS),
}


def main() -> None:
    """Take turns, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    rounds = parser.parse_args().rounds
    taken: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name, run in WAYS.items():
            start = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - start)
    for name, times in taken.items():
        print(f"{name:16} {statistics.median(times):.3f} s   ({min(times):.3f} - {max(times):.3f})")


if __name__ == "__main__":
    main()
