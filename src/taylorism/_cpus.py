"""Any process (leaf): which cpus there are, which of them we may use, and how to bind to one.

Every function gets its facts through parameters with defaults: ``root`` is where ``/proc`` and
``/sys`` are looked for, ``mask`` and ``count`` are asked for the affinity and the number of cpus.
So the tests describe whole machines (sockets, nested containers) as small trees of files.

Nothing that is read here is trusted: containers hide, renumber or truncate these files, and a fact
that cannot be read or understood is a fact that we do not have, never an error.
"""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePosixPath

__all__ = [
    "affinity",
    "bind",
    "cgroup_directories",
    "default_width",
    "read_count",
    "read_mask",
    "read_text",
    "require_affinity",
    "socketpacked",
    "topology",
    "usable_cpus",
]

#: The cpus that a process may run on, or None where the system has no such notion.
MaskReader = Callable[[], "Collection[int] | None"]
#: The number of cpus of the machine, or None when nobody knows.
CountReader = Callable[[], "int | None"]
#: ``{cpu: (socket, core)}``
Topology = dict[int, tuple[int, int]]


# --------------------------------------------------------------------------------------------------
# Readers


def read_text(path: Path) -> str:
    """Return what a small system file says, nothing when it cannot be read.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    str
        Its text; ``''`` if it does not exist, is not for us, or fails while it is read (files of
        a control group do when the group goes away).
    """
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def read_mask() -> set[int] | None:
    """Return the cpus that the calling thread may run on, None on a system without affinity."""
    if not hasattr(os, "sched_getaffinity"):  # macOS
        return None
    return os.sched_getaffinity(0)


def read_count() -> int | None:
    """Return the number of cpus of the machine; psutil is asked when Python does not know."""
    count = os.cpu_count()
    if count is None:
        import psutil  # here, since importing this module has to stay cheap

        count = psutil.cpu_count()
    return count


# --------------------------------------------------------------------------------------------------
# How many


def usable_cpus(
    root: str | Path = "/", mask: MaskReader = read_mask, count: CountReader = read_count
) -> int:
    """Return how many cpus this process can keep busy.

    It is the minimum of what the machine has, of what the affinity mask allows (``taskset``,
    cpusets and batch systems show there), and of the cpu quota of the control group of the
    process and of all its parents (containers, systemd slices), versions 1 and 2.

    Parameters
    ----------
    root : path
        Where ``/proc`` and ``/sys`` are.
    mask : callable
        Returns the affinity mask, or None.
    count : callable
        Returns the number of cpus of the machine, or None.

    Returns
    -------
    int
        At least 1. A quota of one and a half cpus counts as two: the second is worth a process.
    """
    quotas = (_quota(directory) for directory in cgroup_directories("cpu", root))
    limits = [float(count() or math.inf), float(len(mask() or ()) or math.inf), *quotas]
    smallest = min(limits)
    return math.ceil(smallest) if math.isfinite(smallest) else 1


