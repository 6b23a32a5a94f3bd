"""The leaf that knows cpus, on machines that are small trees of files, in batch jobs that are small dicts."""

from __future__ import annotations

import math
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


def write_nodes(root: Path, *cpulists: str) -> None:
    """Write the NUMA nodes of /sys/devices/system/node."""
    for node, cpus in enumerate(cpulists):
        write(root, f"sys/devices/system/node/node{node}/cpulist", f"{cpus}\n")
    write(root, "sys/devices/system/node/possible", "0-7\n")


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


def usable(root: Path, **environ: str) -> int:
    """Return usable_cpus() on a fake machine of 64 cpus without a mask, with these variables alone."""
    return _cpus.usable_cpus(root, mask=lambda: None, count=many, environ=environ)


# --------------------------------------------------------------------------------------------------
# How many


def test_a_bare_machine_offers_all_its_cpus(tmp_path):
    """Without any file and any mask, the machine is the limit."""
    assert usable(tmp_path) == 64


def test_the_affinity_mask_limits(tmp_path):
    """taskset and batch systems are obeyed."""
    assert _cpus.usable_cpus(tmp_path, mask=mask_of(3, 5, 9), count=many, environ={}) == 3


def test_the_machine_limits_a_mask_that_is_too_wide(tmp_path):
    """A mask may name cpus that do not exist."""
    assert _cpus.usable_cpus(tmp_path, mask=mask_of(*range(1024)), count=lambda: 4, environ={}) == 4


def test_nobody_knows_anything(tmp_path):
    """One cpu is assumed when nothing is known."""
    assert _cpus.usable_cpus(tmp_path, mask=lambda: None, count=lambda: None, environ={}) == 1


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
        n: _cpus.default_width(tmp_path, mask=lambda: None, count=lambda n=n: n, environ={})
        for n in (1, 2, 3, 8, 9)
    }
    assert widths == {1: 1, 2: 1, 3: 1, 8: 4, 9: 4}


