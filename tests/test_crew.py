"""The crew: workers are started, heard, reaped and stopped, however they and what they started behave."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from forked import fork, in_fork

from taylorism import _channel, _child, _crew, _signals, _tree
from taylorism._channel import open_object
from taylorism._crew import Crew
from taylorism._errors import TaylorismError
from taylorism._messages import Outcome

#: seconds that anything here may take at the very most
PATIENCE = 20.0


class Stub:
    """What the crew asks of a Worker; its process does what it is told."""

    def __init__(self, life, name="w"):
        self.name = name
        self.life = life
        self.messenger = self._process = None

    def work(self):
        """Start the process."""
        self._process.start()

    def live(self):
        """Do in the process what a worker does there."""
        self.life(self)


class Stage:
    """A listener that has nothing but a crew."""

    def __init__(self):
        _tree.become_subreaper()
        _child.run = Stub.live
        self.inbox = _signals.Inbox()
        self.poller = select.poll()
        self.poller.register(self.inbox.fd, select.POLLIN)
        self.crew = Crew(self.poller, self.inbox.forget, 0)
        self.gone = []
        self.given_up = []

    def start(self, life, name="w"):
        """Start a worker; return its member."""
        self.crew.start(Stub(life, name), {"a": 1})
        return list(self.crew._members.values())[-1]

    def turn(self, timeout=0.02):
        """Do once what the loop of the listener does."""
        ready = {fd for fd, _ in self.poller.poll(timeout * 1000)}
        self.inbox.drain(self.inbox.fd in ready)
        for member in self.crew.heard(ready):
            self.crew.hear(member)
        for member in self.crew.reap() if self.inbox.child_ended() else ():
            self.crew.hear(member, dead=True)
            self.crew.dismiss(member)
            self.gone.append(member)
        self.given_up += self.crew.enforce()

    def until(self, reached):
        """Turn until something is so."""
        deadline = time.monotonic() + PATIENCE
        while not reached():
            assert time.monotonic() < deadline, "it never comes"
            self.turn()

    def end(self):
        """Turn until all are gone."""
        self.until(lambda: self.crew.all_gone)
        assert _tree.children(os.getpid()) == []


def report(value):
    """Make a life that gives a report and leaves."""

    def life(worker):
        worker.messenger.put(_child.Result(worker.name, value))
        worker.messenger.close()

    return life


def wait_for_ever(worker=None):
    """Be interrupted by SIGTERM, with the exception that a task gets."""
    role = _signals.Interruption()
    role.begin()
    while True:
        signal.pause()


def stubborn(worker=None):
    """Ignore SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    worker.messenger.put(_child.Result(worker.name, "deaf")) if worker else None
    while True:
        signal.pause()


@pytest.fixture
def ready():
    """Give a function to be called in a child when it is ready, and one that waits for that."""
    reader, writer = os.pipe()
    yield (lambda: os.write(writer, b"!")), (lambda: os.read(reader, 1))
    os.close(reader)
    os.close(writer)


# -- life and death -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, "text", 3_000_000])
def test_a_report_is_heard_and_its_worker_reaped(value):
    """Whatever its size; the pipe is closed, the exit code known."""

    def check():
        stage = Stage()
        before = set(os.listdir("/proc/self/fd"))
        sent = bytes(value) if isinstance(value, int) else value
        member = stage.start(report(np.frombuffer(sent, "u1") if isinstance(value, int) else sent))
        stage.end()
        assert stage.gone == [member] and member.process.exitcode == 0
        assert member.notice.head.outcome is Outcome.REPORT
        came = open_object(member.notice.segments)
        assert (came.tobytes() if isinstance(value, int) else came) == sent
        assert set(os.listdir("/proc/self/fd")) == before

    in_fork(check)


@pytest.mark.parametrize("code", [0, 3])
def test_a_death_without_a_word_is_a_member_without_a_notice(code):
    """The listener makes a failure of it."""

    def check():
        stage = Stage()
        member = stage.start(lambda worker: os._exit(code))
        stage.end()
        return member.notice, member.process.exitcode, member.name

    assert in_fork(check) == (None, code, "w")


def test_a_torn_notice_is_none():
    """Only a whole frame is a report."""

    def life(worker):
        notice, segments = worker.messenger._report(_child.Result("w", "report"))
        stream = b"".join(map(bytes, _channel.encode(notice, segments)))
        os.write(worker.messenger.fd, stream[:-1])
        os.kill(os.getpid(), signal.SIGKILL)

    def check():
        stage = Stage()
        member = stage.start(life)
        stage.end()
        return member.notice, member.process.exitcode

    assert in_fork(check) == (None, -signal.SIGKILL)


