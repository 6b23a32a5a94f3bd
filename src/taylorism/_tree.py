"""Leaf, any process: which processes descend from one, as the system tells it."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterable
from typing import Any

from taylorism._descriptors import above_stdio

__all__ = [
    "Family",
    "become_subreaper",
    "birth",
    "children",
    "descendants",
    "die_with_parent",
    "end_marked",
    "is_busy",
    "mark_descendants",
    "mark_worker",
    "send",
    "tokens",
]

# <linux/prctl.h>
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

#: where in /proc/<pid>/stat, after the name, it is told where the environment is (proc(5), fields 50 and 51)
_ENV_START, _ENV_END = 47, 48


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


def birth(pid: int) -> str:
    """Return when a process was started, as the system tells it, to know it from a later one of that number.

    Empty where the process is gone, or the system does not tell (macOS).
    """
    return _stat(pid)[19]


def is_busy(pid: int) -> bool:
    """Return whether the first thread of a process runs, waits for a cpu or a disk, or is halted: not just sleeps.

    False where the process is gone, or the system does not tell (macOS).
    """
    return _stat(pid)[0] in tuple("RDTt")


def _stat(pid: int) -> list[str]:
    """Return what the system tells of a process after its name (proc(5)), from its state on."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            found = file.read().rpartition(b")")[2].decode().split()
    except OSError:
        found = []
    return found or [""] * (_ENV_END + 1)


class Family:
    """Some processes and all that descend from them, also when their parents have died and we have adopted them.

    A process whose parent has died cannot be told from others that we have adopted, so each look notes whom it
    sees. Who is no longer below us has ended: we or somebody else below us has reaped it.

    Parameters
    ----------
    roots : iterable of int
        Where it begins.
    """

    def __init__(self, roots: Iterable[int]) -> None:
        self._seen = {pid: birth(pid) for pid in roots}

    def add(self, pids: Iterable[int]) -> None:
        """Count some more processes in."""
        self._seen.update((pid, birth(pid)) for pid in pids)

    def living(self) -> list[int]:
        """Return those that are there, zombies included, parents before their children."""
        below = set(descendants(os.getpid()))
        roots = [pid for pid, born in self._seen.items() if pid in below and birth(pid) == born]
        found = dict.fromkeys([*roots, *(child for pid in roots for child in descendants(pid))])
        self._seen = {pid: self._seen.get(pid) or birth(pid) for pid in found}
        return list(found)


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

#: in the environment of all that a worker executes: of which Boss, of which worker
_VARIABLE = "TAYLORISM_BOSS"
_OF_WORKER = "TAYLORISM_WORKER"
#: rounds of SIGKILL: what is killed may have forked meanwhile
_ROUNDS = 20
#: seconds that a process may take to become another program: until it has, it shows no environment
_BECOMING = 0.5
#: looks at which one that was given an empty environment must be found without: while the kernel fills in that of
#: another program, it is empty for some microseconds
_LOOKS = 3


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


def mark_worker(token: str) -> None:
    """Mark this process such that all that it will execute can be told from what others execute."""
    os.environ[_OF_WORKER] = token


def tokens(pid: int) -> set[str]:
    """Return the tokens that a process carries: of `mark_worker`, and the numbers of the pipes that it holds.

    A fork that executes nothing holds the pipe of the worker that it was, whose number is the token. Where the
    system shows neither environment nor descriptors of a process (macOS), there are none.
    """
    try:
        entries = dict(entry.partition(b"=")[::2] for entry in _environment(pid))
        links = [_link(pid, f"fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    except OSError:  # another user's, or ended meanwhile
        return set()
    pipes = {link[len("pipe:[") : -1] for link in links if link.startswith("pipe:[")}
    return pipes | {entries.get(_OF_WORKER.encode(), b"").decode("ascii", "replace")} - {""}


def _processes() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except FileNotFoundError:
        return []


def _has_mark(pid: int, mark: str) -> bool:
    try:
        if f"{_VARIABLE}={mark}".encode() in _environment(pid):
            return True
        pipe = f"pipe:[{mark.partition(':')[2]}]"
        return any(_link(pid, f"fd/{fd}") == pipe for fd in os.listdir(f"/proc/{pid}/fd"))
    except OSError:  # another user's, or ended meanwhile
        return False


def _environment(pid: int) -> list[bytes]:
    """Return the environment of a process, as it was when it became the program that it is.

    While it becomes another one (execve), it has neither the old nor the new, and no descriptors that are closed
    then: whoever is looked at in that moment would seem to be a stranger. So that moment is waited for.

    Raises
    ------
    OSError
        It is another user's, or has ended meanwhile.
    """
    deadline, looks = time.monotonic() + _BECOMING, 0
    while True:
        with open(f"/proc/{pid}/environ", "rb") as file:
            found = file.read()
        looks = looks + 1 if not found and _has_none(pid) else 0
        if found or looks == _LOOKS or time.monotonic() >= deadline:
            return found.split(b"\0")
        time.sleep(0.001)


def _has_none(pid: int) -> bool:
    """Whether a process is there to stay without an environment.

    One that becomes another program has that one's memory, and no place in it for the environment yet. One that was
    given an empty environment has such a place. Zombies, and threads of the kernel, have no memory.
    """
    told = _stat(pid)
    empty = told[_ENV_START] == told[_ENV_END] != "0"
    return empty or told[0] in tuple("ZXx") or not _link(pid, "exe")


def _link(pid: int, what: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/{what}")
    except FileNotFoundError:  # closed meanwhile; or a thread of the kernel, which runs no program
        return ""
