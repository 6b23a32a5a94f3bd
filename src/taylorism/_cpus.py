"""Any process (leaf): which cpus there are, which of them we may use, and how to bind to one.

Every function gets its facts through parameters with defaults: ``root`` is where ``/proc`` and
``/sys`` are looked for, ``mask`` and ``count`` are asked for the affinity and the number of cpus,
``environ`` has the variables of the batch system. So the tests describe whole situations (sockets,
nested containers, batch jobs) as small trees of files and dicts.

Nothing that is read here is trusted: containers hide, renumber or truncate these files, and a fact
that cannot be read or understood is a fact that we do not have, never an error. Nothing is logged here:
`cpu_limits` and `missing` return what is known and what is not, for whoever can say it. The only variable
that is refused when it makes no sense is our own, ``TAYLORISM_MAX_THREADS``.
"""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

TYPE_CHECKING = False  # without `typing` and `pathlib`, half of the time of our import
if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath
    from typing import SupportsIndex

__all__ = [
    "affinity",
    "at",
    "bind",
    "cgroup_directories",
    "compact",
    "cpu_limits",
    "default_width",
    "missing",
    "numa_nodes",
    "one_node_of_pbs",
    "pbs_cpus",
    "read_count",
    "read_mask",
    "read_text",
    "require_affinity",
    "slurm_cpus",
    "slurm_sharers",
    "socketpacked",
    "topology",
    "usable_cpus",
]

#: The cpus that a process may run on, or None where the system has no such notion.
MaskReader = Callable[[], "Collection[int] | None"]
#: The number of cpus of the machine, or None when nobody knows.
CountReader = Callable[[], "int | None"]
#: The variables of a process: ``os.environ``.
Environment = Mapping[str, str]
#: ``{cpu: (socket, core)}``
Topology = dict[int, tuple[int, int]]

#: The variable that says how many tasks run at the same time when the program does not.
WIDTH_VARIABLE = "TAYLORISM_MAX_THREADS"


# --------------------------------------------------------------------------------------------------
# Readers


def at(*parts: str | Path) -> Path:
    """Return a path; `pathlib` is imported when there is something to read.

    Parameters
    ----------
    *parts : str or Path
        As of `pathlib.Path`.

    Returns
    -------
    Path
        The path.
    """
    from pathlib import Path

    return Path(*parts)


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
    root: str | Path = "/",
    mask: MaskReader = read_mask,
    count: CountReader = read_count,
    environ: Environment = os.environ,
) -> int:
    """Return how many cpus this process can keep busy.

    It is the minimum of what the machine has, of what the affinity mask allows (``taskset``,
    cpusets and batch systems show there), of the cpu quota of the control group of the
    process and of all its parents (containers, systemd slices), versions 1 and 2, and of what
    Slurm or PBS say that the job was given on this node.

    Parameters
    ----------
    root : path
        Where ``/proc`` and ``/sys`` are.
    mask : callable
        Returns the affinity mask, or None.
    count : callable
        Returns the number of cpus of the machine, or None.
    environ : mapping
        The environment.

    Returns
    -------
    int
        At least 1. A quota of one and a half cpus counts as two: the second is worth a process.
    """
    smallest = min(cpu_limits(root, mask, count, environ).values())
    return math.ceil(smallest) if math.isfinite(smallest) else 1


def cpu_limits(
    root: str | Path = "/",
    mask: MaskReader = read_mask,
    count: CountReader = read_count,
    environ: Environment = os.environ,
) -> dict[str, float]:
    """Return how many cpus each source allows.

    Parameters
    ----------
    root, mask, count, environ
        As for `usable_cpus`.

    Returns
    -------
    dict
        Under the keys ``machine``, ``affinity``, ``cgroup``, ``slurm`` and ``pbs``: cpus, infinity where
        the source sets no limit or does not say. `usable_cpus` is the minimum, rounded up.
    """
    quotas = (_quota(directory) for directory in cgroup_directories("cpu", root))
    return {
        "machine": float(count() or math.inf),
        "affinity": float(len(mask() or ()) or math.inf),
        "cgroup": min(quotas, default=math.inf),
        "slurm": float(slurm_cpus(environ) or math.inf),
        "pbs": float(pbs_cpus(environ, root) or math.inf),
    }


