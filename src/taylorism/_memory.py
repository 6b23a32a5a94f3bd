"""Any process (leaf): how much memory there is, and how much of it we may use, in MiB.

As in `_cpus`, ``root`` is where ``/proc`` and ``/sys`` are looked for, ``environ`` has the variables of the
batch system, and what cannot be read or understood is left out. The memory that processes were *seen* to use
belongs here too.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable

from taylorism._cpus import (
    Environment,
    at,
    cgroup_directories,
    one_node_of_pbs,
    read_text,
    slurm_cpus,
    slurm_sharers,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "MIB",
    "anonymous",
    "available_memory",
    "memory_limits",
    "missing",
    "private",
    "read_available",
    "read_ram",
    "usable_memory",
]

#: Bytes in one MiB.
MIB = 1024.0**2

#: The RAM of the machine in MiB, or what of it is available, when it is not written in ``/proc/meminfo``.
RamReader = Callable[[], float]

#: ``memory.high`` is no wall, but above it the kernel slows a group down until it hardly moves.
_LIMIT_FILES = ("memory.max", "memory.high", "memory.limit_in_bytes")


_NO_LIMIT = 2**62

#: What a group uses, and what of that in ``memory.stat`` can be given back at once (pages of files that
#: nobody has touched for a while): version 2, version 1. All of it includes the groups below.
_USAGE_FILES = {"memory.current": "inactive_file", "memory.usage_in_bytes": "total_inactive_file"}


def read_ram() -> float:
    """Return the RAM of the machine as psutil knows it, in MiB.

    Raises
    ------
    OSError
        When the system does not say.
    """
    return _of_psutil("total", "the size of the memory of this system")


def read_available() -> float:
    """Return what of the RAM could be used right now as psutil knows it, in MiB.

    Raises
    ------
    OSError
        When the system does not say.
    """
    return _of_psutil("available", "how much memory is available on this system")


def _of_psutil(key: str, what: str) -> float:
    """Return a figure of psutil's in MiB."""
    import psutil  # here, since importing this module has to stay cheap

    try:
        return float(getattr(psutil.virtual_memory(), key)) / MIB
    except (psutil.Error, RuntimeError, NotImplementedError) as error:
        raise OSError(f"{what} is not to be found") from error


# ---------------------------------------------------------------------------------------------------------
# what there is
# ---------------------------------------------------------------------------------------------------------


def usable_memory(
    root: str | Path = "/", ram: RamReader = read_ram, environ: Environment = os.environ
) -> float:
    """Return how much memory this process and its children can use together.

    It is the minimum of the RAM of the machine, of the memory limits of the control group of
    the process and of all its parents, versions 1 and 2, and of what Slurm or PBS say that the job
    was given on this node.

    Parameters
    ----------
    root : path
        Where ``/proc`` and ``/sys`` are.
    ram : callable
        Returns the RAM in MiB; asked when ``/proc/meminfo`` does not say.
    environ : mapping
        The environment.

    Returns
    -------
    float
        MiB.

    Raises
    ------
    OSError
        When the size of the RAM is not to be found.
    """
    return min(memory_limits(root, ram, environ).values())


def memory_limits(
    root: str | Path = "/", ram: RamReader = read_ram, environ: Environment = os.environ
) -> dict[str, float]:
    """Return how much memory each source allows.

    Parameters
    ----------
    root, ram, environ
        As for `usable_memory`.

    Returns
    -------
    dict
        Under the keys ``machine``, ``cgroup``, ``slurm`` and ``pbs``: MiB, infinity where the source sets no
        limit or does not say. `usable_memory` is the minimum.

    Raises
    ------
    OSError
        When the size of the RAM is not to be found.
    """
    groups = cgroup_directories("memory", root)
    return {
        "machine": _meminfo("MemTotal", root) or ram(),
        "cgroup": min(map(_group_limit, groups), default=math.inf),
        "slurm": _slurm_memory(environ),
        "pbs": _pbs_memory(environ, root),
    }


def available_memory(root: str | Path = "/", available: RamReader = read_available) -> float:
    """Return how much memory could be used right now, without swapping and without being killed.

    It is the minimum of ``MemAvailable`` of the machine and, for the control group of the process and
    each of its parents that has a limit, of what is left below it. Files in memory that could be given
    back count as available in both. What the batch system says is left out: it tells no usage.

    Parameters
    ----------
    root : path
        Where ``/proc`` and ``/sys`` are.
    available : callable
        Returns MiB; asked when ``/proc/meminfo`` does not say (before Linux 3.14; other systems).

    Returns
    -------
    float
        MiB, 0 or more.

    Raises
    ------
    OSError
        When what is available on the machine is not to be found.
    """
    free = _meminfo("MemAvailable", root)
    rooms = map(_room, cgroup_directories("memory", root))
    return max(0.0, min(available() if free is None else free, *rooms, math.inf))


