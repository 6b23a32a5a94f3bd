"""Leaf, any process: file descriptors that stay out of the way of the standard streams, and are always somebody's.

In main, a signal handler may raise between any two calls. What a system call has opened is therefore added to a
list in the same call into C, and taken out of it in the one that closes it: there is no moment in which nobody
knows of it, or in which somebody knows of a number that belongs to another file already.
"""

from __future__ import annotations

import fcntl
import os

__all__ = ["above_stdio", "close_all", "keep_above_stdio"]


def above_stdio(fd: int) -> int:
    """Return a descriptor for the same file that is not 0, 1 or 2, and not inherited over an exec.

    With a standard stream closed, the system would give its number to the next descriptor, and the first
    `print` of a task would land in the middle of our frames.
    """
    return keep_above_stdio([fd])


def keep_above_stdio(noted: list[int]) -> int:
    """Do the same with the last that was noted, in its list."""
    if noted[-1] <= 2:
        noted.extend(map(fcntl.fcntl, (noted[-1],), (fcntl.F_DUPFD_CLOEXEC,), (3,)))
        any(map(os.close, map(noted.pop, (-2,))))
    return noted[-1]


def close_all(noted: list[int]) -> None:
    """Close what was noted, and forget it; what is left when a handler raises is closed when this is repeated."""
    while noted:
        try:
            any(map(os.close, map(noted.pop, (-1,))))
        except IndexError:
            return  # another thread has closed it
