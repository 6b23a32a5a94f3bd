"""Leaf, any process: whether this thread pickles shared arrays as handles on their memory, or as values.

By itself so that who sends instructions need not load what makes shared arrays, and numpy with it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

__all__ = ["by_handle", "in_handles", "note_handed"]


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