def missing(root: str | Path = "/") -> list[str]:
    """Return what this kernel or container does not tell, and what is done instead.

    Parameters
    ----------
    root : path
        Where ``/proc`` and ``/sys`` are.

    Returns
    -------
    list of str
        One clause for each, fit for a message; empty on an ordinary Linux.
    """
    found = [
        f"/proc/meminfo tells no {key}: psutil is asked"
        for key in ("MemTotal", "MemAvailable")
        if _meminfo(key, root) is None
    ]
    if not cgroup_directories("memory", root):
        found.append("no control group is found in /proc/self: memory limits are not known")
    return found


def _meminfo(key: str, root: str | Path) -> float | None:
    """Return a line of ``/proc/meminfo`` in MiB, None when it is not there."""
    text = read_text(at(root, "proc/meminfo"))
    match = re.search(rf"^{key}:\s*(\d+) kB$", text, re.MULTILINE)
    return int(match.group(1)) / 1024 if match else None


def _group_limit(directory: Path) -> float:
    """Return the smallest limit of one control group in MiB, infinity if there is none."""
    return min(_limit(directory / name) for name in _LIMIT_FILES)


def _room(directory: Path) -> float:
    """Return what is left below the limit of one control group in MiB, infinity if it has none."""
    limit = _group_limit(directory)
    return limit - _held(directory) if math.isfinite(limit) else limit


def _held(directory: Path) -> float:
    """Return what one control group uses and could not give back at once in MiB, 0 if it does not say."""
    for name, idle in _USAGE_FILES.items():
        used = read_text(directory / name).strip()
        if re.fullmatch("[0-9]{1,19}", used):
            match = re.search(rf"^{idle} ([0-9]{{1,19}})$", read_text(directory / "memory.stat"), re.MULTILINE)
            return max(0, int(used) - int(match.group(1) if match else 0)) / MIB
    return 0.0


def _limit(path: Path) -> float:
    """Return the limit that one file of a control group states in MiB, infinity if it does not."""
    try:
        limit = int(read_text(path))
    except ValueError:  # no such file, or "max"
        return math.inf
    # Version 1 writes "no limit" as the greatest number of whole pages that there can be.
    return limit / MIB if 0 < limit < _NO_LIMIT else math.inf


# ---------------------------------------------------------------------------------------------------------
# batch systems (see `_cpus` for how far they are believed)
# ---------------------------------------------------------------------------------------------------------

#: a size, with the unit that Slurm ("4G") or PBS ("4gb") write
_SIZE = r"(?i)\s*([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([kmgt]?)b?\s*"  # compiled when there is something to match
_UNITS = {"k": 1 / 1024, "m": 1.0, "g": 1024.0, "t": 1024.0**2}


def _size(text: str | None, plain: float) -> float:
    """Return a size in MiB; infinity when it is 0 (no limit) or makes no sense.

    ``plain`` is the MiB of one unit of a number without a unit.
    """
    match = re.fullmatch(_SIZE, text or "")
    size = float(match.group(1)) * _UNITS.get(match.group(2).lower(), plain) if match else 0.0
    return size or math.inf


def _slurm_memory(environ: Environment) -> float:
    """Return the share of this process in what Slurm gave on this node in MiB, infinity if it does not say.

    As for cpus, tasks of a step that run beside us have the same right.
    """
    node = _size(environ.get("SLURM_MEM_PER_NODE"), plain=1.0) / slurm_sharers(environ)
    cpus = slurm_cpus(environ) or math.inf
    return min(node, _size(environ.get("SLURM_MEM_PER_CPU"), plain=1.0) * cpus)


def _pbs_memory(environ: Environment, root: str | Path) -> float:
    """Return what PBS gave the job on this node in MiB, infinity if it does not say.

    Both variables are customs of sites: the first of this node, the second often of all nodes together.
    """
    names = ["PBS_RESC_MEM", "PBS_VMEM"] if one_node_of_pbs(environ, root) else ["PBS_RESC_MEM"]
    return min(_size(environ.get(name), plain=1 / MIB) for name in names)


# ---------------------------------------------------------------------------------------------------------
# what processes use
# ---------------------------------------------------------------------------------------------------------

#: the lines of ``smaps_rollup`` that are one process's own, in KiB
_OWN = rb"(?m)^(?:Private_Clean|Private_Dirty|Private_Hugetlb|Swap):\s*(\d+) kB$"


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
            return sum(map(int, re.findall(_OWN, file.read()))) / 1024
    except OSError:  # ended meanwhile, or another user's
        return 0.0