def test_what_a_dead_worker_has_written_is_read_to_its_end():
    """Though nobody had listened before it died."""

    def check():
        stage = Stage()
        member = stage.start(report("x" * 30_000))
        os.waitid(os.P_PID, member.process.pid, os.WEXITED | os.WNOWAIT)
        (gone,) = stage.crew.reap()
        assert gone is member and member.notice is None
        notice = stage.crew.hear(member, dead=True)
        stage.crew.dismiss(member)
        assert stage.crew.all_gone
        return open_object(notice.segments)

    assert in_fork(check) == "x" * 30_000


def test_a_death_is_seen_though_a_grandchild_holds_the_pipe():
    """End of file says nothing; and what is left behind holds nothing up."""

    def life(worker):
        fork(lambda: signal.pause())
        os._exit(4)

    def check():
        stage = Stage()
        member = stage.start(life)
        stage.until(lambda: stage.gone)
        assert stage.gone == [member] and member.process.exitcode == 4
        assert stage.crew.all_gone and _tree.children(os.getpid())  # a child left on purpose may live on
        stage.crew.stop(0.0)
        stage.end()

    in_fork(check)


def test_many_workers_at_once():
    """All are heard, each once."""

    def check():
        stage = Stage()
        members = [stage.start(report(number), f"w{number}") for number in range(40)]
        stage.end()
        assert {member.name for member in stage.gone} == {member.name for member in members}
        return sorted(open_object(member.notice.segments) for member in members)

    assert in_fork(check) == [*range(40)]


def test_a_worker_holds_no_descriptor_of_the_others():
    """But the standard streams and its own pipe."""

    def fds(worker):
        worker.messenger.put(_child.Result(worker.name, _descriptors()))
        worker.messenger.close()

    def check():
        before = _descriptors()
        stage = Stage()
        for number in range(3):
            stage.start(lambda worker: signal.pause(), f"p{number}")
        member = stage.start(fds)
        stage.until(lambda: member.notice is not None)
        stage.crew.stop(0.0)
        stage.end()
        return [each for each in open_object(member.notice.segments) if each not in before]

    (own,) = in_fork(check)
    assert own.startswith("pipe:")


def _descriptors():
    """Return what is behind each descriptor of this process."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return found


def test_a_status_that_was_asked_for_in_the_listener_is_not_lost():
    """A scheduler of the user's sees the workers: it may ask whether one is alive, or stop it."""

    def check():
        stage = Stage()
        member = stage.start(lambda worker: os._exit(3))
        os.waitid(os.P_PID, member.process.pid, os.WEXITED | os.WNOWAIT)
        assert not member.worker._process.is_alive()
        assert stage.crew.reap() == [member]
        return member.process.exitcode

    assert in_fork(check) == 3


def test_a_worker_that_ends_just_before_it_is_killed_is_reaped(monkeypatch):
    """The signal that it has ended may come between the reaping and the deadline."""
    monkeypatch.setattr(_crew, "LINGER", 0.0)

    def check():
        stage = Stage()
        member = stage.start(report("r"))
        while member.notice is None:
            select.select([member.inflow.fd], [], [])
            stage.crew.hear(member)
        os.waitid(os.P_PID, member.process.pid, os.WEXITED | os.WNOWAIT)
        stage.crew.enforce()
        assert stage.crew.reap() == [member]
        stage.crew.dismiss(member)
        return stage.crew.all_gone

    assert in_fork(check)


def test_a_worker_that_lives_on_after_its_report_is_ended(monkeypatch):
    """Threads and children that it waits for get some seconds, not for ever; the report stays."""
    monkeypatch.setattr(_crew, "LINGER", 0.05)

    def life(worker):
        report("r")(worker)
        wait_for_ever()

    def check():
        stage = Stage()
        member = stage.start(life)
        stage.end()
        assert stage.crew.next_deadline == float("inf")
        return open_object(member.notice.segments), member.process.exitcode

    assert in_fork(check) == ("r", -signal.SIGKILL)


# -- starts that fail -----------------------------------------------------------------------------------


def test_a_refused_process_leaves_nothing_behind(monkeypatch):
    """No descriptor, no member."""

    def check():
        stage = Stage()
        before = os.listdir("/proc/self/fd")

        def refuse():
            raise BlockingIOError(11, "Resource temporarily unavailable")

        monkeypatch.setattr(os, "fork", refuse)
        with pytest.raises(OSError):
            stage.start(report(1))
        assert os.listdir("/proc/self/fd") == before
        return stage.crew.all_gone

    assert in_fork(check)


