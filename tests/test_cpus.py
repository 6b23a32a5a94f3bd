"""The leaf that knows cpus, on machines that are small trees of files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from bronx.system.cpus import LinuxCpusInfo
from hypothesis import given
from hypothesis import strategies as st

from taylorism import _cpus

Topology = dict[int, tuple[int, int]]

needs_affinity = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system has no affinity"
)


# --------------------------------------------------------------------------------------------------
# Fake machines


def write(root: Path, path: str, text: str) -> None:
    """Write one file of a fake machine."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def write_cpuinfo(root: Path, known: Topology) -> None:
    """Write /proc/cpuinfo as x86 does."""
    blocks = (
        f"processor\t: {cpu}\nmodel\t: A: 9\nphysical id\t: {socket}\ncore id\t\t: {core}\n"
        for cpu, (socket, core) in known.items()
    )
    write(root, "proc/cpuinfo", "\n".join(blocks) + "\n")


def write_sysfs(root: Path, known: Topology) -> None:
    """Write /sys/devices/system/cpu."""
    for cpu, (socket, core) in known.items():
        topology = f"sys/devices/system/cpu/cpu{cpu}/topology"
        write(root, f"{topology}/physical_package_id", f"{socket}\n")
        write(root, f"{topology}/core_id", f"{core}\n")
    write(root, "sys/devices/system/cpu/cpufreq/x", "")


def regular(sockets: int, cores: int, threads: int) -> Topology:
    """Return the usual numbering: all first hyperthreads, then all second ones."""
    places = [(socket, core) for socket in range(sockets) for core in range(cores)]
    return dict(enumerate(places * threads))


def mount(root: Path, *lines: str) -> None:
    """Write /proc/self/mountinfo: each line is 'type top mount_point options'."""
    text = ["22 27 0:21 / /proc rw,relatime - proc proc rw"]
    for line in lines:
        kind, top, mount_point, options = line.split()
        text.append(
            f"30 22 0:28 {top} {mount_point} rw,relatime shared:9 - {kind} cgroup {options}"
        )
    write(root, "proc/self/mountinfo", "\n".join(text) + "\n")


def many() -> int:
    """Return how many cpus the fake machines have."""
    return 64


def mask_of(*cpus: int):
    """Return a reader of a fake affinity mask."""
    return lambda: set(cpus)


def usable(root: Path) -> int:
    """Return usable_cpus() on a fake machine of 64 cpus without a mask."""
    return _cpus.usable_cpus(root, mask=lambda: None, count=many)


# --------------------------------------------------------------------------------------------------
# How many


def test_a_bare_machine_offers_all_its_cpus(tmp_path):
    """Without any file and any mask, the machine is the limit."""
    assert usable(tmp_path) == 64


def test_the_affinity_mask_limits(tmp_path):
    """taskset and batch systems are obeyed."""
    assert _cpus.usable_cpus(tmp_path, mask=mask_of(3, 5, 9), count=many) == 3


def test_the_machine_limits_a_mask_that_is_too_wide(tmp_path):
    """A mask may name cpus that do not exist."""
    assert _cpus.usable_cpus(tmp_path, mask=mask_of(*range(1024)), count=lambda: 4) == 4


def test_nobody_knows_anything(tmp_path):
    """One cpu is assumed when nothing is known."""
    assert _cpus.usable_cpus(tmp_path, mask=lambda: None, count=lambda: None) == 1


def test_a_quota_of_version_2_limits_and_is_rounded_up(tmp_path):
    """2.5 cpus are worth three processes."""
    write(tmp_path, "proc/self/cgroup", "0::/job\n")
    mount(tmp_path, "cgroup2 / /sys/fs/cgroup rw")
    write(tmp_path, "sys/fs/cgroup/job/cpu.max", "250000 100000\n")
    assert usable(tmp_path) == 3


def test_the_quota_of_a_parent_limits(tmp_path):
    """The smallest quota on the way up to the mount counts, wherever it is."""
    write(tmp_path, "proc/self/cgroup", "0::/slice/job/step\n")
    mount(tmp_path, "cgroup2 / /sys/fs/cgroup rw")
    write(tmp_path, "sys/fs/cgroup/slice/job/step/cpu.max", "max 100000\n")
    write(tmp_path, "sys/fs/cgroup/slice/job/cpu.max", "800000 100000\n")
    write(tmp_path, "sys/fs/cgroup/slice/cpu.max", "200000 50000\n")
    assert usable(tmp_path) == 4


