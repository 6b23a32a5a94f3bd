"""The leaf that knows memory: on machines that are small trees of files, and what real processes use."""

from __future__ import annotations

import io
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


def test_the_ram_is_the_limit_of_a_bare_machine(machine):
    """16777216 kB are 16384 MiB."""
    assert _memory.usable_memory(machine, ram=no_ram) == 16384.0


@pytest.mark.parametrize("group", ["a/b/c", "a/b", "a", "."])
@pytest.mark.parametrize(
    "name", ["v1/memory/{}/memory.limit_in_bytes", "v2/{}/memory.max", "v2/{}/memory.high"]
)
def test_a_limit_anywhere_on_the_way_up_counts(machine, name, group):
    """The group of the process, each of its parents, and the mount point are asked."""
    write(machine, name.format(group), 3 * GIB)
    assert _memory.usable_memory(machine, ram=no_ram) == 3072.0


def test_the_smallest_limit_counts(machine):
    """Not the nearest one."""
    write(machine, "v2/a/b/c/memory.max", 5 * GIB)
    write(machine, "v2/a/memory.max", 2 * GIB)
    write(machine, "v1/memory/a/b/memory.limit_in_bytes", 4 * GIB)
    assert _memory.usable_memory(machine, ram=no_ram) == 2048.0


def test_limits_of_other_groups_and_controllers_do_not_count(machine):
    """A brother's limit, and a file of that name in another hierarchy."""
    write(machine, "v2/a/other/memory.max", GIB)
    write(machine, "v1/cpu/a/memory.limit_in_bytes", GIB)
    assert _memory.usable_memory(machine, ram=no_ram) == 16384.0


@pytest.mark.parametrize("text", ["max", "", "nonsense", -1, 0, 9223372036854771712])
def test_a_limit_that_says_nothing_is_no_limit(machine, text):
    """'max' of version 2, the huge number of version 1, and garbage."""
    write(machine, "v2/a/memory.max", text)
    write(machine, "v1/memory/a/memory.limit_in_bytes", text)
    assert _memory.usable_memory(machine, ram=no_ram) == 16384.0


@pytest.mark.parametrize("text", ["", "MemTotal: a lot", "MemTotal: 0 kB", "Total: 5 kB"])
def test_psutil_is_asked_when_meminfo_does_not_say(machine, text):
    """The fallback has the limits of the control groups as well."""
    write(machine, "proc/meminfo", text)
    assert _memory.usable_memory(machine, ram=lambda: 1000.0) == 1000.0
    write(machine, "v2/memory.max", 500 * 1024**2)
    assert _memory.usable_memory(machine, ram=lambda: 1000.0) == 500.0


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
    assert 0 < _memory.usable_memory() <= total * 1.001
    assert _memory.read_ram() == pytest.approx(total)


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
        before, kept = _memory.anonymous(), b"x" * SIZE
        with_it = _memory.anonymous()
        del kept
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
