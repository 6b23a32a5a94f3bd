"""What a SharedNumpyArray costs beside a plain ndarray: whole arrays, elements, copies, what crosses to workers.

Both take turns on each line, in one process, and each round begins with the other one; a ratio is the median of the
ratios within the rounds. The time is processor time. Run by hand: ``python benchmarks/shared_arrays.py [MiB]
[rounds]``. Lines whose ratio is above its limit (1.10 for whole arrays, 3 for elements) are marked.

numpy.asarray of an ndarray is that very array, without any work: it is told as part of what it is used for, and by
itself among the rest, which has no limit.
"""

from __future__ import annotations

import math
import pickle
import resource
import statistics
import sys
import time
from functools import partial
from timeit import Timer
from typing import Any

import numpy as np

from taylorism._handles import by_handle
from taylorism.util import SharedNumpyArray

MIB, ROUNDS = 100, 31
LINE = "{:34} {:>11} {:>11} {:>8} {}"
#: y is a plain array
WHOLE = (
    "x + 1",
    "x * x",
    "y - x",
    "z = x; z += 1",
    "-x",
    "x > 0.5",
    "numpy.sqrt(x)",
    "numpy.add(x, x, out=y)",
    "numpy.multiply(y, 1, out=x)",
    "numpy.asarray(x).sum()",
    "x.sum()",
    "numpy.sum(x)",
    "x.max()",
    "x.mean()",
    "x.std()",
    "numpy.dot(x, x)",
    "x[::7].sum()",
    "x.copy()",
)
ELEMENTS = ("x[3, 4]", "x[3]", "x[3, 4] = 1", "x[3, 4] += 1", "x[2:4]", "x[...]")
REST = ("x.shape", "x.size", "x.dtype", "x.T", "len(x)", "x.sum()", "x + 1", "numpy.sin(x)", "numpy.asarray(x)")
COUNTED = ("numpy.asarray(x)", "z = x; z += 1", "numpy.sqrt(x, out=x)", "x.sum()", "x[::7].sum()")
CALLS = 4_000  # short, so that what else the machine does spoils few rounds


def in_turns(one: Timer, other: Timer, calls: int, rounds: int) -> tuple[float, float, float]:
    """Return the median of each, for a call, and that of the ratios of the second to the first."""
    pairs = []
    for number in range(rounds):
        order = (one, other) if number % 2 else (other, one)
        taken = {timer: timer.timeit(calls) / calls for timer in order}
        pairs.append((taken[one], taken[other]))
    middle: Any = partial(map, statistics.median)
    return (*middle(zip(*pairs, strict=True)), statistics.median(second / first for first, second in pairs))


def compare(title: str, statement: str, arrays: tuple[Any, ...], limit: float, calls: int, rounds: int) -> None:
    """Print the line of a statement: in nanoseconds, or in milliseconds where it is made once."""
    plain, shared, y = arrays
    clock = time.process_time
    timers = [Timer(statement, timer=clock, globals={"x": x, "y": y, "numpy": np}) for x in (plain, shared)]
    for timer in timers:
        timer.timeit(1)
    *times, ratio = in_turns(*timers, calls, rounds)
    unit = 1e-3 if calls == 1 else 1e-9
    mark = "" if ratio <= limit else f"above {limit:g}"
    print(LINE.format(title, *(f"{each / unit:.2f}" for each in times), f"{ratio:.2f}", mark).rstrip(), flush=True)


def whole_arrays(mib: int, rounds: int) -> None:
    """Compare work on a large array."""
    values = np.random.default_rng(1).random(mib * 2**20 // 8)
    masked = np.ma.array(values, mask=values > 0.9)
    print(LINE.format(f"{mib} MiB of float64", "plain, ms", "shared, ms", "ratio", ""))
    arrays = values.copy(), SharedNumpyArray(values), np.empty_like(values)
    for statement in WHOLE:
        compare(statement, statement, arrays, 1.10, 1, rounds)
    compare("x.sum(), masked", "x.sum()", (masked, SharedNumpyArray(masked), None), 1.10, 1, rounds)


def small_arrays(what: str, statements: tuple[str, ...], limit: float, rounds: int) -> None:
    """Compare short statements on a small array."""
    plain = np.ones((10, 10))
    arrays = plain, SharedNumpyArray(plain), None
    print("\n" + LINE.format(what, "plain, ns", "shared, ns", "ratio", ""))
    for statement in statements:
        compare(statement, statement, arrays, limit, CALLS, rounds)


def copies(mib: int) -> None:
    """Count the pages that are touched for the first time: a copy would be all those of the array."""
    shared = SharedNumpyArray(np.ones(mib * 2**20 // 8))
    pages = mib * 2**20 // resource.getpagesize()
    print(f"\nno copy: pages faulted in, of {pages} that the array has (512 at a time where they are huge)")
    for statement in COUNTED:
        timer = Timer(statement, globals={"x": shared, "numpy": np})
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        timer.timeit(1)
        print(f"{statement:34} {resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before:>8}")
    print("numpy.shares_memory(numpy.asarray(x), x[...]):", np.shares_memory(np.asarray(shared), shared[...]))
    with by_handle():
        print(f"with instructions {len(pickle.dumps(shared))} bytes are sent, of {shared.nbytes}")


def main() -> None:
    """Tell all."""
    mib, rounds = [int(word) for word in sys.argv[1:]] + [MIB, ROUNDS][len(sys.argv) - 1 :]
    whole_arrays(mib, rounds)
    small_arrays("elements of 10 x 10", ELEMENTS, 3, 2 * rounds)
    small_arrays("the rest of it", REST, math.inf, 2 * rounds)
    copies(mib)


if __name__ == "__main__":
    main()
