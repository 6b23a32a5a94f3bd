"""The leaf that knows memory: on machines that are small trees of files, and what real processes use.

The batch system of a machine is the dict `environ`: what the tests themselves run in does not count.
"""

from __future__ import annotations

import io
import math
import mmap
import os
import signal
from pathlib import Path

import psutil
import pytest
from forked import exit_code, fork, in_fork

from taylorism import _memory

GIB = 1024**3


def write(root: Path, path: str, text: object) -> None:
    """Write one file of a fake machine."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}\n")


@pytest.fixture
def machine(tmp_path):
    """A machine of 16 GiB, both versions of control groups mounted, our group three levels deep."""
    write(tmp_path, "proc/meminfo", "MemFree:  1 kB\nMemTotal:       16777216 kB\nMemUsed: 2 kB")
    write(tmp_path, "proc/self/cgroup", "4:memory:/a/b/c\n1:cpu:/a\n0::/a/b/c")
    mounts = (
        "31 23 0:28 / /v1/memory rw - cgroup cgroup rw,memory",
        "32 23 0:29 / /v1/cpu rw - cgroup cgroup rw,cpu",
        "33 23 0:30 / /v2 rw shared:4 - cgroup2 cgroup2 rw",
    )
    write(tmp_path, "proc/self/mountinfo", "\n".join(mounts))
    return tmp_path


def no_ram() -> float:
    """Stand for a RAM that must not be asked for."""
    raise AssertionError("psutil was asked though /proc/meminfo says")


def usable(root: Path, **environ: str) -> float:
    """Return usable_memory() of a fake machine with these variables alone."""
    return _memory.usable_memory(root, ram=no_ram, environ=environ)


def test_the_ram_is_the_limit_of_a_bare_machine(machine):
    """16777216 kB are 16384 MiB."""
    assert usable(machine) == 16384.0


@pytest.mark.parametrize("group", ["a/b/c", "a/b", "a", "."])
@pytest.mark.parametrize(
    "name", ["v1/memory/{}/memory.limit_in_bytes", "v2/{}/memory.max", "v2/{}/memory.high"]
)
def test_a_limit_anywhere_on_the_way_up_counts(machine, name, group):
    """The group of the process, each of its parents, and the mount point are asked."""
    write(machine, name.format(group), 3 * GIB)
    assert usable(machine) == 3072.0


def test_the_smallest_limit_counts(machine):
    """Not the nearest one."""
    write(machine, "v2/a/b/c/memory.max", 5 * GIB)
    write(machine, "v2/a/memory.max", 2 * GIB)
    write(machine, "v1/memory/a/b/memory.limit_in_bytes", 4 * GIB)
    assert usable(machine) == 2048.0


def test_limits_of_other_groups_and_controllers_do_not_count(machine):
    """A brother's limit, and a file of that name in another hierarchy."""
    write(machine, "v2/a/other/memory.max", GIB)
    write(machine, "v1/cpu/a/memory.limit_in_bytes", GIB)
    assert usable(machine) == 16384.0


@pytest.mark.parametrize("text", ["max", "", "nonsense", -1, 0, 9223372036854771712, 9223372036854710272])
def test_a_limit_that_says_nothing_is_no_limit(machine, text):
    """'max' of version 2, the huge number of version 1, and garbage."""
    write(machine, "v2/a/memory.max", text)
    write(machine, "v1/memory/a/memory.limit_in_bytes", text)
    assert usable(machine) == 16384.0
    assert _memory.memory_limits(machine, environ={})["cgroup"] == math.inf


@pytest.mark.parametrize("text", ["", "MemTotal: a lot", "MemTotal: 0 kB", "Total: 5 kB"])
def test_psutil_is_asked_when_meminfo_does_not_say(machine, text):
    """The fallback has the limits of the control groups as well."""
    write(machine, "proc/meminfo", text)
    assert _memory.usable_memory(machine, ram=lambda: 1000.0, environ={}) == 1000.0
    write(machine, "v2/memory.max", 500 * 1024**2)
    assert _memory.usable_memory(machine, ram=lambda: 1000.0, environ={}) == 500.0


def test_a_system_that_says_nothing_is_an_error(tmp_path, monkeypatch):
    """There is no sensible guess of the size of the memory."""

    def fail():
        raise RuntimeError("no idea")

    monkeypatch.setattr(psutil, "virtual_memory", fail)
    with pytest.raises(OSError, match="size of the memory"):
        _memory.usable_memory(tmp_path)