def test_this_machine_has_usable_cpus():
    """The real files of this machine are read without trouble."""
    assert 1 <= _cpus.usable_cpus() <= (os.cpu_count() or 1)
    assert _cpus.default_width(environ={}) == max(1, _cpus.usable_cpus(environ={}) // 2)


def test_psutil_is_asked_when_python_does_not_know(monkeypatch):
    """os.cpu_count() may return None."""
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    monkeypatch.setattr("psutil.cpu_count", lambda: 12)
    assert _cpus.read_count() == 12


def test_each_source_says_what_it_allows(tmp_path):
    """A message can name the one that limits; what says nothing is infinite."""
    write(tmp_path, "proc/self/cgroup", "0::/job\n")
    mount(tmp_path, "cgroup2 / /cg rw")
    write(tmp_path, "cg/job/cpu.max", "250000 100000\n")
    environ = {"SLURM_CPUS_ON_NODE": "8"}
    limits = _cpus.cpu_limits(tmp_path, mask=mask_of(1, 2, 3, 4), count=many, environ=environ)
    assert limits == {"machine": 64, "affinity": 4, "cgroup": 2.5, "slurm": 8, "pbs": math.inf}
    bare = _cpus.cpu_limits(tmp_path / "bare", mask=lambda: None, count=lambda: None, environ={})
    assert set(bare.values()) == {math.inf}


def test_what_the_system_does_not_tell_is_named(tmp_path):
    """On an ordinary Linux nothing; where nothing can be read, each thing, those of binding on request."""
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    mount(tmp_path, "cgroup2 / /cg rw")
    write_cpuinfo(tmp_path, regular(1, 2, 1))
    write_nodes(tmp_path, "0-1")
    assert _cpus.missing(tmp_path, mask=mask_of(0), binding=True) == []
    nothing = tmp_path / "nothing"
    assert [text.partition(":")[0] for text in _cpus.missing(nothing, mask=lambda: None)] == [
        "this system has no cpu affinity",
        "no control group is found in /proc/self",
    ]
    of_binding = " ".join(_cpus.missing(nothing, mask=mask_of(0), binding=True)[1:])
    assert "/proc/cpuinfo" in of_binding and "NUMA" in of_binding


# --------------------------------------------------------------------------------------------------
# The width that is asked for


@pytest.mark.parametrize(("text", "width"), [("1", 1), ("12", 12), (" 300\n", 300), ("007", 7)])
def test_the_variable_overrides_the_default_width(tmp_path, text, width):
    """It may be more than there are cpus: tasks may wait for something else."""
    environ = {"TAYLORISM_MAX_THREADS": text, "SLURM_CPUS_ON_NODE": "2"}
    assert _cpus.default_width(tmp_path, mask=mask_of(0, 1), count=many, environ=environ) == width


@pytest.mark.parametrize(
    "text", ["", " ", "0", "-1", "2.5", "1e3", "0x10", "all", "1 2", "1_000", "\u0663", "9" * 5000]
)
def test_a_width_that_makes_no_sense_is_refused(tmp_path, text):
    """The message names the variable, the value, and what is accepted."""
    with pytest.raises(ValueError, match="TAYLORISM_MAX_THREADS.*has to be a whole number, 1 or more") as info:
        _cpus.default_width(tmp_path, mask=mask_of(0, 1), environ={"TAYLORISM_MAX_THREADS": text})
    assert repr(text) in str(info.value)


def test_the_width_is_no_limit_of_the_cpus(tmp_path):
    """Usable cpus are facts; the variable is a wish."""
    assert usable(tmp_path, TAYLORISM_MAX_THREADS="3") == 64


def test_the_environment_of_the_process_counts_by_default(monkeypatch):
    """os.environ is read anew at each call."""
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    monkeypatch.setenv("TAYLORISM_MAX_THREADS", "7")
    assert _cpus.usable_cpus() == 1 and _cpus.default_width() == 7
    monkeypatch.delenv("TAYLORISM_MAX_THREADS")
    assert _cpus.default_width() == 1


# --------------------------------------------------------------------------------------------------
# Slurm


def slurm(**values: object) -> dict[str, str]:
    """Return variables of Slurm: their names without the beginning."""
    return {f"SLURM_{name}": str(value) for name, value in values.items()}


SLURM_JOBS = {
    "a batch script, one task of 8 cpus": (slurm(CPUS_PER_TASK=8, CPUS_ON_NODE=8, TASKS_PER_NODE=1), 8),
    "a batch script, 40 tasks of 1 cpu that we run": (
        slurm(CPUS_PER_TASK=1, CPUS_ON_NODE=40, TASKS_PER_NODE=40, PROCID=0, LOCALID=0, NODEID=0), 40
    ),
    "a batch script, 4 tasks of 2 cpus": (slurm(CPUS_PER_TASK=2, CPUS_ON_NODE=8, TASKS_PER_NODE=4), 8),
    "a batch script, cpus per task not asked for": (slurm(CPUS_ON_NODE=16, TASKS_PER_NODE=16), 16),
    "a batch script on two nodes, 4 tasks on each": (
        slurm(CPUS_PER_TASK=2, CPUS_ON_NODE=8, TASKS_PER_NODE="4(x2)", NODEID=0), 8
    ),
    "3 cpus asked for, whole cores given": (slurm(CPUS_PER_TASK=3, CPUS_ON_NODE=4, TASKS_PER_NODE=1), 3),
    "3 cpus asked for, the whole node given": (slurm(CPUS_PER_TASK=3, CPUS_ON_NODE=48, TASKS_PER_NODE=1), 3),
    "cpus per task is all that is said": (slurm(CPUS_PER_TASK=4), 4),
    "a step of one task": (slurm(STEP_ID=0, STEP_TASKS_PER_NODE=1, CPUS_PER_TASK=16, CPUS_ON_NODE=16), 16),
    "a step of 8 tasks, one of which we are": (slurm(STEP_ID=3, STEP_TASKS_PER_NODE=8, CPUS_ON_NODE=8), 1),
    "a step of 2 tasks of 4": (slurm(STEP_ID=0, STEP_TASKS_PER_NODE=2, CPUS_PER_TASK=4, CPUS_ON_NODE=8), 4),
    "a step that is smaller than the job around it": (
        slurm(STEP_ID=0, STEP_TASKS_PER_NODE=1, TASKS_PER_NODE=8, CPUS_PER_TASK=8, CPUS_ON_NODE=2), 2
    ),
    "a step that has more tasks than cpus": (slurm(STEP_ID=0, STEP_TASKS_PER_NODE=8, CPUS_ON_NODE=2), 1),
    "a step on nodes that are not alike": (
        slurm(STEP_ID=0, STEP_TASKS_PER_NODE="2(x2),4", NODEID=2, CPUS_ON_NODE=8), 2
    ),
    "a step by the older name": (slurm(STEPID=0, STEP_TASKS_PER_NODE=4, CPUS_ON_NODE=8), 2),
    "the shell of salloc, on the node": (
        slurm(STEP_ID=4294967290, STEP_TASKS_PER_NODE=1, TASKS_PER_NODE=8, CPUS_PER_TASK=1, CPUS_ON_NODE=8), 8
    ),
    "the shell of salloc, on a login node": (slurm(JOB_CPUS_PER_NODE="8(x2),4"), 4),
    "the first of three nodes": (slurm(JOB_CPUS_PER_NODE="8(x2),4", NODEID=0), 8),
    "the third of three nodes": (slurm(JOB_CPUS_PER_NODE="8(x2),4", NODEID=2), 4),
    "a node that the job has not": (slurm(JOB_CPUS_PER_NODE="8(x2),4", NODEID=3), 4),
    "a node without a number": (slurm(JOB_CPUS_PER_NODE="8(x2),4", NODEID="?"), 4),
    "the nodes of a step are not those of the job": (slurm(STEP_ID=0, JOB_CPUS_PER_NODE="8,4", NODEID=0), 4),
    "very many nodes": (slurm(JOB_CPUS_PER_NODE="8(x999999999),4", NODEID=999999998), 8),
    "more than the machine has": (slurm(CPUS_ON_NODE=128), 64),
    "the cpus of the node make no sense, those of the job do": (
        slurm(CPUS_ON_NODE="all", JOB_CPUS_PER_NODE="8"), 8
    ),
}


@pytest.mark.parametrize(("environ", "cpus"), SLURM_JOBS.values(), ids=SLURM_JOBS)
def test_slurm_limits(tmp_path, environ, cpus):
    """All of the job on this node for a batch script, the share of one task in a step."""
    assert usable(tmp_path, **environ) == cpus


@pytest.mark.parametrize(
    "name", ["CPUS_PER_TASK", "CPUS_ON_NODE", "JOB_CPUS_PER_NODE", "TASKS_PER_NODE", "NODEID", "STEP_ID"]
)
@pytest.mark.parametrize(
    "text", ["", "0", "-4", "4.5", "four", "8(x2", "8(x),4", ",", "4,,4", "\u0664", "1" * 5000]
)
def test_what_slurm_says_without_sense_is_no_limit(tmp_path, name, text):
    """A value that cannot be understood is a fact that we do not have."""
    assert usable(tmp_path, **slurm(**{name: text})) == 64


def test_the_mask_that_slurm_sets_limits_as_well(tmp_path):
    """The smaller of the two counts."""
    environ = slurm(CPUS_ON_NODE=8)
    assert _cpus.usable_cpus(tmp_path, mask=mask_of(4, 5), count=many, environ=environ) == 2


# --------------------------------------------------------------------------------------------------
# PBS


def pbs_job(root: Path, *hosts: str, **environ: str) -> dict[str, str]:
    """Write the node file of a job on the host node1; return its variables."""
    write(root, "proc/sys/kernel/hostname", "node1.cluster.example\n")
    write(root, "var/spool/pbs/aux/77.server", "".join(f"{host}\n" for host in hosts))
    return {"PBS_JOBID": "77.server", "PBS_NODEFILE": "/var/spool/pbs/aux/77.server", **environ}


PBS_JOBS = {
    "select=1:ncpus=8": (["node1"], {"NCPUS": "8", "OMP_NUM_THREADS": "8"}, 8),
    "select=1:ncpus=8:mpiprocs=8:ompthreads=1": (["node1"] * 8, {"NCPUS": "1", "OMP_NUM_THREADS": "1"}, 8),
    "select=2:ncpus=8": (["node1", "node2"], {"NCPUS": "8"}, 8),
    "select=2:ncpus=8, its total said as well": (["node1", "node2"], {"NCPUS": "8", "PBS_NCPUS": "16"}, 8),
    "nodes=1:ppn=4 of Torque": (["node1"] * 4, {"PBS_NUM_PPN": "4", "PBS_NP": "4", "PBS_NUM_NODES": "1"}, 4),
    "nodes=2:ppn=4 of Torque": (["node1"] * 4 + ["node2"] * 4, {"PBS_NUM_PPN": "4", "PBS_NP": "8"}, 4),
    "procs=8 of Torque": (["node1"] * 6 + ["node2"] * 2, {"PBS_NUM_PPN": "1", "PBS_NP": "8"}, 6),
    "full names of the hosts": (["node1.cluster.example"] * 3 + ["node10.cluster.example"], {}, 3),
    "a site that says the total": (["node1"], {"PBS_NCPUS": "4", "PBS_NNODES": "1"}, 4),
    "the total of several nodes is no limit of one": ([], {"PBS_NCPUS": "12", "PBS_NUM_NODES": "2"}, 64),
    "threads of OpenMP are no limit": ([], {"OMP_NUM_THREADS": "1"}, 64),
    "a node file that does not name this host": (["login1"], {}, 64),
    "more than the machine has": (["node1"], {"NCPUS": "640"}, 64),
    "nonsense": (["\0", "node2"], {"NCPUS": "x", "PBS_NUM_PPN": "-1", "PBS_NCPUS": "", "PBS_NUM_NODES": "?"}, 64),
}


@pytest.mark.parametrize(("hosts", "environ", "cpus"), PBS_JOBS.values(), ids=PBS_JOBS)
def test_pbs_limits(tmp_path, hosts, environ, cpus):
    """What the job has on this node, as each of the systems by that name tells it."""
    assert usable(tmp_path, **pbs_job(tmp_path, *hosts, **environ)) == cpus


@pytest.mark.parametrize("path", ["", "/", "/gone", "/proc/sys"])
def test_a_node_file_that_cannot_be_read_is_no_error(tmp_path, path):
    """The variables alone are left."""
    environ = pbs_job(tmp_path, NCPUS="6") | {"PBS_NODEFILE": path}
    assert usable(tmp_path, **environ) == 6


def test_the_name_of_the_host_is_found_elsewhere(tmp_path):
    """Not every system has it in /proc."""
    write(tmp_path, "nodes", f"{os.uname().nodename}\n" * 5)
    assert usable(tmp_path, PBS_NODEFILE="/nodes") == 5


def test_a_variable_by_the_name_of_ncpus_is_somebody_else_s_outside_of_pbs(tmp_path):
    """It is a name that anybody may use."""
    assert usable(tmp_path, NCPUS="2") == 64
    assert usable(tmp_path, NCPUS="2", PBS_ENVIRONMENT="PBS_BATCH") == 2


NAMES = ["CPUS_PER_TASK", "CPUS_ON_NODE", "JOB_CPUS_PER_NODE", "TASKS_PER_NODE", "STEP_TASKS_PER_NODE"]
VALUES = st.one_of(
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=9),
    st.integers(-2, 100).map(str),
    st.lists(st.builds("{}(x{})".format, st.integers(0, 9), st.integers(0, 3))).map(",".join),
)