def test_a_container_with_a_namespace_of_its_own_sees_its_quota_at_the_mount_point(tmp_path):
    """Group '/' below the mount '/': the mount point itself is asked."""
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    mount(tmp_path, "cgroup2 / /sys/fs/cgroup rw")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "150000 100000\n")
    assert usable(tmp_path) == 2


def test_a_quota_of_version_1_limits(tmp_path):
    """cpu and cpuacct are mounted together, as most distributions did."""
    write(tmp_path, "proc/self/cgroup", "5:memory:/other\n4:cpu,cpuacct:/a/b\n")
    mount(tmp_path, "cgroup / /sys/fs/cgroup/cpu,cpuacct rw,cpu,cpuacct")
    base = "sys/fs/cgroup/cpu,cpuacct"
    write(tmp_path, f"{base}/a/b/cpu.cfs_quota_us", "-1\n")
    write(tmp_path, f"{base}/a/b/cpu.cfs_period_us", "100000\n")
    write(tmp_path, f"{base}/a/cpu.cfs_quota_us", "700000\n")
    write(tmp_path, f"{base}/a/cpu.cfs_period_us", "100000\n")
    assert usable(tmp_path) == 7


def test_a_container_of_version_1_sees_the_path_of_the_host(tmp_path):
    """The mount starts at the very group that /proc/self/cgroup names by its path on the host."""
    write(tmp_path, "proc/self/cgroup", "4:cpu:/docker/abc\n")
    mount(tmp_path, "cgroup /docker/abc /sys/fs/cgroup/cpu rw,cpu")
    for below, quota in ("", 200000), ("docker/abc/", 100000):
        write(tmp_path, f"sys/fs/cgroup/cpu/{below}cpu.cfs_quota_us", str(quota))
        write(tmp_path, f"sys/fs/cgroup/cpu/{below}cpu.cfs_period_us", "100000")
    assert usable(tmp_path) == 2


@pytest.mark.parametrize(
    ("group", "top"),
    [
        ("/../../elsewhere", "/"),
        ("/../../elsewhere", "/docker/abc"),
        ("/not/below/the/mount", "/docker/abc"),
        ("relative", "/docker/abc"),
    ],
)
def test_a_group_outside_of_the_mount_is_taken_for_the_mount(tmp_path, group, top):
    """What can be seen of the hierarchy still limits."""
    write(tmp_path, "proc/self/cgroup", f"0::{group}\n")
    mount(tmp_path, f"cgroup2 {top} /sys/fs/cgroup rw")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "300000 100000")
    write(tmp_path, "sys/elsewhere/cpu.max", "100000 100000")
    assert usable(tmp_path) == 3


def test_a_hybrid_machine_has_both_versions(tmp_path):
    """Version 2 is mounted without the controller, version 1 has the quota."""
    write(tmp_path, "proc/self/cgroup", "1:cpu:/user\n2:cpuset:/\n0::/user\n")
    mount(
        tmp_path,
        "cgroup2 / /sys/fs/cgroup/unified rw",
        "cgroup / /sys/fs/cgroup/cpu rw,cpu",
        "cgroup / /sys/fs/cgroup/cpuset rw,cpuset",
    )
    for group, quota in ("cpu/user", 500000), ("cpuset", 100000):
        write(tmp_path, f"sys/fs/cgroup/{group}/cpu.cfs_quota_us", str(quota))
        write(tmp_path, f"sys/fs/cgroup/{group}/cpu.cfs_period_us", "100000")
    assert usable(tmp_path) == 5


def test_a_mount_point_with_a_space_is_found(tmp_path):
    """The kernel writes the space as an octal number."""
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    mount(tmp_path, r"cgroup2 / /my\040groups rw")
    write(tmp_path, "my groups/cpu.max", "200000 100000")
    assert usable(tmp_path) == 2


def test_a_tiny_quota_leaves_one_cpu(tmp_path):
    """A tenth of a cpu is a cpu."""
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    mount(tmp_path, "cgroup2 / /cg rw")
    write(tmp_path, "cg/cpu.max", "10000 100000")
    assert usable(tmp_path) == 1


@pytest.mark.parametrize(
    "text",
    ["", "max 100000", "max", "nonsense", "1 2 3", "0 100000", "100000 0", "-5 100000", "\0"],
)
def test_a_quota_that_says_nothing_is_no_limit(tmp_path, text):
    """Garbage in a file of a control group is left out."""
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    mount(tmp_path, "cgroup2 / /cg rw")
    write(tmp_path, "cg/cpu.max", text)
    assert usable(tmp_path) == 64


