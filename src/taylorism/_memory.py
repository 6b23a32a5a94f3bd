"""Any process (leaf): how much memory there is, and how much of it we may use, in MiB.

As in `_cpus`, ``root`` is where ``/proc`` and ``/sys`` are looked for, and what cannot be read or
understood is left out. The memory that processes were *seen* to use belongs here too.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from pathlib import Path

from taylorism._cpus import cgroup_directories, read_text

__all__ = ["MIB", "anonymous", "private", "read_ram", "usable_memory"]

#: Bytes in one MiB.
MIB = 1024.0**2

#: The RAM of the machine in MiB, when it is not written in ``/proc/meminfo``.
RamReader = Callable[[], float]

#: ``memory.high`` is no wall, but above it the kernel slows a group down until it hardly moves.
_LIMIT_FILES = ("memory.max", "memory.high", "memory.limit_in_bytes")


def read_ram() -> float:
    """Return the RAM of the machine as psutil knows it, in MiB.

    Raises
    ------
    OSError
        When the system does not say.
    """
    import psutil  # here, since importing this module has to stay cheap

    try:
        return psutil.virtual_memory().total / MIB
    except (psutil.Error, RuntimeError, NotImplementedError) as error:
        raise OSError("the size of the memory of this system is not to be found") from error


def usable_memory(root: str | Path = "/", ram: RamReader = read_ram) -> float:
    """Return how much memory this process and its children can use together.

    It is the minimum of the RAM of the machine and of the memory limits of the control group of
    the process and of all its parents, versions 1 and 2.

    Parameters
    ----------
    root : path
        Where ``/proc`` and ``/sys`` are.
    ram : callable
        Returns the RAM in MiB; asked when ``/proc/meminfo`` does not say.

    Returns
    -------
    float
        MiB.

    Raises
    ------
    OSError
        When the size of the RAM is not to be found.
    """
    total = _meminfo_total(Path(root))
    groups = cgroup_directories("memory", root)
    limits = (_limit(directory / name) for directory in groups for name in _LIMIT_FILES)
    return min(ram() if total is None else total, *limits, math.inf)


def _meminfo_total(root: Path) -> float | None:
    """Return ``MemTotal`` in MiB, None when ``/proc/meminfo`` does not say."""
    match = re.search(r"^MemTotal:\s*(\d+) kB$", read_text(root / "proc/meminfo"), re.MULTILINE)
    return int(match.group(1)) / 1024 if match and int(match.group(1)) else None


def _limit(path: Path) -> float:
    """Return the limit that one file of a control group states in MiB, infinity if it does not."""
    try:
        limit = int(read_text(path))
    except ValueError:  # no such file, or "max"
        return math.inf
    # Version 1 writes "no limit" as the greatest number of pages there can be: the RAM is smaller.
    return limit / MIB if limit > 0 else math.inf


# ---------------------------------------------------------------------------------------------------------
# what processes use
# ---------------------------------------------------------------------------------------------------------

#: the lines of ``smaps_rollup`` that are one process's own, in KiB
_OWN = re.compile(rb"^(?:Private_Clean|Private_Dirty|Private_Hugetlb|Swap):\s*(\d+) kB$", re.MULTILINE)


def anonymous() -> float | None:
    """Return the memory of this process that a fork of it would share: all but files and shared mappings, in MiB.

    None where the system does not tell (macOS).
    """
    try:
        fd = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)  # half the price of a file object
    except OSError:
        return None
    try:
        _, resident, shared = map(int, os.read(fd, 100).split()[:3])
    except (OSError, ValueError):
        return None
    finally:
        os.close(fd)
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE") / MIB


def private(pid: int) -> float:
    """Return the memory that is private to a process, in MiB; 0 where it has ended or the system does not tell.

    ``/proc/<pid>/smaps_rollup`` (Linux 4.14): the pages that no other process has too, and what of it is
    swapped out.
    """
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            return sum(map(int, _OWN.findall(file.read()))) / 1024
    except OSError:  # ended meanwhile, or another user's
        return 0.0