def test_a_refused_pipe_leaves_nothing_behind(monkeypatch):
    """The same, one step earlier."""

    def check():
        stage = Stage()

        def refuse():
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(os, "pipe", refuse)
        with pytest.raises(OSError):
            stage.start(report(1))
        return stage.crew.all_gone

    assert in_fork(check)


def test_a_work_that_starts_nothing_is_an_error_that_names_the_class():
    """A subclass may override `work`; it must start the process."""

    def check():
        stage = Stage()
        before = os.listdir("/proc/self/fd")
        worker = Stub(report(1))
        worker.work = lambda: None
        with pytest.raises(TaylorismError, match=r"work\(\) of Stub started no process"):
            stage.crew.start(worker, {})
        assert os.listdir("/proc/self/fd") == before

    in_fork(check)


# -- the ladder -----------------------------------------------------------------------------------------


def test_a_polite_worker_cleans_up_before_it_leaves(tmp_path, ready):
    """SIGTERM raises in it, its ``finally`` runs, and nothing is killed."""
    trace, (tell, wait) = tmp_path / "cleaned", ready

    def life(worker):
        try:
            role = _signals.Interruption()
            role.begin()
            tell()
            signal.pause()
        finally:
            trace.write_text("yes")

    def check():
        stage = Stage()
        member = stage.start(life)
        wait()
        stage.crew.stop()
        assert stage.crew.stopping
        stage.end()
        return member.process.exitcode

    assert in_fork(check) == 1
    assert trace.read_text() == "yes"


def test_a_stubborn_worker_and_all_below_it_are_killed(ready):
    """Its child that ignores SIGTERM, a program that it started, and an orphan."""
    (tell, wait), pipe = ready, os.pipe()

    def life(worker):
        fork(stubborn)
        fork(lambda: fork(stubborn))  # an orphan at once
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(50)"], pass_fds=[pipe[1]])
        os.wait()
        tell()
        stubborn()

    def check():
        os.close(pipe[0])
        stage = Stage()
        member = stage.start(life)
        wait()
        os.close(pipe[1])
        stage.crew.stop(0.05)
        stage.end()
        return member.process.exitcode

    assert in_fork(check) == -signal.SIGKILL
    os.close(pipe[1])
    assert os.read(pipe[0], 1) == b"", "something below still holds the pipe"
    os.close(pipe[0])


def test_a_stopped_process_is_ended_too(ready):
    """SIGCONT comes with SIGTERM: what was suspended by hand runs its clean-up."""
    tell, wait = ready

    def life(worker):
        _signals.Interruption().begin()
        tell()
        signal.pause()

    def check():
        stage = Stage()
        member = stage.start(life)
        wait()
        os.kill(member.process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, member.process.pid, os.WSTOPPED)
        stage.crew.stop()
        stage.end()
        return member.process.exitcode

    assert in_fork(check) == 1


def test_a_second_stop_may_only_shorten_the_first():
    """When main dies, nobody waits for the tasks any more; a longer grace is not granted again."""

    def check():
        stage = Stage()
        member = stage.start(stubborn)
        stage.until(lambda: member.notice is not None)
        stage.crew.stop(50.0)
        first = stage.crew.next_deadline
        stage.crew.stop(100.0)
        assert stage.crew.next_deadline <= first
        stage.crew.stop(0.0)
        stage.end()
        return member.process.exitcode

    assert in_fork(check) == -signal.SIGKILL


def test_what_the_system_cannot_end_is_given_up(monkeypatch):
    """A process on a dead network disk does not answer to SIGKILL: it is named, and left."""
    monkeypatch.setattr(_crew, "_UNKILLABLE", 0.05)

    def check():
        stage = Stage()
        member = stage.start(stubborn)
        stage.until(lambda: member.notice is not None)
        send = _tree.send
        _tree.send = lambda pids, *signals: None
        stage.crew.stop(0.0)
        stage.until(lambda: stage.crew.all_gone)
        send([member.process.pid], signal.SIGKILL)
        os.waitpid(member.process.pid, 0)
        return stage.given_up == [member]

    assert in_fork(check)


def test_an_idle_crew_has_no_deadline():
    """Nothing is due before something happens."""

    def check():
        stage = Stage()
        assert stage.crew.next_deadline == float("inf") and stage.crew.all_gone
        stage.crew.stop()
        assert stage.crew.all_gone

    in_fork(check)
