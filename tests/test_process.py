"""Processes: started, seen, ended and told in words; no status is lost, whoever asks and whenever."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time

import pytest
from forked import Injected, Injector, exit_code, fork, in_fork, interrupted, two_blows

from taylorism import _descriptors, _process, _signals, _tree
from taylorism._process import ContextProcess, ForkedProcess, in_words, watch


def wait_for_ever():
    """Do nothing until somebody ends it; SIGTERM is let in."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    while True:
        signal.pause()


def started(run):
    """Start a process."""
    process = ForkedProcess(run)
    process.start()
    return process


# -- watch, words ---------------------------------------------------------------------------------------


def test_a_watched_process_is_seen_to_end():
    """The descriptor becomes readable at the end, not before, and is above the standard streams."""
    reader, writer = os.pipe()
    pid = fork(os.read, reader, 1)
    fd = watch(pid)
    assert fd > 2 and not os.get_inheritable(fd)
    assert not select.select([fd], [], [], 0)[0]
    os.write(writer, b"!")
    assert select.select([fd], [], [], 10)[0]
    assert exit_code(pid) == 0
    for each in (fd, reader, writer):
        os.close(each)


def test_a_process_that_is_gone_cannot_be_watched():
    """Nor where the system has no such descriptors."""
    pid = fork(int)
    exit_code(pid)
    assert watch(pid) is None


def test_without_the_call_nothing_is_watched(monkeypatch):
    """As on macOS; or in a sandbox that refuses."""
    monkeypatch.setattr(os, "pidfd_open", lambda pid: (_ for _ in ()).throw(PermissionError(1, "no")))
    assert watch(os.getpid()) is None
    monkeypatch.delattr(os, "pidfd_open")
    assert watch(os.getpid()) is None


@pytest.mark.parametrize(
    ("exitcode", "text"),
    [
        (None, "unknown"),
        (0, "status 0"),
        (3, "status 3"),
        (255, "status 255"),
        (-9, "killed by SIGKILL: out of memory?"),
        (-11, "killed by SIGSEGV: a fault in compiled code?"),
        (-15, "killed by SIGTERM"),
        (-1, "killed by SIGHUP"),
        (-40, "killed by signal 40"),
    ],
)
def test_an_exit_status_is_told_in_words(exitcode, text):
    """With its usual reason, where there is one."""
    assert text in in_words(exitcode)


# -- forks ----------------------------------------------------------------------------------------------


def test_a_process_that_was_not_started_holds_nothing():
    """It has no pid, cannot be joined or signalled, and none of that is an error."""
    before = len(os.listdir("/proc/self/fd"))
    process = ForkedProcess(wait_for_ever)
    process.terminate()
    process.kill()
    process.join()
    process.join(0.01)
    assert (process.pid, process.exitcode, process.is_alive()) == (None, None, False)
    assert len(os.listdir("/proc/self/fd")) == before and "not started" in repr(process)


@pytest.mark.parametrize(
    ("run", "code"),
    [(int, 0), (lambda: 1 / 0, 1), (lambda: os._exit(7), 7), (lambda: sys.exit(0), 1),
     (lambda: os.kill(os.getpid(), signal.SIGKILL), -9)],
)  # fmt: skip
def test_the_exit_code_says_how_it_ended(run, code):
    """It never returns into the caller's code, whatever happens in it."""
    process = started(run)
    process.join()
    assert (process.exitcode, process.is_alive()) == (code, False)
    assert f"pid {process.pid}" in repr(process)


def test_the_child_knows_itself():
    """It has its own pid, and is nobody's parent."""
    reader, writer = os.pipe()

    def tell():
        os.write(writer, f"{process.pid} {os.getpid()} {multiprocessing.active_children()}".encode())

    process = ForkedProcess(tell)
    process.start()
    process.join()
    os.close(writer)
    assert os.read(reader, 100).decode() == f"{process.pid} {process.pid} []"
    os.close(reader)


