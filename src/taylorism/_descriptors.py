"""Leaf, any process: file descriptors that stay out of the way of the standard streams."""

from __future__ import annotations

import fcntl
import os

__all__ = ["above_stdio"]


def above_stdio(fd: int) -> int:
    """Return a descriptor for the same file that is not 0, 1 or 2, and not inherited over an exec.

    With a standard stream closed, the system would give its number to the next descriptor, and the first
    `print` of a task would land in the middle of our frames.
    """
    if fd > 2:
        return fd
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    return moved