def test_this_machine_has_memory():
    """The real files of this machine are read, in MiB, and agree with psutil."""
    total = psutil.virtual_memory().total / 1024**2
    assert 0 < _memory.usable_memory(environ={}) <= total * 1.001
    assert _memory.read_ram() == pytest.approx(total)


def test_each_source_says_what_it_allows(machine):
    """A message can name the one that limits; what says nothing is infinite."""
    write(machine, "v2/a/memory.max", 5 * GIB)
    limits = _memory.memory_limits(machine, ram=no_ram, environ={"SLURM_MEM_PER_NODE": "4000"})
    assert limits == {"machine": 16384, "cgroup": 5120, "slurm": 4000, "pbs": math.inf}


def test_what_the_system_does_not_tell_is_named(machine):
    """Nothing on an ordinary Linux; else each thing, and what is done instead."""
    write(machine, "proc/meminfo", "MemTotal: 16777216 kB\nMemAvailable: 5 kB")
    assert _memory.missing(machine) == []
    write(machine, "proc/meminfo", "MemTotal: 16777216 kB")
    assert _memory.missing(machine) == ["/proc/meminfo tells no MemAvailable: psutil is asked"]
    total, available, groups = _memory.missing(machine / "nothing")
    assert "MemTotal" in total and "MemAvailable" in available and "control group" in groups


# -- batch systems ----------------------------------------------------------------------------------------

SLURM_JOBS = {
    "memory of the node": ({"SLURM_MEM_PER_NODE": "4000"}, 4000),
    "with a unit": ({"SLURM_MEM_PER_NODE": "3G"}, 3072),
    "with a small unit": ({"SLURM_MEM_PER_NODE": "524288K"}, 512),
    "with a unit of two letters": ({"SLURM_MEM_PER_NODE": "1.5gb"}, 1536),
    "with a great unit": ({"SLURM_MEM_PER_NODE": "1T"}, 16384),
    "no limit": ({"SLURM_MEM_PER_NODE": "0"}, 16384),
    "memory of each cpu, for all cpus of the batch script": (
        {"SLURM_MEM_PER_CPU": "500", "SLURM_CPUS_ON_NODE": "8", "SLURM_TASKS_PER_NODE": "8"}, 4000
    ),
    "memory of each cpu, for those of one task": (
        {"SLURM_MEM_PER_CPU": "1G", "SLURM_CPUS_PER_TASK": "2", "SLURM_CPUS_ON_NODE": "8", "SLURM_STEP_ID": "0"}
        | {"SLURM_STEP_TASKS_PER_NODE": "4"},
        2048,
    ),
    "memory of the node, shared by the tasks of a step": (
        {"SLURM_MEM_PER_NODE": "8000", "SLURM_STEP_ID": "0", "SLURM_STEP_TASKS_PER_NODE": "4"}, 2000
    ),
    "memory of each cpu, of how many is not said": ({"SLURM_MEM_PER_CPU": "500"}, 16384),
    "no limit of each cpu": ({"SLURM_MEM_PER_CPU": "0", "SLURM_CPUS_ON_NODE": "2"}, 16384),
    "both: the smaller one": (
        {"SLURM_MEM_PER_CPU": "500", "SLURM_CPUS_ON_NODE": "4", "SLURM_MEM_PER_NODE": "1000"}, 1000
    ),
    "more than the machine has": ({"SLURM_MEM_PER_NODE": "999999999"}, 16384),
}
PBS_JOBS = {
    "memory of this node in bytes": ({"PBS_RESC_MEM": str(2 * GIB), "PBS_NUM_NODES": "2"}, 2048),
    "with a unit": ({"PBS_RESC_MEM": "16000mb"}, 16000),
    "with a small unit": ({"PBS_VMEM": "1048576kb"}, 1024),
    "in bytes, said so": ({"PBS_VMEM": "1073741824b"}, 1024),
    "memory of a job on one node": ({"PBS_VMEM": str(3 * GIB), "PBS_NNODES": "1"}, 3072),
    "memory of all nodes of a job is no limit of one": ({"PBS_VMEM": str(3 * GIB), "PBS_NNODES": "2"}, 16384),
    "both: the smaller one": ({"PBS_VMEM": str(3 * GIB), "PBS_RESC_MEM": "2gb"}, 2048),
    "no limit": ({"PBS_RESC_MEM": "0", "PBS_VMEM": "0b"}, 16384),
    "what was used is no limit": ({"resources_used.mem": "5mb", "PBS_RESOURCES_USED_MEM": "5mb"}, 16384),
}
JOBS = [
    pytest.param(*job, id=f"{system}: {name}")
    for system, jobs in (("slurm", SLURM_JOBS), ("pbs", PBS_JOBS))
    for name, job in jobs.items()
]