def test_signals_are_held_back_in_a_child_of_main_until_it_lets_them_in():
    """The handlers of main that came with the fork are not for it; main itself has its signals back at once."""
    held, before = set(_signals.INTERRUPTING), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    process = started(lambda: os._exit(len(held & signal.pthread_sigmask(signal.SIG_BLOCK, ()))))
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    process.join()
    assert process.exitcode == len(held)


@pytest.mark.parametrize("timeout", [None, 30.0])
@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_a_process_is_ended_and_joined(end, timeout):
    """By SIGTERM or SIGKILL; twice does no harm."""
    process = started(wait_for_ever)
    assert process.is_alive()
    while process.is_alive():
        getattr(process, end)()
        process.join(0.05)
    process.join(timeout)
    getattr(process, end)()
    process.join(timeout)
    assert process.exitcode == {"terminate": -15, "kill": -9}[end]


@pytest.mark.parametrize("watched", [True, False])
def test_a_join_with_a_timeout_comes_back(watched, monkeypatch):
    """With or without a descriptor to wait on; and sees the end when it comes."""
    if not watched:
        monkeypatch.delattr(os, "pidfd_open")
    process = started(wait_for_ever)
    process.join(0.0)
    process.join(0.03)
    assert process.is_alive()
    threading.Timer(0.02, process.kill).start()
    process.join(30.0)
    assert process.exitcode == -9


def test_a_join_with_more_than_1024_descriptors_works():
    """`select` knows no descriptor above 1023; programs that have raised their limit do."""

    def check():
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if limit < 1200:
            pytest.skip("the limit of descriptors cannot be raised")
        resource.setrlimit(resource.RLIMIT_NOFILE, (1200, limit))
        for _ in range(1100):
            os.open(os.devnull, os.O_RDONLY)
        process = started(wait_for_ever)
        try:
            process.join(0.01)
        finally:
            process.kill()
        process.join(30.0)
        return process.exitcode

    assert in_fork(check) == -9


def test_a_status_that_somebody_else_took_is_no_error():
    """Main may ignore SIGCHLD, or wait for any child."""
    process = started(int)
    os.waitpid(process.pid, 0)
    process.join()
    assert process.exitcode == 0 and not process.is_alive()
    process.kill()


def test_the_end_can_be_noted_by_who_reaps_all():
    """The listener waits for any child, and tells each process its status."""
    process = started(lambda: os._exit(3))
    pid, status = os.waitpid(-1, 0)
    assert pid == process.pid
    process.note_end(status)
    assert process.exitcode == 3


def test_a_fork_of_the_parent_leaves_the_process_alone():
    """It is not its child: nothing is reaped or signalled from there."""
    process = started(wait_for_ever)

    def check():
        process.kill()
        process.join(0.01)
        return process.exitcode

    assert in_fork(check) is None
    assert process.is_alive()
    process.kill()
    process.join()


def test_a_refused_fork_is_the_systems_error(monkeypatch):
    """And leaves the signals as they were."""

    def refuse():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    process = ForkedProcess(int)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with pytest.raises(OSError):
        process.start()
    assert process.pid is None and signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_an_exit_code_is_not_lost_to_an_exception_out_of_a_handler():
    """The system gives a status out once; a Ctrl-C right then must not swallow it."""

    def run(injector):
        process = started(lambda: os._exit(3))
        try:
            injector.run(process.join)
        except Injected:
            process.join()
        return process.exitcode

    counter = Injector(_process)
    assert run(counter) == 3 and counter.count > 10
    assert [run(Injector(_process, at)) for at in range(1, counter.count)] == [3] * (counter.count - 1)


