"""The tree: who descends from whom, who adopts, and who is killed with his parent."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time

import pytest
from forked import exit_code, fork, in_fork

from taylorism import _tree


def wait_for_ever():
    """Do nothing until the parent ends it."""
    while True:
        signal.pause()


def chain(depth, pids):
    """Be a process with a line of descendants, each of which tells its pid."""
    os.write(pids, f"{os.getpid()}\n".encode())
    if depth:
        fork(chain, depth - 1, pids)
    wait_for_ever()


def read_pids(fd, count):
    """Read that many pids."""
    data = b""
    while data.count(b"\n") < count:
        data += os.read(fd, 1000)
    return [int(line) for line in data.split()]


@pytest.fixture
def family():
    """Give the pids of a child, its child, and its child."""
    reader, writer = os.pipe()
    fork(chain, 2, writer)
    pids = read_pids(reader, 3)
    os.close(reader)
    os.close(writer)
    yield pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pids[0], 0)


def test_children_and_descendants_are_found(family):
    """Parents before their children."""
    assert family[0] in _tree.children(os.getpid())
    assert [_tree.children(pid) for pid in family] == [[family[1]], [family[2]], []]
    assert _tree.descendants(family[0]) == family[1:]
    assert [pid for pid in _tree.descendants(os.getpid()) if pid in family] == family


def test_psutil_says_the_same(family):
    """Where the kernel does not list the children of a thread."""
    assert _tree._children_by_psutil(family[0]) == [family[1]]


def test_a_child_that_was_not_reaped_is_still_a_child():
    """Somebody has to wait for it."""
    pid = fork(int)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert pid in _tree.children(os.getpid())
    assert exit_code(pid) == 0
    assert pid not in _tree.children(os.getpid())


def test_a_process_that_is_gone_has_no_children():
    """Nor descendants, and that is no error."""
    pid = fork(int)
    exit_code(pid)
    assert _tree.children(pid) == _tree.descendants(pid) == _tree._children_by_psutil(pid) == []


def test_children_of_all_threads_are_found():
    """A child belongs to the thread that forked it."""

    def check():
        import threading

        reader, writer = os.pipe()
        done = threading.Event()
        started = []

        def start():
            started.append(fork(os.read, reader, 1))
            done.wait()

        thread = threading.Thread(target=start)
        thread.start()
        while not started:
            time.sleep(0.001)
        found = _tree.children(os.getpid())
        done.set()
        thread.join()
        os.write(writer, b"!")
        exit_code(started[0])
        return found == started

    assert in_fork(check)


def test_signals_go_to_all_and_the_dead_are_passed_over(family):
    """Each signal to each process, also when one of them is not there any more."""
    pid = fork(int)
    exit_code(pid)
    _tree.send([pid, *reversed(family)], signal.SIGTERM, signal.SIGCONT)
    ended = os.waitid(os.P_PID, family[0], os.WEXITED | os.WNOWAIT)  # left for the fixture to reap
    assert (ended.si_code, ended.si_status) == (os.CLD_KILLED, signal.SIGTERM)


def test_nobody_is_sent_nothing():
    """No process, or no signal."""
    _tree.send([], signal.SIGKILL)
    _tree.send([os.getpid()])


def test_orphans_are_adopted():
    """A subreaper gets the children of its dead children."""

    def check():
        assert _tree.become_subreaper()
        reader, writer = os.pipe()

        def parent():
            pid = fork(wait_for_ever)
            os.write(writer, f"{pid}\n".encode())

        exit_code(fork(parent))
        (orphan,) = read_pids(reader, 1)
        adopted = _tree.children(os.getpid())
        os.kill(orphan, signal.SIGKILL)
        return adopted == [orphan] and exit_code(orphan) == -signal.SIGKILL

    assert in_fork(check)


def left_behind(child):
    """Return whether a process outlives its parent by more than a moment; `child` is called in it."""
    reader, writer = os.pipe()

    def parent():
        me = os.getpid()

        def life():
            child(me)
            os.write(writer, b"ready\n")
            wait_for_ever()

        fork(life)
        os.close(writer)
        os.read(reader, 6)

    exit_code(fork(parent))
    os.close(writer)
    ended = select.select([reader], [], [], 5.0)[0] and os.read(reader, 10) == b""
    os.close(reader)
    return not ended


def test_a_worker_dies_with_its_listener():
    """The system kills it, whatever it is doing."""
    assert not left_behind(_tree.die_with_parent)


def test_a_parent_that_was_dead_already_is_noticed():
    """The death signal comes too late then; the worker ends by itself."""

    def child():
        _tree.die_with_parent(os.getpid())  # which is not our parent

    assert exit_code(fork(child)) == -signal.SIGKILL


def marked(program):
    """Mark a fork, have it start something, kill it, and return whether `end_marked` ends that."""
    reader, writer = os.pipe()
    told, tell = os.pipe()

    def listener():
        os.close(reader)
        os.close(told)
        mark = _tree.mark_descendants()
        program(writer)
        os.write(tell, f"{mark}\n".encode())
        os._exit(0)

    exit_code(fork(listener))
    os.close(writer)
    mark = os.read(told, 100).decode().strip()
    alive = not select.select([reader], [], [], 0.05)[0]
    _tree.end_marked(mark)
    ended = bool(select.select([reader], [], [], 5.0)[0])
    for fd in (reader, told, tell):
        os.close(fd)
    return alive, ended


def test_programs_of_a_dead_listener_are_found_by_their_environment():
    """What its workers executed has the mark in the environment."""

    def program(writer):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(50)"], pass_fds=[writer])

    assert marked(program) == (True, True)


def test_forks_of_a_dead_listener_are_found_by_their_descriptors():
    """What executed nothing has the environment of main, but the pipe of the listener."""
    assert marked(lambda writer: fork(wait_for_ever)) == (True, True)


def test_without_a_mark_nobody_is_ended():
    """A listener that died before it said anything leaves nothing to look for."""
    _tree.end_marked("")


def test_the_mark_of_another_ends_nobody(family):
    """Only the very mark counts."""
    _tree.end_marked("1:1")
    assert [os.path.exists(f"/proc/{pid}") for pid in family] == [True] * 3


def test_the_mark_takes_no_standard_descriptor():
    """With the standard streams closed, the numbers 0, 1 and 2 stay free."""

    def check():
        for fd in range(3):
            os.close(fd)
        _tree.mark_descendants()
        taken = []
        for fd in range(3):
            try:
                os.fstat(fd)
                taken.append(fd)
            except OSError:
                pass
        return taken

    assert in_fork(check) == []