def test_garbage_in_proc_is_left_out(tmp_path):
    """Neither file has to make sense; one of them may not even be a file."""
    (tmp_path / "proc/self/cgroup").mkdir(parents=True)
    write(tmp_path, "proc/self/mountinfo", "garbage\n1 2 - \n1 2 3 4 5 - cgroup2\n\xff - - -\n")
    assert usable(tmp_path) == 64
    (tmp_path / "proc/self/cgroup").rmdir()
    (tmp_path / "proc/self/cgroup").write_bytes(b"\xff\xfe\nno colons\n0:\n::\n")
    assert usable(tmp_path) == 64


def test_the_default_width_is_half_of_the_usable_cpus(tmp_path):
    """Half, rounded down, but never none."""
    widths = {
        n: _cpus.default_width(tmp_path, mask=lambda: None, count=lambda n=n: n)
        for n in (1, 2, 3, 8, 9)
    }
    assert widths == {1: 1, 2: 1, 3: 1, 8: 4, 9: 4}


def test_this_machine_has_usable_cpus():
    """The real files of this machine are read without trouble."""
    assert 1 <= _cpus.usable_cpus() <= (os.cpu_count() or 1)
    assert _cpus.default_width() == max(1, _cpus.usable_cpus() // 2)


def test_psutil_is_asked_when_python_does_not_know(monkeypatch):
    """os.cpu_count() may return None."""
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    monkeypatch.setattr("psutil.cpu_count", lambda: 12)
    assert _cpus.read_count() == 12


# --------------------------------------------------------------------------------------------------
# Which ones


@pytest.mark.parametrize("writer", [write_cpuinfo, write_sysfs])
@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 1, 1), [0]),
        ((1, 2, 2), [0, 1, 2, 3]),
        ((2, 2, 1), [0, 2, 1, 3]),
        ((2, 2, 2), [0, 2, 1, 3, 4, 6, 5, 7]),
        ((3, 2, 1), [0, 2, 4, 1, 3, 5]),
    ],
)
def test_cpus_go_round_the_sockets_physical_cores_first(tmp_path, writer, shape, expected):
    """One socket after the other, hyperthreads last, from either source of the topology."""
    known = regular(*shape)
    writer(tmp_path, known)
    assert _cpus.socketpacked(tmp_path, mask=mask_of(*known)) == expected
    assert _cpus.socketpacked(tmp_path, mask=lambda: None) == expected


@pytest.mark.parametrize("shape", [(1, 4, 1), (2, 8, 2), (4, 3, 2), (2, 64, 1), (1, 2, 4)])
@pytest.mark.parametrize("interleaved", [False, True])
def test_the_order_is_that_of_bronx(tmp_path, shape, interleaved):
    """bronx gave 1.1 its order; core numbers have gaps and hyperthreads may be neighbours."""
    places = [(socket, core * 3) for socket, core in dict.fromkeys(regular(*shape).values())]
    threads = shape[2]
    numbered = [p for p in places for _ in range(threads)] if interleaved else places * threads
    known = dict(enumerate(numbered))
    write_cpuinfo(tmp_path, known)

    class FakeCpusInfo(LinuxCpusInfo):
        _INFOFILE = str(tmp_path / "proc/cpuinfo")

    expected = list(FakeCpusInfo().socketpacked_cpulist())
    assert _cpus.socketpacked(tmp_path, mask=mask_of(*known)) == expected


def test_only_cpus_of_the_mask_are_offered(tmp_path):
    """A job on a shared node binds to the cpus that it was given, physical cores first."""
    write_cpuinfo(tmp_path, regular(2, 4, 2))
    # On socket 0 both hyperthreads of core 1; on socket 1 only the second one of core 6.
    assert _cpus.socketpacked(tmp_path, mask=mask_of(1, 9, 14)) == [1, 14, 9]


def test_sockets_of_unequal_sizes_are_no_trouble(tmp_path):
    """A cpu that is off line, or efficient cores without hyperthreads (bronx gives up there)."""
    known = {0: (0, 0), 1: (0, 0), 2: (0, 1), 3: (0, 2), 4: (1, 0)}
    write_cpuinfo(tmp_path, known)
    assert _cpus.socketpacked(tmp_path, mask=mask_of(*known)) == [0, 4, 2, 3, 1]


def test_cpus_that_only_the_mask_knows_come_last(tmp_path):
    """A container may number the cpus of /proc/cpuinfo afresh: the mask tells the truth."""
    write_cpuinfo(tmp_path, regular(1, 4, 1))
    assert _cpus.socketpacked(tmp_path, mask=mask_of(2, 3, 40, 41)) == [2, 3, 40, 41]
    assert _cpus.socketpacked(tmp_path, mask=mask_of(8, 9)) == [8, 9]