@pytest.mark.parametrize(("environ", "memory"), JOBS)
def test_the_batch_system_limits(machine, environ, memory):
    """What the job has on this node; the share of one task in a step of Slurm."""
    assert usable(machine, **environ) == memory


@pytest.mark.parametrize("name", ["SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "PBS_RESC_MEM", "PBS_VMEM"])
@pytest.mark.parametrize("text", ["", "-1", "much", "4 G G", "1e3", "inf", "nan", "\u0664", "5w", "1" * 5000])
def test_what_the_batch_system_says_without_sense_is_no_limit(machine, name, text):
    """A value that cannot be understood is a fact that we do not have."""
    assert usable(machine, SLURM_CPUS_ON_NODE="2", **{name: text}) == 16384.0


def test_the_environment_of_the_process_counts_by_default(machine, monkeypatch):
    """os.environ is read anew at each call."""
    monkeypatch.delenv("SLURM_STEP_ID", raising=False)
    monkeypatch.delenv("SLURM_STEPID", raising=False)
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "1")
    assert _memory.usable_memory(machine) == 1.0


# -- what is available ------------------------------------------------------------------------------------

V1, V2 = "v1/memory/{}/memory.", "v2/{}/memory."


def available(root: Path) -> float:
    """Return available_memory() of a fake machine, whose /proc/meminfo says."""
    return _memory.available_memory(root, available=no_ram)


@pytest.fixture
def busy(machine):
    """The machine, with 10 GiB available."""
    write(machine, "proc/meminfo", "MemTotal: 16777216 kB\nMemFree: 1 kB\nMemAvailable: 10485760 kB")
    return machine


@pytest.mark.parametrize("group", ["a/b/c", "a/b", "a", "."])
@pytest.mark.parametrize(
    ("limit", "usage", "idle"),
    [
        (V2 + "max", V2 + "current", "inactive_file"),
        (V2 + "high", V2 + "current", "inactive_file"),
        (V1 + "limit_in_bytes", V1 + "usage_in_bytes", "total_inactive_file"),
    ],
)
def test_what_is_left_below_a_limit_is_available(busy, limit, usage, idle, group):
    """Of any group on the way up; file pages that nobody has touched for a while can be given back."""
    assert available(busy) == 10240.0
    write(busy, limit.format(group), 4 * GIB)
    assert available(busy) == 4096.0
    write(busy, usage.format(group), 3 * GIB)
    assert available(busy) == 1024.0
    path = usage.format(group).rpartition(".")[0] + ".stat"
    write(busy, path, f"anon 5\nactive_file 7\nhierarchical_{idle} 8\n{idle} {GIB // 2}\nworkingset 9")
    assert available(busy) == 1536.0


def test_the_smallest_room_counts(busy):
    """It may be the machine's, a parent's, or that of the group with the greater limit."""
    write(busy, "v2/a/memory.max", 8 * GIB)
    write(busy, "v2/a/memory.current", 7 * GIB)
    write(busy, "v2/a/b/memory.max", 2 * GIB)
    write(busy, "v2/a/b/memory.current", GIB // 2)
    assert available(busy) == 1024.0
    write(busy, "proc/meminfo", "MemAvailable: 1024 kB")
    assert available(busy) == 1.0


@pytest.mark.parametrize("used", [2 * GIB, 3 * GIB])
def test_nothing_is_available_at_the_limit(busy, used):
    """A group may be above its limit for a while; less than nothing is nothing."""
    write(busy, "v2/a/memory.high", 2 * GIB)
    write(busy, "v2/a/memory.current", used)
    assert available(busy) == 0.0


@pytest.mark.parametrize("text", ["", "nonsense", -5, "\u0664", "9" * 5000])
def test_a_usage_that_says_nothing_leaves_the_limit(busy, text):
    """No more than that can be available."""
    write(busy, "v2/a/memory.max", 2 * GIB)
    write(busy, "v2/a/memory.current", text)
    write(busy, "v2/a/memory.stat", "inactive_file x")
    assert available(busy) == 2048.0


def test_a_statistic_that_is_older_than_the_usage_does_no_harm(busy):
    """The two files are not of one moment."""
    write(busy, "v2/a/memory.max", 2 * GIB)
    write(busy, "v2/a/memory.current", GIB)
    write(busy, "v2/a/memory.stat", f"inactive_file {5 * GIB}")
    assert available(busy) == 2048.0


def test_psutil_is_asked_what_is_available_when_meminfo_does_not_say(machine, tmp_path, monkeypatch):
    """Kernels before 3.14, and other systems; the limits of the control groups count as well."""
    assert _memory.available_memory(machine, available=lambda: 700.0) == 700.0
    write(machine, "v2/memory.max", 500 * 1024**2)
    assert _memory.available_memory(machine, available=lambda: 700.0) == 500.0

    def fail():
        raise RuntimeError("no idea")

    monkeypatch.setattr(psutil, "virtual_memory", fail)
    with pytest.raises(OSError, match="memory is available"):
        _memory.available_memory(tmp_path)


def test_this_machine_has_memory_available():
    """The real files of this machine are read; psutil agrees as far as two moments do."""
    free = psutil.virtual_memory().available / 1024**2
    assert 0 < _memory.available_memory() <= psutil.virtual_memory().total / 1024**2
    assert _memory.read_available() == pytest.approx(free, rel=0.5)


# -- what processes use -----------------------------------------------------------------------------------

SIZE = 64 * 1024**2


def kept_by_a_child(take, look):
    """Fork a child that takes something and waits; return what `look` says of it."""

    def check():
        told, tell = os.pipe()

        def child():
            kept = take()
            os.write(tell, b"!")
            signal.pause()
            return kept

        pid = fork(child)
        os.read(told, 1)
        seen = look(pid)
        os.kill(pid, signal.SIGKILL)
        exit_code(pid)
        return seen

    return in_fork(check)


def test_what_a_process_has_written_to_is_private_to_it():
    """All of it, in MiB."""
    assert 64 <= kept_by_a_child(lambda: b"x" * SIZE, _memory.private) < 100


def test_what_a_process_shares_with_its_parent_is_private_to_neither():
    """Pages are shared until one of the two writes to them."""

    def check():
        kept = b"x" * SIZE
        alone = _memory.private(os.getpid())
        assert alone >= 64
        seen = kept_by_a_child(lambda: kept, lambda pid: (_memory.private(pid), _memory.private(os.getpid())))
        return [alone - each >= 60 for each in seen]

    assert in_fork(check) == [True, True]


def test_a_shared_mapping_is_nobody_s_own():
    """Neither private to a child, nor in what a fork would share as its own."""

    def check():
        before, shared = _memory.anonymous(), mmap.mmap(-1, SIZE)
        shared.write(b"x" * SIZE)
        grown = _memory.anonymous() - before
        return grown, kept_by_a_child(lambda: shared[:: 4096], _memory.private)

    grown, seen = in_fork(check)
    assert grown < 32 and seen < 40


def test_what_a_fork_would_share_is_measured():
    """It grows with what we take, and shrinks with what we give back."""

    def check():
        # Not of malloc, which may have as much left over from other tests, and would take and give back nothing.
        before, kept = _memory.anonymous(), mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        kept.write(b"x" * SIZE)
        with_it = _memory.anonymous()
        kept.close()
        return with_it - before, _memory.anonymous() - before

    grown, left = in_fork(check)
    assert 60 <= grown <= 80 and left < 16


def test_a_process_that_has_ended_has_nothing():
    """Also before it is reaped; that is no error."""
    pid = fork(int)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert _memory.private(pid) == 0.0
    exit_code(pid)
    assert _memory.private(pid) == 0.0


def test_the_lines_of_the_kernel_that_count_are_summed(monkeypatch):
    """Private and swapped pages; neither shared ones nor shares of what others have swapped."""
    text = b"""560b6e2d4000-7fffb1d55000 ---p 00000000 00:00 0                          [rollup]
Rss:                9000 kB
Pss:                5000 kB
Shared_Clean:       4000 kB
Shared_Dirty:       3000 kB
Private_Clean:      1024 kB
Private_Dirty:      2048 kB
Anonymous:          2222 kB
Private_Hugetlb:    4096 kB
Swap:               1024 kB
SwapPss:             512 kB
"""
    monkeypatch.setattr("builtins.open", lambda *args: io.BytesIO(text))
    assert _memory.private(1) == 8.0


def test_a_kernel_that_says_nothing_or_nonsense_is_no_error(monkeypatch):
    """None, or nothing."""
    monkeypatch.setattr("builtins.open", lambda *args: io.BytesIO(b"nonsense"))
    monkeypatch.setattr(_memory.os, "read", lambda fd, size: b"nonsense")
    assert _memory.anonymous() is None and _memory.private(1) == 0.0
