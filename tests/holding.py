"""Tools of the tests of `_lease`, `_hold` and what is built on them: memory that files take, forks that wait."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import forked
import workers

from taylorism._hold import Hold

PAGE = os.sysconf("SC_PAGESIZE")
MIB = 2**20


def taken(*descriptors: int) -> int:
    """Return the bytes of memory that files take."""
    return sum(512 * os.fstat(each).st_blocks for each in descriptors)


@contextmanager
def hold_of_two() -> Iterator[Hold]:
    """Give a hold in which nothing is left at the end."""
    made = Hold([os.memfd_create("test") for _ in range(2)])
    yield made
    gc.collect()
    assert taken(*made.descriptors) == 0
    made.close()


def taken_by(boss: Any, lanes: slice = slice(None)) -> int:
    """Return what is in the hold of a Boss that has not been closed."""
    descriptors = boss._link._hold.descriptors[lanes]
    assert descriptors, "the hold is closed"
    return taken(*descriptors)


def given_back(boss: Any, lanes: slice = slice(None)) -> bool:
    """Wait until nothing is in the hold of a Boss."""
    return bool(workers.until(lambda: taken_by(boss, lanes) == 0, "memory to be given back", 5.0))


@contextmanager
def child(function: Callable[[], Any]) -> Iterator[int]:
    """Have a fork that calls `function` at the end of the block, which has to return something true."""
    reader, writer = os.pipe()

    def wait_and_call() -> None:
        os.close(writer)
        os.read(reader, 1)
        assert function()

    pid = forked.fork(wait_and_call)
    os.close(reader)
    try:
        yield pid
    finally:
        os.close(writer)
        code = forked.exit_code(pid)
    assert code == 0, "the fork saw something else"