def test_sysfs_is_asked_where_cpuinfo_does_not_say(tmp_path):
    """On ARM /proc/cpuinfo has neither sockets nor cores."""
    write(tmp_path, "proc/cpuinfo", "processor\t: 0\nBogoMIPS: 1\n\nprocessor\t: 1\n")
    write_sysfs(tmp_path, {0: (-1, 4), 1: (-1, 5)})
    assert _cpus.topology(tmp_path) == {0: (-1, 4), 1: (-1, 5)}


@pytest.mark.parametrize("text", ["", "\xff", "processor : x\nphysical id : 0\ncore id : 0\n"])
def test_a_machine_without_any_topology_still_has_its_mask(tmp_path, text):
    """Without sockets and cores the cpus come in order."""
    write(tmp_path, "proc/cpuinfo", text)
    write(tmp_path, "sys/devices/system/cpu/cpu0/topology/core_id", "garbage")
    assert _cpus.topology(tmp_path) == {}
    assert _cpus.socketpacked(tmp_path, mask=mask_of(3, 1)) == [1, 3]


@given(
    known=st.dictionaries(st.integers(0, 40), st.tuples(st.integers(0, 3), st.integers(0, 5))),
    allowed=st.sets(st.integers(0, 40), min_size=1),
)
def test_the_order_is_always_a_permutation_of_the_mask(known, allowed):
    """No cpu is lost, invented or named twice, whatever the machine looks like."""
    inside = {cpu: place for cpu, place in known.items() if cpu in allowed}
    ordered = _cpus._round_robin(inside)
    assert sorted(ordered) == sorted(inside)
    firsts = [cpu for cpu in ordered if all(inside[o] != inside[cpu] for o in inside if o < cpu)]
    assert ordered[: len(firsts)] == firsts


# --------------------------------------------------------------------------------------------------
# Binding


def test_a_process_on_all_cpus_is_not_bound(tmp_path):
    """[None] stands for all of them, as in 1.1."""
    write_cpuinfo(tmp_path, regular(1, 4, 1))
    assert _cpus.affinity(tmp_path, mask=mask_of(0, 1, 2, 3)) == [None]
    assert _cpus.affinity(tmp_path, mask=mask_of(*range(64))) == [None]


def test_a_bound_process_says_to_what(tmp_path):
    """The numbers of the cpus, in order."""
    write_cpuinfo(tmp_path, regular(1, 4, 1))
    assert _cpus.affinity(tmp_path, mask=mask_of(3, 1)) == [1, 3]


def test_binding_is_told_without_any_topology(tmp_path):
    """The number of cpus decides whether the mask has them all."""
    assert _cpus.affinity(tmp_path, mask=mask_of(0, 1), count=lambda: 2) == [None]
    assert _cpus.affinity(tmp_path, mask=mask_of(0, 1), count=lambda: 3) == [0, 1]
    assert _cpus.affinity(tmp_path, mask=mask_of(0, 1), count=lambda: None) == [0, 1]
    assert _cpus.affinity(tmp_path, mask=lambda: None) == [None]


@pytest.fixture
def own_mask():
    """Give the mask of this process back after the test."""
    mask = os.sched_getaffinity(0)
    yield mask
    os.sched_setaffinity(0, mask)


@needs_affinity
def test_binding_really_binds(own_mask):
    """After bind(), the process runs on that cpu alone, and one cpu is usable."""
    cpu = max(own_mask)
    _cpus.bind(cpu)
    assert os.sched_getaffinity(0) == {cpu}
    assert _cpus.usable_cpus() == _cpus.default_width() == 1
    assert _cpus.socketpacked() == [cpu]
    assert _cpus.affinity() in ([cpu], [None])  # None on a machine of one cpu


@needs_affinity
@pytest.mark.parametrize("cpu", [-1, 1_000_000, 10**30])
def test_binding_to_no_cpu_is_a_clear_error(own_mask, cpu):
    """The error names the cpu and the cpus that there are."""
    with pytest.raises(OSError, match=rf"cannot bind process {os.getpid()} to cpu {cpu} .*may run"):
        _cpus.bind(cpu)
    assert os.sched_getaffinity(0) == own_mask


def test_a_system_without_affinity_refuses_to_bind(monkeypatch):
    """On macOS binding is an error that says what to do, and everything else works."""
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    with pytest.raises(OSError, match="binded=False"):
        _cpus.bind(0)
    assert _cpus.read_mask() is None
    assert _cpus.affinity() == [None]
    assert _cpus.usable_cpus() >= 1
