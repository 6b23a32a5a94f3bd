"""Leaf, any process: what has to be known of shared arrays where there may be none.

Whether this thread pickles them as handles on their memory, or as values; whether it holds the lock of one. By
itself so that who sends instructions, or runs Workers, need not load what makes shared arrays, and numpy with it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

__all__ = ["by_handle", "holds_a_lock", "in_handles", "note_handed", "shared"]

#: whether this thread holds the lock of a shared array; `_robust` puts its own function in the place of this one
holds_a_lock: Callable[[], bool] = bool
#: the types of shared arrays: what one worker writes to them, all are meant to see
shared: set[type] = set()


class _Wanted(threading.local):
    handed: list[object] | None = None


_wanted = _Wanted()


@contextlib.contextmanager
def by_handle() -> Iterator[list[object]]:
    """
    Within this context, this thread copies and pickles shared arrays as handles on the same memory.

    Outside of it, `copy.deepcopy` and `pickle` give the values, as with any ndarray.

    Yields
    ------
    list
        The memories that were pickled, to be kept for as long as a handle on them is under way: a process that was
        forked after an array was made has its memory, any other takes it from the process that pickled it.
    """
    before, handed = _wanted.handed, list[object]()
    _wanted.handed = handed
    try:
        yield handed
    finally:
        _wanted.handed = before


def in_handles() -> bool:
    """Return whether this thread is within `by_handle`."""
    return _wanted.handed is not None


def note_handed(memory: object) -> None:
    """Note, within `by_handle`, that a handle on this memory was pickled."""
    if _wanted.handed is not None:
        _wanted.handed.append(memory)