@pytest.mark.parametrize("alive", [True, False])
def test_an_exit_code_asked_for_in_the_middle_of_asking_is_right(alive):
    """By a handler, or by another thread: nobody sees an error, or a status that it is not."""

    def run(at):
        process = started(wait_for_ever if alive else lambda: os._exit(3))
        if not alive:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        injector = Injector(_process, at, action=lambda: seen.append(process.exitcode))
        try:
            seen.append(injector.run(lambda: process.exitcode))
        finally:
            process.kill()
            process.join()
        return injector.count

    seen = []
    count = run(0)
    for at in range(1, count):
        run(at)
    assert set(seen) == {None if alive else 3}


def test_a_bounded_join_that_is_interrupted_at_any_step_leaves_no_descriptor():
    """That of the process is closed, wherever a handler raises."""
    process = started(wait_for_ever)
    before = len(os.listdir("/proc/self/fd"))
    for at in itertools.count(1):
        steps, _ = interrupted((_process, _descriptors), lambda: process.join(0.0001), at)
        assert len(os.listdir("/proc/self/fd")) == before, f"step {at}"
        if steps < at:
            break
    process.kill()
    process.join()
    assert at > 10


def test_a_second_signal_as_the_first_one_leaves_a_join_leaves_no_descriptor(monkeypatch):
    """Python 3.10 runs handlers where an exception arrives, too: at the beginning of a `finally`."""
    process, before = ForkedProcess(signal.pause), os.listdir("/proc/self/fd")
    process.start()
    with two_blows() as act, pytest.raises((TypeError, Injected)):
        monkeypatch.setattr(_process, "_pause", lambda fd, left: act())
        process.join(20.0)
    after = os.listdir("/proc/self/fd")
    process.kill()
    monkeypatch.undo()
    process.join()
    assert len(after) == len(before)


def test_many_threads_may_join_one_process():
    """All of them come back, with the status it had."""
    process = started(wait_for_ever)
    seen = []

    def join():
        process.join(30.0)
        seen.append(process.exitcode)

    threads = [threading.Thread(target=join) for _ in range(8)]
    for thread in threads:
        thread.start()
    process.kill()
    for thread in threads:
        thread.join()
    assert seen == [-9] * 8


def test_an_ended_child_can_be_signalled_without_harm():
    """Its number may already belong to another."""
    process = started(int)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    process.kill()
    process.terminate()
    assert process.exitcode == 0


# -- processes of multiprocessing -----------------------------------------------------------------------


def test_a_context_process_has_the_same_face():
    """Under any context; it is not multiprocessing's to join at exit."""
    process = ContextProcess("fork", time.sleep, 30)
    process.terminate()
    process.kill()
    process.join()
    assert (process.pid, process.exitcode, process.is_alive()) == (None, None, False)
    process.start()
    assert process.is_alive() and multiprocessing.active_children() == []
    process.join(0.01)
    process.kill()
    process.join()
    assert (process.exitcode, process.is_alive()) == (-9, False)
    process = ContextProcess("fork", os._exit, 3)
    process.start()
    process.join(30.0)
    assert process.exitcode == 3


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_context_process_runs_under_every_method(method):
    """In a program of its own: these methods leave helpers of the interpreter until it ends."""
    code = f"""
import os
from taylorism._process import ContextProcess
if __name__ == "__main__":
    process = ContextProcess({method!r}, os._exit, 5)
    process.start()
    process.join(30.0)
    print(process.exitcode, process.is_alive())
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "5 False\n" and run.stderr == ""


def test_a_child_is_known_as_soon_as_it_is_there():
    """Whatever is raised in the parent right after the fork, there is a number by which to end it."""

    def interrupt():
        if os.getpid() == main:  # in the child, all signals are blocked
            raise Injected

    def run(at):
        process = ForkedProcess(wait_for_ever)
        try:
            with contextlib.suppress(Injected):
                Injector(_process, at, action=interrupt).run(process.start)
        finally:
            left = _tree.children(os.getpid())
            known = [] if process.pid is None else [process.pid]
            process.kill()
            process.join()
        return left, known

    main = os.getpid()
    seen = [run(at) for at in range(1, 40)]
    assert all(left == known for left, known in seen) and any(known for _, known in seen)