@given(
    values=st.dictionaries(st.sampled_from([*NAMES, "NODEID", "STEP_ID"]), VALUES),
    others=st.dictionaries(st.sampled_from(["NCPUS", "PBS_JOBID", "PBS_NCPUS", "PBS_NUM_PPN"]), VALUES),
)
def test_no_environment_is_an_error(values, others):
    """Between one cpu and the machine, whatever the variables say."""
    environ = slurm(**values) | others
    assert 1 <= _cpus.usable_cpus("/nowhere", mask=lambda: None, count=many, environ=environ) <= 64


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
# Neighbours


def test_neighbours_are_of_one_socket_node_and_core(tmp_path):
    """Two sockets of two nodes of two cores, numbered round-robin by the firmware; hyperthreads at the end."""
    # Cpu n is on socket n % 2; its node is n // 2 % 2 of the socket; two cores in each; 8 to 15 are second.
    known = {cpu: (cpu % 2, cpu % 8 // 2) for cpu in range(16)}
    write_cpuinfo(tmp_path, known)
    write_nodes(tmp_path, "0,4,8,12", "1,5,9,13", "2,6,10,14", "3,7,11,15")
    first = [0, 4, 2, 6, 1, 5, 3, 7]
    expected = first + [cpu + 8 for cpu in first]
    assert _cpus.compact(tmp_path, mask=mask_of(*known)) == expected
    assert _cpus.compact(tmp_path, mask=lambda: None) == expected


@pytest.mark.parametrize("writer", [write_cpuinfo, write_sysfs])
def test_without_nodes_neighbours_are_of_one_socket(tmp_path, writer):
    """Kernels without NUMA, and containers, have no such directory."""
    writer(tmp_path, {0: (0, 0), 1: (1, 0), 2: (0, 1), 3: (1, 1), 4: (0, 0), 5: (1, 0)})
    assert _cpus.compact(tmp_path, mask=mask_of(0, 1, 2, 3, 4, 5)) == [0, 2, 1, 3, 4, 5]


def test_hyperthreads_that_are_numbered_together_are_parted(tmp_path):
    """Cpus 0 and 1 share a core: a worker of two cpus gets two cores."""
    write_cpuinfo(tmp_path, {cpu: (0, cpu // 2) for cpu in range(8)})
    assert _cpus.compact(tmp_path, mask=lambda: None) == [0, 2, 4, 6, 1, 3, 5, 7]


def test_neighbours_are_taken_from_the_mask_alone(tmp_path):
    """A job on a shared node; a core of which only the second hyperthread is ours counts as a core."""
    write_cpuinfo(tmp_path, regular(2, 4, 2))
    assert _cpus.compact(tmp_path, mask=mask_of(1, 9, 2, 14, 40)) == [1, 2, 14, 9, 40]


def test_without_any_topology_neighbours_are_of_one_node(tmp_path):
    """Cpus of which nothing is known come by their numbers."""
    assert _cpus.compact(tmp_path / "bare", mask=mask_of(3, 1, 2)) == [1, 2, 3]
    write_nodes(tmp_path, "0,2", "1,3")
    assert _cpus.compact(tmp_path, mask=mask_of(0, 1, 2, 3)) == [0, 2, 1, 3]


def test_lists_of_cpus_of_nodes_are_read(tmp_path):
    """Ranges and single ones; a node of memory alone, and what makes no sense, is left out."""
    write_nodes(tmp_path, "0-3,8,10-11", "", "4-7", "some", "99999999999", "5-")
    write(tmp_path, "sys/devices/system/node/node7x/cpulist", "12")
    spans = {0: [range(4), range(8, 9), range(10, 12)], 2: [range(4, 8)]}
    assert _cpus.numa_nodes(tmp_path) == spans


@given(
    known=st.dictionaries(st.integers(0, 40), st.tuples(st.integers(0, 3), st.integers(0, 5))),
    allowed=st.sets(st.integers(0, 40), min_size=1),
)
def test_neighbours_are_a_permutation_of_the_mask(known, allowed):
    """No cpu is lost, invented or named twice; no second hyperthread comes before a first one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_cpus, "topology", lambda root: known)
        ordered = _cpus.compact("/nowhere", mask=lambda: allowed)
    assert sorted(ordered) == sorted(allowed)
    firsts = len({known[cpu] for cpu in allowed if cpu in known})
    assert len({known[cpu] for cpu in ordered[:firsts]}) == firsts


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
    assert _cpus.usable_cpus() == _cpus.default_width(environ={}) == 1
    assert _cpus.socketpacked() == [cpu]
    assert _cpus.affinity() in ([cpu], [None])  # None on a machine of one cpu


@needs_affinity
@pytest.mark.parametrize("kind", [list, set, tuple, frozenset, iter])
def test_binding_to_several_cpus(own_mask, kind):
    """A worker of several cpus is bound to all of them."""
    cpus = sorted(own_mask)[:2]
    _cpus.bind(kind(cpus))
    assert os.sched_getaffinity(0) == set(cpus)


@needs_affinity
@pytest.mark.parametrize(
    ("cpus", "words"), [([], r"cpus \[\]"), ([10**6, 10**6 + 1], r"cpus \[1000000, 1000001\]")]
)
def test_binding_to_no_cpu_of_several_is_a_clear_error(own_mask, cpus, words):
    """The error names all of them."""
    with pytest.raises(OSError, match=rf"cannot bind process {os.getpid()} to {words} .*may run"):
        _cpus.bind(cpus)
    assert os.sched_getaffinity(0) == own_mask


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