def missing(
    root: str | Path = "/", mask: MaskReader = read_mask, binding: bool = False
) -> list[str]:
    """Return what this kernel or container does not tell, and what is done instead.

    Parameters
    ----------
    root, mask
        As for `usable_cpus`.
    binding : bool
        Whether what only `socketpacked` and `compact` need is looked for too; reading it takes
        tens of milliseconds on a big machine.

    Returns
    -------
    list of str
        One clause for each, fit for a message; empty on an ordinary Linux.
    """
    found = []
    if mask() is None:
        found.append("this system has no cpu affinity: all cpus of the machine count")
    if not cgroup_directories("cpu", root):
        found.append("no control group is found in /proc/self: cpu quotas are not known")
    if binding and not topology(root):
        found.append("neither /proc/cpuinfo nor /sys tells sockets and cores: cpus are taken by number")
    if binding and not numa_nodes(root):
        found.append("/sys tells no NUMA nodes: cpus are taken by socket and core")
    return found


def default_width(
    root: str | Path = "/",
    mask: MaskReader = read_mask,
    count: CountReader = read_count,
    environ: Environment = os.environ,
) -> int:
    """Return the number of tasks that run at the same time when the program does not say.

    Parameters
    ----------
    root, mask, count, environ
        As for `usable_cpus`.

    Returns
    -------
    int
        What ``TAYLORISM_MAX_THREADS`` says if it is set, else half of the usable cpus, and at
        least 1: on one cpu 1.1 made it 0, and waited for ever.

    Raises
    ------
    ValueError
        When ``TAYLORISM_MAX_THREADS`` is set to anything but a whole number of 1 or more.
    """
    asked = environ.get(WIDTH_VARIABLE)
    if asked is None:
        return max(1, usable_cpus(root, mask, count, environ) // 2)
    width = _whole(asked)
    if width is None:
        raise ValueError(
            f"the environment variable {WIDTH_VARIABLE} is {asked!r}: it has to be a whole number, 1 or more "
            "(how many workers run at the same time by default), or not to be set"
        )
    return width


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
            mounted = at(root, mount_point.lstrip("/"))
            found += [mounted / part for part in (below, *below.parents)]
    return found


def _groups(controller: str, root: str | Path) -> Iterator[tuple[str, str]]:
    """Yield (type of the file system, path of our group) for each hierarchy of interest."""
    for line in read_text(at(root, "proc/self/cgroup")).splitlines():
        _, _, rest = line.partition(":")  # the number of the hierarchy: 0 is version 2
        controllers, _, path = rest.partition(":")
        if path and not controllers:
            yield "cgroup2", path
        elif controller in controllers.split(","):
            yield "cgroup", path


def _cgroup_mounts(controller: str, root: str | Path) -> Iterator[tuple[str, str, str]]:
    """Yield (type of the file system, group at its top, mount point) of each hierarchy."""
    for line in read_text(at(root, "proc/self/mountinfo")).splitlines():
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
    from pathlib import PurePosixPath

    path = PurePosixPath(group)
    if ".." in path.parts:  # we were moved out of the namespace that we look from
        return PurePosixPath()
    try:
        return path.relative_to(top)
    except ValueError:
        return PurePosixPath()


# --------------------------------------------------------------------------------------------------
# Batch systems
#
# A variable may be stale (inherited from an outer job), made by a site, or set by hand. So numbers that are
# too large do no harm (the machine, the mask and the groups limit too), but those that are too small do:
# where two readings are possible, the larger one is taken.

#: numbers of steps that stand for what runs on all that the job has on its first node: the shell of salloc,
#: and the batch script (SLURM_INTERACTIVE_STEP and SLURM_BATCH_SCRIPT of Slurm's slurm.h)
_WHOLE_JOB_STEPS = {"4294967290", "4294967291"}

#: of a list such as "8(x2),4": eight on each of two nodes, four on the third
_ENTRY = r"\s*([0-9]{1,9})(?:\(x([0-9]{1,9})\))?\s*"  # compiled when there is something to match


def slurm_cpus(environ: Environment = os.environ) -> int | None:
    """Return how many cpus Slurm gave this process on its node.

    Parameters
    ----------
    environ : mapping
        The environment.

    Returns
    -------
    int or None
        None outside of Slurm, or when it does not say.

    Notes
    -----
    We are one process that forks its workers on one node. In a batch script (or the shell of ``salloc``) all
    that the job has on this node is ours: ``--ntasks=40`` is a way to ask for 40 cpus, whatever
    ``--cpus-per-task`` is, since nobody else will start those tasks. In a step of ``srun`` the other tasks do
    run beside us, each with the same right: ours is one share. ``SLURM_CPUS_ON_NODE`` counts for the batch
    script or the step as a whole, and is rounded up to whole cores or nodes; ``SLURM_CPUS_PER_TASK`` is what
    was asked for, and in a step it may be that of the batch script around it.
    """
    tasks = _slurm_tasks(environ)
    per_task = _whole(environ.get("SLURM_CPUS_PER_TASK"))
    on_node = _whole(environ.get("SLURM_CPUS_ON_NODE")) or _slurm_job_cpus(environ)
    known = [cpus for cpus in (on_node, per_task and per_task * tasks) if cpus]
    return max(1, min(known) // slurm_sharers(environ)) if known else None


def slurm_sharers(environ: Environment = os.environ) -> int:
    """Return among how many tasks what Slurm gave on this node is shared, ours included.

    Parameters
    ----------
    environ : mapping
        The environment.

    Returns
    -------
    int
        1, but for a step of ``srun`` that has several tasks on this node.
    """
    return _slurm_tasks(environ) if _in_step(environ) else 1


def _in_step(environ: Environment) -> bool:
    """Tell whether ``srun`` started us; not as the shell of an interactive job, which has all of it."""
    step = environ.get("SLURM_STEP_ID", environ.get("SLURM_STEPID"))
    return step is not None and step not in _WHOLE_JOB_STEPS


def _slurm_tasks(environ: Environment) -> int:
    """Return how many tasks the step has on this node, outside of a step the job; 1 if it is not said."""
    name = "SLURM_STEP_TASKS_PER_NODE" if _in_step(environ) else "SLURM_TASKS_PER_NODE"
    return _entry(environ.get(name, ""), environ.get("SLURM_NODEID")) or 1


def _slurm_job_cpus(environ: Environment) -> int | None:
    """Return the cpus of the job on this node: ``salloc`` says no more than this to a shell on a login node."""
    # In a step SLURM_NODEID counts the nodes of the step, not of the job.
    node = None if _in_step(environ) else environ.get("SLURM_NODEID")
    return _entry(environ.get("SLURM_JOB_CPUS_PER_NODE", ""), node)


def _entry(text: str, node: str | None) -> int | None:
    """Return what a list such as ``8(x2),4`` says of a node; its smallest number if the node is not known."""
    found = [re.fullmatch(_ENTRY, part) for part in text.split(",")]
    pairs = [(int(match.group(1)), int(match.group(2) or 1)) for match in found if match]
    if len(pairs) < len(found):
        return None
    if node is not None and re.fullmatch("[0-9]{1,9}", node):
        left = int(node)
        for number, nodes in pairs:
            if left < nodes:
                return number or None
            left -= nodes
    return min(number for number, _ in pairs) or None


def pbs_cpus(environ: Environment = os.environ, root: str | Path = "/") -> int | None:
    """Return how many cpus PBS (OpenPBS, PBS Professional, Torque) gave the job on this node.

    Parameters
    ----------
    environ : mapping
        The environment.
    root : path
        Where ``PBS_NODEFILE`` and ``/proc`` are looked for.

    Returns
    -------
    int or None
        None outside of PBS, or when it does not say.

    Notes
    -----
    The largest of these, since each may be less than the truth. ``NCPUS``: the cpus of the first chunk, but its
    ``ompthreads`` if that was asked for. Lines of ``PBS_NODEFILE`` that name this host: one for each cpu with
    Torque, one for each MPI process (1 by default) with the others. ``PBS_NUM_PPN``: ``ppn`` of Torque, 1 if the
    job was asked for by ``procs``. ``PBS_NCPUS``, a custom of sites, is often that of all nodes, so it counts
    where there is one. ``OMP_NUM_THREADS`` says nothing of what the job has.
    """
    names = ["PBS_NUM_PPN"]
    if not _IN_PBS.isdisjoint(environ):  # else NCPUS is somebody else's variable
        names.append("NCPUS")
    if one_node_of_pbs(environ, root):
        names.append("PBS_NCPUS")
    hosts = _pbs_hosts(environ, root)
    known = [_whole(environ.get(name)) or 0 for name in names]
    return max(*known, hosts.count(_host(root))) or None


#: variables that PBS sets in every job
_IN_PBS = {"PBS_JOBID", "PBS_ENVIRONMENT", "PBS_NODEFILE"}


def one_node_of_pbs(environ: Environment = os.environ, root: str | Path = "/") -> bool:
    """Tell whether what PBS says of the whole job holds for this node: the job is on no other.

    Parameters
    ----------
    environ, root
        As for `pbs_cpus`.

    Returns
    -------
    bool
        True also when the number of nodes is not said.
    """
    said = [_whole(environ.get(name)) or 1 for name in ("PBS_NUM_NODES", "PBS_NNODES")]
    return max(*said, len(set(_pbs_hosts(environ, root)))) == 1


def _pbs_hosts(environ: Environment, root: str | Path) -> list[str]:
    """Return the short names of the hosts in the node file, as often as it names them."""
    name = environ.get("PBS_NODEFILE", "")
    text = read_text(at(root, name.lstrip("/"))) if name else ""
    return [line.split(".")[0] for line in text.split()]


def _host(root: str | Path) -> str:
    """Return the short name of this host."""
    name = read_text(at(root, "proc/sys/kernel/hostname")).strip() or os.uname().nodename
    return name.split(".")[0]


def _whole(text: str | None) -> int | None:
    """Return a whole number of 1 or more; None for anything else."""
    return int(text) or None if text and re.fullmatch(r"\s*[0-9]{1,9}\s*", text) else None


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
    return _from_cpuinfo(at(root)) or _from_sysfs(at(root))


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


@functools.lru_cache(maxsize=4)
def numa_nodes(root: str | Path = "/") -> dict[int, list[range]]:
    """Return the cpus of every NUMA node.

    Parameters
    ----------
    root : path
        Where ``/sys`` is.

    Returns
    -------
    dict
        ``{node: [range of cpus, ...]}``; empty where ``/sys`` does not say. Do not modify it: it is kept.
    """
    found = {}
    for file in (at(root) / "sys/devices/system/node").glob("node[0-9]*/cpulist"):
        matches = [re.fullmatch(_CPUS, part) for part in read_text(file).split(",")]
        spans = [range(int(each[1]), int(each[2] or each[1]) + 1) for each in matches if each]
        if spans and file.parent.name[4:].isdecimal():  # there are nodes of memory alone
            found[int(file.parent.name[4:])] = spans
    return found


#: one part of a list of cpus of the kernel, such as "0-3,8,10-11"
_CPUS = r"\s*([0-9]{1,9})(?:-([0-9]{1,9}))?\s*"


def _node(cpu: int, nodes: dict[int, list[range]]) -> int:
    """Return the NUMA node of a cpu, -1 if it is in none."""
    return next((node for node, spans in nodes.items() if any(cpu in each for each in spans)), -1)


def _allowed(known: Topology, mask: MaskReader) -> set[int]:
    """Return the cpus that the mask allows: all that are known, where there is no mask."""
    return set(known) if (given := mask()) is None else set(given)


def compact(root: str | Path = "/", mask: MaskReader = read_mask) -> list[int]:
    """Return the cpus, neighbours together: a worker of n cpus takes n that follow one another.

    Parameters
    ----------
    root : path
        Where ``/proc`` and ``/sys`` are.
    mask : callable
        Returns the affinity mask, or None.

    Returns
    -------
    list of int
        Every cpu that the mask allows, once: by socket, NUMA node and core, one cpu of each core; then all
        second hyperthreads in the same order, and so on. What only the mask knows comes last, by number.
    """
    known, nodes = topology(root), numa_nodes(root)
    allowed = _allowed(known, mask)
    places: dict[tuple[int, int, int], list[int]] = {}
    for cpu in sorted(allowed.intersection(known)):
        socket, core = known[cpu]
        places.setdefault((socket, _node(cpu, nodes), core), []).append(cpu)
    by_thread = [(thread, place, cpu) for place in places for thread, cpu in enumerate(places[place])]
    ordered = [cpu for *_, cpu in sorted(by_thread)]
    return ordered + sorted(allowed.difference(ordered), key=lambda cpu: (_node(cpu, nodes), cpu))


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
    allowed = _allowed(known, mask)
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


def bind(cpus: SupportsIndex | Iterable[SupportsIndex]) -> None:
    """Bind the calling process to one cpu, or to some.

    Parameters
    ----------
    cpus : int or iterable of int
        The numbers of the cpus.

    Raises
    ------
    OSError
        On a system without affinity, or when none of the cpus exists and may be used.
    """
    require_affinity()
    wanted = [int(cpu) for cpu in (cpus if isinstance(cpus, Iterable) else [cpus])]
    try:
        os.sched_setaffinity(0, wanted)
    except (OSError, ValueError, OverflowError) as error:
        what = f"cpu {wanted[0]}" if len(wanted) == 1 else f"cpus {wanted}"
        allowed = sorted(read_mask() or ())
        raise OSError(
            f"cannot bind process {os.getpid()} to {what} ({error}): it may run on {allowed}"
        ) from error