def default_width(
    root: str | Path = "/", mask: MaskReader = read_mask, count: CountReader = read_count
) -> int:
    """Return the number of tasks that run at the same time when nobody says.

    Parameters
    ----------
    root, mask, count
        As for `usable_cpus`.

    Returns
    -------
    int
        Half of the usable cpus, and at least 1: on one cpu 1.1 made it 0, and waited for ever.
    """
    return max(1, usable_cpus(root, mask, count) // 2)


def _quota(directory: Path) -> float:
    """Return the cpus that one control group may use, infinity when it does not say."""
    words = read_text(directory / "cpu.max").split()  # version 2: "<quota or max> <period>"
    if not words:
        words = [read_text(directory / f"cpu.cfs_{part}_us") for part in ("quota", "period")]
    try:
        quota, period = (float(word) for word in words)
    except ValueError:
        return math.inf
    # Version 1 says -1 for "no limit".
    return quota / period if quota > 0 and period > 0 else math.inf


# --------------------------------------------------------------------------------------------------
# Control groups


def cgroup_directories(controller: str, root: str | Path = "/") -> list[Path]:
    """Return the directories whose limits hold for this process, its own group first.

    Parameters
    ----------
    controller : str
        ``'cpu'`` or ``'memory'``.
    root : path
        Where ``/proc`` and ``/sys`` are.

    Returns
    -------
    list of Path
        The directory of the group of the process and those of all its parents up to where the
        hierarchy is mounted, for version 1, version 2, or both on a hybrid machine. A limit on
        any of them limits us.

    Notes
    -----
    A container may see its group by the path that it has on the host while the mount starts at
    that very group, or only below it. What lies above the mount point cannot be read from inside.
    """
    if str(root) == "/":
        return list(_own_directories(controller))
    return _directories(controller, root)


@functools.cache
def _own_directories(controller: str) -> list[Path]:
    # Where the groups are mounted does not change while we run, and their limits are read anew each time.
    return _directories(controller, "/")


def _directories(controller: str, root: str | Path) -> list[Path]:
    groups = dict(_groups(controller, root))
    found: list[Path] = []
    for kind, top, mount_point in _cgroup_mounts(controller, root):
        if kind in groups:
            below = _below(groups[kind], top)
            mounted = Path(root, mount_point.lstrip("/"))
            found += [mounted / part for part in (below, *below.parents)]
    return found


def _groups(controller: str, root: str | Path) -> Iterator[tuple[str, str]]:
    """Yield (type of the file system, path of our group) for each hierarchy of interest."""
    for line in read_text(Path(root, "proc/self/cgroup")).splitlines():
        _, _, rest = line.partition(":")  # the number of the hierarchy: 0 is version 2
        controllers, _, path = rest.partition(":")
        if path and not controllers:
            yield "cgroup2", path
        elif controller in controllers.split(","):
            yield "cgroup", path


def _cgroup_mounts(controller: str, root: str | Path) -> Iterator[tuple[str, str, str]]:
    """Yield (type of the file system, group at its top, mount point) of each hierarchy."""
    for line in read_text(Path(root, "proc/self/mountinfo")).splitlines():
        left, _, right = line.partition(" - ")
        where, what = left.split(), right.split()
        if len(where) < 5 or len(what) < 3:
            continue
        mine = what[0] == "cgroup2" or (what[0] == "cgroup" and controller in what[2].split(","))
        if mine:
            yield what[0], _unescaped(where[3]), _unescaped(where[4])


def _unescaped(text: str) -> str:
    r"""Return a field of mountinfo, where the kernel writes a space as ``\040``, as it is."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)


def _below(group: str, top: str) -> PurePosixPath:
    """Return where a group lies below the group that is mounted; at the mount if it is outside."""
    path = PurePosixPath(group)
    if ".." in path.parts:  # we were moved out of the namespace that we look from
        return PurePosixPath()
    try:
        return path.relative_to(top)
    except ValueError:
        return PurePosixPath()


# --------------------------------------------------------------------------------------------------
# Which ones


@functools.lru_cache(maxsize=4)
def topology(root: str | Path = "/") -> Topology:
    """Return the socket and the core of every cpu of the machine.

    Parameters
    ----------
    root : path
        Where ``/proc`` and ``/sys`` are.

    Returns
    -------
    dict
        ``{cpu: (socket, core)}`` from ``/proc/cpuinfo``, or from ``/sys/devices/system/cpu`` where
        the former does not say (ARM); empty when neither does. Do not modify it: it is kept, since
        reading ``/proc/cpuinfo`` takes tens of milliseconds on a machine of hundreds of cpus, and
        what the listener has read its workers inherit.
    """
    return _from_cpuinfo(Path(root)) or _from_sysfs(Path(root))


def _from_cpuinfo(root: Path) -> Topology:
    """Return the topology that ``/proc/cpuinfo`` states, nothing if a single cpu is left open."""
    found: Topology = {}
    for block in re.split(r"\n\s*\n", read_text(root / "proc/cpuinfo")):
        pairs = (line.partition(":") for line in block.splitlines())
        facts = {key.strip(): value.strip() for key, _, value in pairs}
        if "processor" not in facts:
            continue
        try:
            cpu, socket, core = (int(facts[k]) for k in ("processor", "physical id", "core id"))
        except (KeyError, ValueError):
            return {}
        found[cpu] = (socket, core)
    return found


def _from_sysfs(root: Path) -> Topology:
    """Return the topology that ``/sys`` states; cpus that are off line have none."""
    found: Topology = {}
    for directory in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/topology"):
        names = ("physical_package_id", "core_id")
        try:
            socket, core = (int(read_text(directory / name)) for name in names)
            found[int(directory.parent.name[3:])] = (socket, core)
        except ValueError:
            continue
    return found


def socketpacked(root: str | Path = "/", mask: MaskReader = read_mask) -> list[int]:
    """Return the cpus to bind to, in turn.

    Parameters
    ----------
    root : path
        Where ``/proc`` and ``/sys`` are.
    mask : callable
        Returns the affinity mask, or None.

    Returns
    -------
    list of int
        Every cpu that the mask allows, once: round-robin over the sockets, one cpu of each
        physical core first, the second hyperthreads after them, and so on. That is the order of
        bronx's ``socketpacked_cpulist()``; it holds for sockets of unequal sizes as well, and
        leaves out what is not ours (a batch job on a shared node is given some of the cpus).
    """
    known = topology(root)
    allowed = set(known) if (given := mask()) is None else set(given)
    ordered = _round_robin({cpu: place for cpu, place in known.items() if cpu in allowed})
    # Some containers number the cpus of /proc/cpuinfo afresh: what the mask names does exist.
    return ordered + sorted(allowed.difference(ordered))


def _round_robin(known: Topology) -> list[int]:
    """Return the cpus by (hyperthread, rank of the core in its socket, socket)."""
    threads: dict[tuple[int, int], list[int]] = {}
    for cpu in sorted(known):
        threads.setdefault(known[cpu], []).append(cpu)
    ranks: dict[tuple[int, int], int] = {}
    seen: dict[int, int] = {}
    for socket, core in sorted(threads):
        ranks[socket, core] = seen.setdefault(socket, 0)
        seen[socket] += 1

    def order(cpu: int) -> tuple[int, int, int]:
        place = known[cpu]
        return threads[place].index(cpu), ranks[place], place[0]

    return sorted(known, key=order)


def affinity(
    root: str | Path = "/", mask: MaskReader = read_mask, count: CountReader = read_count
) -> list[int | None]:
    """Return the cpus that the process is bound to.

    Parameters
    ----------
    root, mask, count
        As for `usable_cpus`.

    Returns
    -------
    list of int or None
        The numbers of the cpus, sorted; ``[None]`` when the process may run on all of them, or on
        a system where no process can be bound.
    """
    allowed = mask()
    if allowed is None:
        return [None]
    machine = set(topology(root))
    everywhere = machine <= set(allowed) if machine else len(allowed) >= (count() or math.inf)
    return [None] if everywhere else [*sorted(allowed)]


def require_affinity() -> None:
    """Refuse to go on where processes cannot be bound.

    Raises
    ------
    OSError
        On a system without affinity (macOS). 1.1 failed there as well, in each worker.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise OSError(
            "this system cannot bind a process to a cpu: make the scheduler with binded=False"
        )


def bind(cpu: int) -> None:
    """Bind the calling process to one cpu.

    Parameters
    ----------
    cpu : int
        The number of the cpu.

    Raises
    ------
    OSError
        On a system without affinity, or when the cpu does not exist or may not be used.
    """
    require_affinity()
    try:
        os.sched_setaffinity(0, [cpu])
    except (OSError, ValueError, OverflowError) as error:
        allowed = sorted(read_mask() or ())
        raise OSError(
            f"cannot bind process {os.getpid()} to cpu {cpu} ({error}): it may run on {allowed}"
        ) from error
