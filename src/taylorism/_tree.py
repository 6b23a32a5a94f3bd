"""Leaf, any process: which processes descend from one, as the system tells it."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterable
from typing import Any

from taylorism._descriptors import above_stdio

__all__ = [
    "become_subreaper",
    "children",
    "descendants",
    "die_with_parent",
    "end_marked",
    "mark_descendants",
    "send",
]

# <linux/prctl.h>
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


#: the system call, or None where there is none (macOS); looked up here once, rather than in each child
_prctl: Any = getattr(ctypes.CDLL(None), "prctl", None)


def become_subreaper() -> bool:
    """Adopt the orphans among our descendants, so that none is out of reach.

    Returns
    -------
    bool
        Whether the system can (Linux 3.4). Elsewhere orphans go to process 1, and only those that are
        seen before their parent dies are stopped.
    """
    return _prctl is not None and _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def die_with_parent(parent: int) -> None:
    """Have the system kill this process when the thread that forked it ends.

    Only right where the parent has one thread. Without the call (macOS), a killed listener leaves its workers
    to themselves: they end with their task, at the latest when they write their report.
    """
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the call
        os.kill(os.getpid(), signal.SIGKILL)


def children(pid: int) -> list[int]:
    """Return the processes whose parent is `pid`, those that ended and were not reaped included."""
    try:
        found: list[int] = []
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found.extend(map(int, file.read().split()))
        return found
    except FileNotFoundError:
        return _children_by_psutil(pid)
    except OSError:  # ended meanwhile
        return []


def _children_by_psutil(pid: int) -> list[int]:
    """Return the same where the kernel does not list the children of a thread (macOS, or the process is gone)."""
    if os.path.exists("/proc/self/task") and not os.path.exists(f"/proc/{pid}"):
        return []
    import psutil

    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.Error:
        return []


def descendants(pid: int) -> list[int]:
    """Return all processes below `pid`, parents before their children."""
    found: list[int] = []
    level = children(pid)
    while level:
        found.extend(level)
        level = [child for parent in level for child in children(parent)]
    return found


def send(pids: Iterable[int], *signals: signal.Signals) -> None:
    """Send each of `signals` to each of `pids`; what has ended meanwhile is passed over."""
    for pid in pids:
        for signum in signals:
            try:
                os.kill(pid, signum)
            except (ProcessLookupError, PermissionError):
                pass


# ---------------------------------------------------------------------------------------------------------
# marks: what a killed listener leaves is no longer below anybody
# ---------------------------------------------------------------------------------------------------------

#: in the environment of all that a worker executes
_VARIABLE = "TAYLORISM_BOSS"
#: rounds of SIGKILL: what is killed may have forked meanwhile
_ROUNDS = 20


def mark_descendants() -> str:
    """Mark this process such that all that will descend from it can be told, whoever adopts it.

    The system ends our workers with us (`die_with_parent`), but not what they have started. Programs inherit
    the environment, forks that execute nothing inherit descriptors: so the mark is in both, as the number of a
    pipe that nobody else has.

    Returns
    -------
    str
        The mark, for `end_marked`.
    """
    reader, writer = os.pipe()
    reader = above_stdio(reader)
    os.close(writer)
    number = os.fstat(reader).st_ino
    os.environ[_VARIABLE] = mark = f"{os.getpid()}:{number}"
    return mark


def end_marked(mark: str) -> None:
    """Kill all processes with that mark; they are not our children, and are reaped by who adopted them.

    Where the system shows neither environment nor descriptors of a process (macOS), nothing is found.
    """
    for _ in range(_ROUNDS if mark else 0):
        found = [pid for pid in _processes() if pid != os.getpid() and _has_mark(pid, mark)]
        if not found:
            return
        send(found, signal.SIGKILL)


def _processes() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except FileNotFoundError:
        return []


def _has_mark(pid: int, mark: str) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            if f"{_VARIABLE}={mark}".encode() in file.read().split(b"\0"):
                return True
        pipe = f"pipe:[{mark.partition(':')[2]}]"
        return any(_link(pid, fd) == pipe for fd in os.listdir(f"/proc/{pid}/fd"))
    except OSError:  # another user's, or ended meanwhile
        return False


def _link(pid: int, fd: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/fd/{fd}")
    except FileNotFoundError:  # closed meanwhile
        return ""
